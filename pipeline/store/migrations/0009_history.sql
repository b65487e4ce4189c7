-- History by pages. An open day keeps one index (0004): BRIN on event time, on the symbol by a bloom filter, and on the
-- known-at time; a btree on (symbol, event time) comes when the day is over (upkeep). A range of pages takes part in the
-- index once it is summarised: by autovacuum, and every few seconds by `up`.
DO $$
DECLARE
    stage text;
    leaf regclass;
BEGIN
    FOREACH stage IN ARRAY ARRAY[
        'ticks', 'bars', 'features', 'regimes', 'predictions', 'signals', 'fills', 'equity']
    LOOP
        EXECUTE format('DROP INDEX %I', stage || '_ts');
        -- ONLY: tables to come get it. Those of days that are over keep what upkeep gave them.
        EXECUTE format(
            'CREATE INDEX %I ON ONLY %I USING brin (ts, symbol text_bloom_ops(n_distinct_per_range = 200), known_at)'
            ' WITH (pages_per_range = 64, autosummarize = on)', stage || '_ts', stage);
        FOR leaf IN
            SELECT h.inhrelid FROM pg_inherits h
             WHERE h.inhparent = stage::regclass AND NOT EXISTS (
                   SELECT FROM pg_index x JOIN pg_am a ON true JOIN pg_class c ON c.oid = x.indexrelid AND c.relam = a.oid
                    WHERE x.indrelid = h.inhrelid AND a.amname = 'btree')
        LOOP
            EXECUTE format(
                'CREATE INDEX ON %s USING brin (ts, symbol text_bloom_ops(n_distinct_per_range = 200), known_at)'
                ' WITH (pages_per_range = 64, autosummarize = on)', leaf);
        END LOOP;
    END LOOP;
END $$;

-- Days that are settled: upkeep has made their tables refuse rows, and then counted what they hold of each symbol, so that
-- a reader opens only the tables that it needs.
CREATE TABLE settled (
    leaf text PRIMARY KEY,
    stage text NOT NULL,
    settled_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE extents (
    stage text NOT NULL,
    symbol text NOT NULL,
    leaf text NOT NULL REFERENCES settled ON DELETE CASCADE,
    count bigint NOT NULL,
    first_ts bigint NOT NULL,
    last_ts bigint NOT NULL,
    first_known_at bigint NOT NULL,
    lead bigint NOT NULL, -- the most that ts was ahead of known_at [ns]
    PRIMARY KEY (stage, symbol, leaf)
);
CREATE INDEX extents_leaf ON extents (leaf);
