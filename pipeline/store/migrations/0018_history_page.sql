-- A page of a symbol's history in one round trip, and of one moment: a function that is STABLE sees what the statement
-- that calls it sees. An open day has BRIN only, which finds ranges of pages but gives no order: there a page is read by
-- windows of event time that begin at the near end and grow until it is full. Where to begin is told by the times of a few
-- pages; a wrong guess costs time and never a row, since the last window reaches to the end of what was asked.

-- The tables that may hold rows of a span. A settled day says what it holds of the symbol, so that only the days that are
-- needed are opened; its btree gives rows in order. Of a day that is not settled nothing is known. `pages`: it is read by
-- windows, and has so many pages; 0: it is read by its btree.
CREATE FUNCTION history_days(of_stage text, of_symbol text, low bigint, high bigint, known bigint)
RETURNS TABLE (name text, settled boolean, first_ts bigint, last_ts bigint, pages bigint) LANGUAGE sql STABLE AS $$
SELECT e.leaf, true, e.first_ts,
       CASE WHEN known = 9223372036854775807 THEN e.last_ts
            ELSE least(e.last_ts, greatest(known::numeric + e.lead, -9223372036854775808))::bigint END,
       0::bigint
  FROM extents e
 WHERE e.stage = of_stage AND e.symbol = of_symbol AND e.last_ts >= low AND e.first_ts <= high AND e.first_known_at <= known
 UNION ALL
SELECT open.name, false, -9223372036854775808, 9223372036854775807,
       -- The btree does not know what was known when.
       CASE WHEN open.indexed AND known = 9223372036854775807 THEN 0 ELSE open.pages END
  FROM (SELECT c.relname::text AS name, coalesce(x.indisvalid, false) AS indexed,
               pg_relation_size(c.oid) / current_setting('block_size')::bigint AS pages
          FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
          LEFT JOIN (pg_index x JOIN pg_class n ON n.oid = x.indexrelid)
            ON x.indrelid = c.oid AND n.relname = c.relname || '_symbol_ts'
         WHERE h.inhparent = of_stage::regclass AND NOT EXISTS (SELECT FROM settled s WHERE s.leaf = c.relname)) AS open
 WHERE open.pages > 0
$$;

-- How event time is spread over a table: the event times of some pages, by the first row of each, close to each other at the
-- ends. Each in its own order: where the rows lie in another one, these are shares all the same.
CREATE FUNCTION history_spread(leaf text, of_pages bigint, OUT times bigint[], OUT pages float8[])
LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
DECLARE
    last CONSTANT bigint := of_pages - 1;
    places tid[];
BEGIN
    SELECT array_agg(DISTINCT format('(%s,1)', taken.place)::tid) INTO places
      FROM (SELECT last * n / 63 FROM generate_series(0, 63) AS n
             UNION ALL
            SELECT unnest(ARRAY[near, last - near])
              FROM (SELECT 1::bigint << n FROM generate_series(0, 32) AS n) AS powers(near) WHERE near <= last
           ) AS taken(place);
    EXECUTE format(
        'SELECT array_agg(ts ORDER BY ts), array_agg(page ORDER BY page)'
        ' FROM (SELECT ts, (ctid::text::point)[0] AS page FROM %I WHERE ctid = ANY ($1)) AS seen', leaf)
       INTO times, pages USING places;
END $$;

-- About the time that lies so many pages behind another one; null beyond both ends of the table.
CREATE FUNCTION history_time(times bigint[], pages float8[], start bigint, step float8) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    n CONSTANT integer := coalesce(cardinality(times), 0);
    at integer;
    page float8;
BEGIN
    IF n = 0 THEN
        RETURN NULL;
    END IF;
    at := width_bucket(start, times);
    page := step + CASE
        WHEN at = 0 THEN pages[1]
        WHEN at = n THEN pages[n]
        ELSE pages[at] + (pages[at + 1] - pages[at])
             * ((start::numeric - times[at]) / (times[at + 1]::numeric - times[at]))::float8
    END;
    IF page <= pages[1] OR page >= pages[n] THEN
        RETURN NULL;
    END IF;
    at := width_bucket(page, pages);
    RETURN times[at] + ((times[at + 1]::numeric - times[at])
           * ((page - pages[at]) / (pages[at + 1] - pages[at]))::numeric)::bigint;
END $$;

-- Up to `wanted` rows of a symbol with `low` <= ts <= `high`, in the order of time and all behind a place; or, when
-- `backward`, in the other order and all before it. Only what was known by `known`.
CREATE FUNCTION history_page(
    kind anyarray, of_stage text, of_symbol text, low bigint, high bigint, known bigint,
    edge_ts bigint, edge_partition integer, edge_offset bigint, edge_index integer, wanted integer, backward boolean
) RETURNS SETOF anyelement LANGUAGE plpgsql STABLE
-- The tables of today have no statistics, without which the planner would read all of them.
SET enable_seqscan = off SET max_parallel_workers_per_gather = 0 SET jit = off
AS $$
DECLARE
    small CONSTANT bigint := 256; -- pages that are read at once
    first_window CONSTANT float8 := 128; -- pages: two ranges of the index
    growth CONSTANT float8 := 16; -- from a window to the next at most
    margin CONSTANT float8 := 1.2; -- of a window that should fill the page
    sorting CONSTANT text := CASE WHEN backward THEN 'ts DESC, partition DESC, "offset" DESC, "index" DESC'
                                  ELSE 'ts, partition, "offset", "index"' END;
    -- Rows of the stage: the columns of a day may stand in another order.
    reading CONSTANT text := format(
        'SELECT ARRAY(SELECT l::%I FROM %%I l WHERE run = 0 AND symbol = $1 AND ts >= $2 AND ts <= $3 AND known_at <= $4'
        ' AND (ts, partition, "offset", "index") %s ($5, $6, $7, $8) ORDER BY %s LIMIT $9)',
        of_stage, CASE WHEN backward THEN '<' ELSE '>' END, sorting);
    merging CONSTANT text := format('SELECT ARRAY(SELECT l FROM unnest($1) l ORDER BY %s LIMIT $2)', sorting);
    page kind%TYPE := '{}';
    sorted boolean := true;
    of_day kind%TYPE;
    read kind%TYPE;
    day record;
    spread record;
    rest_low bigint; -- what may still hold better rows than those of the page
    rest_high bigint;
    near_low bigint; -- the window of it that is read next
    near_high bigint;
    middle bigint;
    size float8;
BEGIN
    FOR day IN
        -- The likeliest first: the newest rows are in the days that are not settled.
        SELECT d.*
          FROM (SELECT h.*, row_number() OVER (ORDER BY h.settled DESC, h.last_ts, h.name) AS place
                  FROM history_days(of_stage, of_symbol, low, high, known) h) AS d
         ORDER BY CASE WHEN backward THEN -d.place ELSE d.place END
    LOOP
        rest_low := greatest(low, day.first_ts);
        rest_high := least(high, day.last_ts);
        IF cardinality(page) >= wanted AND backward THEN
            rest_low := greatest(rest_low, (page[wanted]).ts);
        ELSIF cardinality(page) >= wanted THEN
            rest_high := least(rest_high, (page[wanted]).ts);
        END IF;
        CONTINUE WHEN rest_low > rest_high;
        IF day.pages > small THEN
            SELECT * INTO spread FROM history_spread(day.name, day.pages);
        END IF;
        of_day := '{}';
        size := first_window;
        WHILE rest_low <= rest_high AND cardinality(of_day) < wanted LOOP
            near_low := rest_low;
            near_high := rest_high;
            middle := NULL;
            IF day.pages > small AND backward THEN
                middle := history_time(spread.times, spread.pages, rest_high, -size);
            ELSIF day.pages > small THEN
                middle := history_time(spread.times, spread.pages, rest_low, size);
            END IF;
            IF middle IS NULL OR middle <= rest_low OR middle >= rest_high THEN
                rest_low := 1;
                rest_high := 0;
            ELSIF backward THEN
                near_low := middle;
                rest_high := middle - 1;
            ELSE
                near_high := middle;
                rest_low := middle + 1;
            END IF;
            EXECUTE format(reading, day.name) INTO read
              USING of_symbol, near_low, near_high, known, edge_ts, edge_partition, edge_offset, edge_index,
                    wanted - cardinality(of_day);
            of_day := of_day || read;
            size := greatest(first_window, size * least(
                growth, margin * (wanted - cardinality(of_day)) / greatest(cardinality(read), 0.1)));
        END LOOP;
        CONTINUE WHEN cardinality(of_day) = 0;
        sorted := cardinality(page) = 0;
        page := page || of_day;
        -- Rows of several days are sorted when there are enough of them, and not again for each day.
        IF NOT sorted AND cardinality(page) >= wanted THEN
            EXECUTE merging INTO page USING page, wanted;
            sorted := true;
        END IF;
    END LOOP;
    IF NOT sorted THEN
        EXECUTE merging INTO page USING page, wanted;
    END IF;
    RETURN QUERY SELECT * FROM unnest(page);
END $$;
