-- name: move_marks
SELECT move_marks($1, $2, $3, $4, $5)

-- name: copy
COPY {leaf} ({columns}) FROM STDIN (FORMAT binary)

-- name: add_rejected
INSERT INTO rejected (partition, "offset", "index", symbol, reason, detail, value, written_on)
SELECT *, $8::date
  FROM unnest($1::int[], $2::bigint[], $3::int[], $4::text[], $5::text[], $6::text[], $7::bytea[])

-- name: claim
INSERT INTO progress (service, partition, epoch, mark, fingerprint)
VALUES ($1, $2, 1, -1, $3)
ON CONFLICT (service, partition) DO UPDATE SET epoch = progress.epoch + 1
RETURNING epoch, mark, fingerprint

-- name: end_blockers
SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE pid = ANY (pg_blocking_pids($1)) AND application_name = 'tickstream'
   AND datname = current_database()

-- name: lock_progress
SELECT partition, epoch FROM progress
 WHERE service = $1 AND partition = ANY ($2::int[]) ORDER BY partition FOR UPDATE

-- name: add_activations
INSERT INTO activations (service, partition, "offset", "index", model, generation, version, shadow, selected)
SELECT $1, p, o, i, m, g, v, s, r::jsonb
  FROM unnest($2::int[], $3::bigint[], $4::int[], $5::text[], $6::bigint[], $7::text[], $8::text[], $9::text[])
    AS planned (p, o, i, m, g, v, s, r)
ON CONFLICT DO NOTHING

-- name: activations
SELECT "offset", "index", model, generation, version, shadow,
       coalesce(to_jsonb(a) -> 'selected', '{}') AS selected -- a replay may read what is not migrated yet
  FROM activations a
 WHERE service = $1 AND partition = $2 ORDER BY "offset", "index"

-- name: has_activations
SELECT to_regclass('activations') IS NOT NULL

-- name: artifacts_of
SELECT version, artifact FROM model_versions WHERE version = ANY ($1::text[])

-- name: epoch
SELECT epoch FROM progress WHERE service = $1 AND partition = $2

-- name: latest_snapshot
SELECT "offset", data FROM snapshots
 WHERE service = $1 AND partition = $2 AND "offset" <= $3
 ORDER BY "offset" DESC LIMIT 1

-- name: kept_state
SELECT "offset", data FROM snapshots
 WHERE service = $1 AND partition = $2 AND "offset" >= $3 AND "offset" <= $4
 ORDER BY "offset" LIMIT 1

-- name: save_snapshot
INSERT INTO snapshots (service, partition, "offset", epoch, data)
SELECT $1, $2, $3, $4, $5 FROM progress
 WHERE service = $1 AND partition = $2 AND epoch = $4
ON CONFLICT (service, partition, "offset") DO UPDATE SET data = excluded.data, epoch = excluded.epoch

-- name: drop_snapshots
DELETE FROM snapshots s
 WHERE service = $1 AND partition = $2 AND "offset" NOT IN (
       SELECT "offset" FROM snapshots WHERE service = $1 AND partition = $2
        ORDER BY "offset" DESC LIMIT 2)

-- name: forget_snapshots
DELETE FROM snapshots WHERE service = $1 AND partition = $2

-- name: add_symbols
INSERT INTO symbols (symbol, partition)
SELECT * FROM unnest($1::text[], $2::int[])
ON CONFLICT (symbol, partition) DO NOTHING

-- name: set_quality
INSERT INTO data_quality (partition, symbol, reason, count)
SELECT * FROM unnest($1::int[], $2::text[], $3::text[], $4::bigint[])
ON CONFLICT (partition, symbol, reason) DO UPDATE SET count = excluded.count, counted_at = now()

-- name: symbols
SELECT symbol, partition FROM symbols ORDER BY symbol, partition

-- name: quality
SELECT symbol, partition, reason, count, (extract(epoch FROM counted_at) * 1000000)::bigint * 1000 AS counted_at
  FROM data_quality WHERE symbol = ANY($1::text[]) ORDER BY symbol, reason, partition

-- name: runs
SELECT service, partition, epoch, mark, fingerprint, (extract(epoch FROM moved_at) * 1000000)::bigint * 1000 AS moved_at
  FROM progress ORDER BY service, partition

-- name: progress
SELECT partition, epoch, mark, fingerprint, moved_at FROM progress WHERE service = $1 ORDER BY partition

-- name: latest
SELECT DISTINCT ON (symbol) {columns} FROM {stage}
 WHERE run = 0 AND symbol = ANY($1::text[])
 ORDER BY symbol, partition DESC, "offset" DESC, "index" DESC

-- name: range
SELECT {columns} FROM {stage}
 WHERE run = 0 AND partition = $1 AND "offset" >= $2 AND "offset" < $3
 ORDER BY "offset", "index"

-- name: window
SELECT {columns} FROM {stage}
 WHERE run = 0 AND partition = $1 AND ("offset", "index") > ($2, $3) AND ("offset", "index") <= ($4, $5)
   AND ts >= $6 AND ts <= $7
 ORDER BY "offset", "index" LIMIT $8

-- name: history
SELECT {columns} FROM history_page(NULL::{stage}[], '{stage}', $1, $2, $3, $4, $5, $6, $7, $8, $9, $10)

-- name: history_days
SELECT name FROM history_days($1, $2, $3, $4, $5)

-- name: plan_by_index
SELECT set_config('enable_seqscan', 'off', true), set_config('max_parallel_workers_per_gather', '0', true),
       set_config('jit', 'off', true), set_config('plan_cache_mode', 'force_custom_plan', true)

-- name: is_migrated
SELECT to_regclass($1) IS NOT NULL AND to_regclass('extents') IS NOT NULL AND to_regproc('history_page') IS NOT NULL

-- name: rows_of_bars
SELECT ts, partition, "offset", "index", life, coalesce(scale, 1) AS scale, coalesce(volume_scale, 1) AS volume_scale,
       open, high, low, close, volume, notional, n, known_at
  FROM {leaf} WHERE run = 0 AND symbol = $1 AND ts >= $2 AND ts <= $3 AND known_at <= $4

-- name: rows_of_ticks
SELECT ts, partition, "offset", "index", life, coalesce(scale, 1) AS scale, coalesce(volume_scale, 1) AS volume_scale,
       price AS open, price AS high, price AS low, price AS close, size AS volume, price * size AS notional,
       1::bigint AS n, known_at
  FROM {leaf} WHERE run = 0 AND symbol = $1 AND ts >= $2 AND ts <= $3 AND known_at <= $4 AND flag = 'accepted'

-- name: candles
WITH part AS ({rows}),
placed AS (
    SELECT *, (ts - $6::bigint) / $5::bigint * $5::bigint AS begin,
           row_number() OVER (ORDER BY ts, partition, "offset", "index") AS place
      FROM part),
scaled AS (
    SELECT *, CASE WHEN scale = last_value(scale) OVER whole THEN 1
                   ELSE last_value(scale) OVER whole / scale END AS f,
           CASE WHEN volume_scale = last_value(volume_scale) OVER whole THEN 1
                ELSE last_value(volume_scale) OVER whole / volume_scale END AS v
      FROM placed
    WINDOW whole AS (PARTITION BY begin, life ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING))
SELECT begin AS ts, begin + $5::bigint AS end_ts, life, (array_agg(open * f ORDER BY place))[1] AS open,
       max(high * f) AS high, min(low * f) AS low, (array_agg(close * f ORDER BY place))[count(*)] AS close,
       sum(volume * v ORDER BY place) AS volume, sum(notional * f * v ORDER BY place) AS notional,
       sum(notional * f * v ORDER BY place) / nullif(sum(volume * v ORDER BY place), 0) AS vwap,
       sum(n)::bigint AS n, max(known_at) AS known_at
  FROM scaled GROUP BY begin, life ORDER BY begin, life

-- name: refuses_rows
SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = $1::text::regclass AND conname = $2)

-- name: settle
INSERT INTO settled (leaf, stage) VALUES ($1, $2)

-- name: count_extents
INSERT INTO extents (stage, symbol, leaf, count, first_ts, last_ts, first_known_at, lead)
SELECT $2, symbol, $1, count(*), min(ts), max(ts), min(known_at),
       least(greatest(max(ts::numeric - known_at), -9223372036854775808), 9223372036854775807)::bigint
  FROM {leaf} WHERE run = 0 GROUP BY symbol

-- name: unsettle
DELETE FROM settled WHERE leaf = $1

-- name: summarise
SELECT coalesce(sum(brin_summarize_new_values(x.indexrelid)), 0)
  FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid JOIN pg_am a ON a.oid = c.relam
 WHERE x.indrelid = to_regclass($1) AND a.amname = 'brin'

-- name: counts
SELECT count(*) FROM {stage} WHERE run = 0

-- name: offset_bounds
SELECT partition, min("offset") AS low, max("offset") AS high FROM {stage}
 WHERE run = 0 AND ($1::bigint IS NULL OR ts >= $1) AND ($2::bigint IS NULL OR ts < $2)
 GROUP BY partition ORDER BY partition

-- name: count_rejected
SELECT count(*) FROM rejected

-- name: recent_signals
SELECT * FROM signals WHERE run = 0 ORDER BY ts DESC, "offset" DESC, "index" DESC LIMIT $1

-- name: try_lock
SELECT pg_try_advisory_lock($1)

-- name: leaves
SELECT c.relname AS name, x.indisvalid AS indexed,
       EXISTS (SELECT FROM settled s WHERE s.leaf = c.relname) AS settled
  FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
  LEFT JOIN (pg_index x JOIN pg_class n ON n.oid = x.indexrelid)
    ON x.indrelid = c.oid AND n.relname = c.relname || '_symbol_ts'
 WHERE h.inhparent = $1::text::regclass ORDER BY c.relname

-- name: forget_rejected
DELETE FROM rejected WHERE ctid = ANY(ARRAY(
       SELECT ctid FROM rejected WHERE written_on < $1 LIMIT $2))

-- name: stored_ticks
SELECT {columns} FROM {stage}
 WHERE run = 0 AND partition = $1 AND ($2::bigint IS NULL OR ts >= $2) AND ($3::bigint IS NULL OR ts < $3)
 ORDER BY "offset", "index"

-- name: stored_rows
SELECT {columns} FROM {stage}
 WHERE run = 0 AND ($1::bigint IS NULL OR ts >= $1) AND ($2::bigint IS NULL OR ts < $2)
 ORDER BY ts, partition, "offset", "index"

-- name: first_offset
SELECT min("offset") FROM ticks WHERE run = 0 AND partition = $1

-- name: stored_extents
SELECT partition, min("offset") AS low, max("offset") AS high, count(*) AS count FROM ticks
 WHERE run = 0 AND ($1::bigint IS NULL OR ts >= $1) AND ($2::bigint IS NULL OR ts < $2)
 GROUP BY partition ORDER BY partition

-- name: create_key
INSERT INTO api_keys (id, name, role, digest, lifetime, expires_at)
VALUES ($1, $2, $3, $4, $5::interval, now() + $5::interval)

-- name: rotate_key
WITH old AS (
    UPDATE api_keys SET expires_at = least(expires_at, now() + $4::interval)
     WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
    RETURNING id, name, role, lifetime)
INSERT INTO api_keys (id, name, role, digest, lifetime, expires_at, replaces)
SELECT $2, name, role, $3, lifetime, now() + lifetime, id FROM old RETURNING name, role

-- name: revoke_key
UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 RETURNING id

-- name: list_keys
SELECT id, name, role, made_at, expires_at, replaces,
       CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= now() THEN 'expired' ELSE 'valid' END AS state
  FROM api_keys ORDER BY made_at, id

-- name: valid_keys
SELECT id, name, role, digest, expires_at FROM api_keys
 WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())

-- name: add_artifact
INSERT INTO artifacts (hash, body) VALUES ($1, $2) ON CONFLICT DO NOTHING

-- name: add_model
INSERT INTO models (name) VALUES ($1) ON CONFLICT DO NOTHING

-- name: add_version
INSERT INTO model_versions (version, model, kind, artifact, features, feature_set, horizon, hyperparameters, data,
                            data_hash, first_ts, last_ts, metrics)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT DO NOTHING RETURNING version

-- name: add_scores
INSERT INTO model_metrics (version, rows, first_ts, last_ts, n, log_loss, null_log_loss, brier, auc)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: first_activations
SELECT partition, min(planned_at) AS planned_at FROM activations WHERE service = $1 GROUP BY partition ORDER BY partition

-- name: score_state
SELECT generation, places, data FROM score_states WHERE service = $1 AND partition = $2

-- name: keep_score_state
INSERT INTO score_states (service, partition, generation, places, data) VALUES ($1, $2, 1, $4::text::jsonb, $5)
ON CONFLICT (service, partition) DO UPDATE
   SET generation = score_states.generation + 1, places = excluded.places, data = excluded.data, kept_at = now()
 WHERE score_states.generation = $3
RETURNING generation

-- name: add_day_scores
INSERT INTO model_metrics AS m (version, rows, day, first_ts, last_ts, n, log_loss, null_log_loss, brier)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (version, rows, day) DO UPDATE
   SET first_ts = least(m.first_ts, excluded.first_ts), last_ts = greatest(m.last_ts, excluded.last_ts),
       n = m.n + excluded.n, at = now(),
       log_loss = m.log_loss + (excluded.log_loss - m.log_loss) * excluded.n / (m.n + excluded.n),
       null_log_loss = m.null_log_loss + (excluded.null_log_loss - m.null_log_loss) * excluded.n / (m.n + excluded.n),
       brier = m.brier + (excluded.brier - m.brier) * excluded.n / (m.n + excluded.n)

-- name: day_scores
SELECT * FROM (
    SELECT rows, day, first_ts, last_ts, n, log_loss, null_log_loss, brier, auc FROM model_metrics
     WHERE version = $1 ORDER BY day DESC NULLS FIRST, rows LIMIT $2) AS newest
 ORDER BY day NULLS FIRST, rows

-- name: stream_scores
SELECT version, rows, min(first_ts) AS first_ts, max(last_ts) AS last_ts, sum(n)::bigint AS n,
       sum(log_loss * n) / sum(n) AS log_loss, sum(null_log_loss * n) / sum(n) AS null_log_loss,
       sum(brier * n) / sum(n) AS brier, NULL::float8 AS auc
  FROM model_metrics WHERE version = ANY ($1::text[]) AND day IS NOT NULL GROUP BY version, rows

-- name: version
SELECT v.*, m.active, m.shadow, m.generation, v.version IS NOT DISTINCT FROM m.active AS is_active,
       v.version IS NOT DISTINCT FROM m.shadow AS is_shadow,
       ARRAY(SELECT r.key FROM jsonb_each_text(m.selected) r WHERE r.value = v.version) AS regimes
  FROM model_versions v JOIN models m ON m.name = v.model WHERE v.version = $1

-- name: versions
SELECT v.*, v.version IS NOT DISTINCT FROM m.active AS is_active,
       v.version IS NOT DISTINCT FROM m.shadow AS is_shadow,
       ARRAY(SELECT r.key FROM jsonb_each_text(m.selected) r WHERE r.value = v.version) AS regimes
  FROM model_versions v JOIN models m ON m.name = v.model
 WHERE $1::text IS NULL OR v.model = $1 ORDER BY v.model, v.made_at, v.version

-- name: model
SELECT name, active, shadow, selected, generation, changed_at FROM models WHERE name = $1

-- name: promotions
SELECT p.*, w.verdict, w.why FROM promotions p LEFT JOIN watches w USING (model, generation)
 WHERE model = $1 ORDER BY generation

-- name: newest_promotions
SELECT p.*, w.model IS NOT NULL AS watched, w.verdict, w.n, w.live_log_loss, w.shadow_log_loss, w.standard_error,
       w.judged_at
  FROM promotions p LEFT JOIN watches w ON w.model = p.model AND w.generation = p.generation
 WHERE p.model = $1 ORDER BY p.generation DESC LIMIT $2

-- name: newest_shadows
SELECT * FROM shadows WHERE model = $1 ORDER BY generation DESC LIMIT $2

-- name: artifact
SELECT body FROM artifacts WHERE hash = $1

-- name: promote
WITH head AS (
    UPDATE models SET active = $3, shadow = $7, generation = generation + 1, changed_at = now()
     WHERE name = $1 AND generation = $2 RETURNING name, generation),
beside AS (
    INSERT INTO shadows (model, generation, version, reason) SELECT name, generation, $7, $8 FROM head WHERE $9),
promoted AS (
    INSERT INTO promotions (model, generation, version, former, rolled_back, reason)
    SELECT name, generation, $3, $4, $5, $6 FROM head RETURNING model, generation),
watched AS (
    INSERT INTO watches (model, generation) SELECT model, generation FROM promoted WHERE $10)
SELECT generation FROM promoted

-- name: add_watched_rows
INSERT INTO watched_rows (service, model, generation, n, data)
SELECT $1, $2, $3, $4, $5 FROM watches WHERE model = $2 AND generation = $3 AND verdict IS NULL
   FOR SHARE -- who gives a verdict waits, and drops these rows, too

-- name: unsettled_watches
SELECT w.model, w.generation, w.verdict, w.why, p.version, p.former, m.generation AS generation_now,
       (SELECT coalesce(sum(r.n), 0)::bigint FROM watched_rows r
         WHERE r.model = w.model AND r.generation = w.generation AND r.service = $1) AS kept
  FROM watches w JOIN promotions p USING (model, generation) JOIN models m ON m.name = w.model
 WHERE w.verdict IS NULL OR w.verdict = 'worse' AND NOT w.announced ORDER BY w.model, w.generation

-- name: watched_rows
SELECT data FROM watched_rows WHERE service = $1 AND model = $2 AND generation = $3 ORDER BY id

-- name: settle_watch
UPDATE watches SET verdict = $3, why = $4, n = $5, live_log_loss = $6, shadow_log_loss = $7, standard_error = $8,
       judged_at = now()
 WHERE model = $1 AND generation = $2 AND verdict IS NULL RETURNING generation

-- name: drop_watched_rows
DELETE FROM watched_rows WHERE model = $1 AND generation = $2

-- name: refuse_watch
UPDATE watches SET verdict = 'refused' WHERE model = $1 AND generation = $2 AND verdict = 'worse'

-- name: untold_watches
SELECT w.model, w.generation, p.version, p.former, w.n, w.live_log_loss, w.shadow_log_loss, w.standard_error, w.why,
       b.at
  FROM watches w JOIN promotions p USING (model, generation)
  JOIN promotions b ON b.model = w.model AND b.generation = w.generation + 1 AND b.rolled_back AND b.reason = w.why
 WHERE w.verdict = 'worse' AND NOT w.announced ORDER BY w.model, w.generation FOR UPDATE OF w

-- name: end_overtaken_watches
UPDATE watches w SET verdict = 'ended'
  FROM models m
 WHERE m.name = w.model AND m.generation > w.generation AND w.verdict = 'worse' AND NOT w.announced
   AND NOT EXISTS (SELECT FROM promotions b
                    WHERE b.model = w.model AND b.generation = w.generation + 1 AND b.rolled_back AND b.reason = w.why)

-- name: set_watch_told
UPDATE watches SET announced = true WHERE model = $1 AND generation = $2

-- name: shadow
WITH head AS (
    UPDATE models SET shadow = $3, generation = generation + 1, changed_at = now()
     WHERE name = $1 AND generation = $2 RETURNING name, generation)
INSERT INTO shadows (model, generation, version, reason) SELECT name, generation, $3, $4 FROM head RETURNING generation

-- name: former
SELECT p.former FROM promotions p JOIN models m ON m.name = p.model AND m.active = p.version
 WHERE p.model = $1 AND NOT p.rolled_back ORDER BY p.generation DESC LIMIT 1

-- name: select_versions
WITH head AS (
    UPDATE models SET selected = $3, generation = generation + 1, changed_at = now()
     WHERE name = $1 AND generation = $2 RETURNING name, generation)
INSERT INTO selections (model, generation, selected, reason) SELECT name, generation, $3, $4 FROM head RETURNING generation

-- name: newest_selections
SELECT * FROM selections WHERE model = $1 ORDER BY generation DESC LIMIT $2

-- name: unannounced
SELECT m.name AS model, m.active AS version, m.generation, v.artifact, m.shadow, s.artifact AS shadow_artifact,
       coalesce(p.rolled_back, false) AS rolled_back,
       (SELECT coalesce(jsonb_object_agg(r.key, jsonb_build_object('version', r.value, 'artifact', w.artifact)), '{}')
          FROM jsonb_each_text(m.selected) r JOIN model_versions w ON w.version = r.value) AS selected
  FROM models m LEFT JOIN model_versions v ON v.version = m.active
  LEFT JOIN model_versions s ON s.version = m.shadow
  LEFT JOIN promotions p ON p.model = m.name AND p.generation = m.generation
 WHERE m.announced < m.generation ORDER BY m.name FOR UPDATE OF m

-- name: set_announced
UPDATE models SET announced = $2 WHERE name = $1

-- name: add_comparison
INSERT INTO model_comparisons (model, challenger, champion, first_ts, last_ts, data_hash, n, challenger_log_loss,
                               champion_log_loss, standard_error, rule, better)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)

-- name: comparisons
SELECT * FROM model_comparisons WHERE model = $1 ORDER BY id DESC LIMIT $2

-- name: add_importance
INSERT INTO feature_importance (version, method, symbol, feature, value, place)
SELECT $1, $2, $3, * FROM unnest($4::text[], $5::float8[], $6::int[])
ON CONFLICT (version, method, symbol, feature) DO UPDATE SET value = excluded.value, place = excluded.place

-- name: importance_of
SELECT version, method, symbol, feature, value, place FROM feature_importance
 WHERE version = ANY ($1::text[]) AND symbol = $2 AND place <= $3 ORDER BY version, method, place

-- name: importance
SELECT method, symbol, feature, value, place FROM feature_importance
 WHERE version = $1 AND place <= $2 ORDER BY method, symbol, place

-- name: add_drift
INSERT INTO drift ("partition", "offset", "index", symbol, ts, kind, name, change, since, evidence, looked, stride)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING

-- name: drift_state
SELECT generation, places, data FROM drift_states WHERE service = $1 AND partition = $2

-- name: keep_drift_state
INSERT INTO drift_states (service, partition, generation, places, data, series)
VALUES ($1, $2, 1, $4::text::jsonb, $5, $6::text::jsonb)
ON CONFLICT (service, partition) DO UPDATE
   SET generation = drift_states.generation + 1, places = excluded.places, data = excluded.data,
       series = excluded.series, kept_at = now()
 WHERE drift_states.generation = $3
RETURNING generation

-- name: drift_series
SELECT s.partition, s.kept_at, r.kind, r.name, r.symbol, r.state, r.stride, r.looked, r.evidence, r.alarms
  FROM drift_states s, jsonb_to_recordset(s.series)
    AS r (kind text, name text, symbol text, state text, stride integer, looked bigint, evidence float8, alarms bigint)
 WHERE s.service = $1 AND ($2::text IS NULL OR r.symbol = $2) AND ($3::text IS NULL OR r.state = $3)
 ORDER BY r.symbol, r.kind, r.name, s.partition LIMIT $4

-- name: unannounced_drift
SELECT id, kind, name, symbol, change, since, ts, "partition", "offset", "index", evidence, looked, stride
  FROM drift WHERE NOT announced ORDER BY id LIMIT $1 FOR UPDATE

-- name: set_drift_announced
UPDATE drift SET announced = true WHERE id = ANY ($1::bigint[])

-- name: newest_drift
SELECT kind, name, symbol, change, since, ts, "partition", "offset", "index", evidence, looked, stride, found_at
  FROM drift WHERE $2::text IS NULL OR symbol = $2 ORDER BY id DESC LIMIT $1

-- name: newest_rejected
SELECT partition, "offset", "index", symbol, reason, detail, rejected_at, replayed_at, replayed_by,
       substring(value FOR $4) AS value, octet_length(value) AS size
  FROM rejected WHERE ($2::integer IS NULL OR partition = $2) AND ($3::text IS NULL OR reason = $3)
 ORDER BY rejected_at DESC, partition, "offset" DESC, "index" DESC LIMIT $1

-- name: replay_rejected
UPDATE rejected r SET replayed_at = now(), replayed_by = $4
  FROM unnest($1::integer[], $2::bigint[], $3::integer[]) AS w (p, o, i)
 WHERE (r.partition, r."offset", r."index") = (w.p, w.o, w.i) AND ($5::boolean OR r.replayed_at IS NULL)
RETURNING r.partition, r."offset", r."index", r.value

-- name: rejected_size
SELECT coalesce(sum(octet_length(r.value)), 0)::bigint AS size, count(DISTINCT (r.partition, r."offset", r."index")) AS n
  FROM rejected r JOIN unnest($1::integer[], $2::bigint[], $3::integer[]) AS w (p, o, i)
    ON (r.partition, r."offset", r."index") = (w.p, w.o, w.i)

-- name: lock_jobs
SELECT pg_advisory_xact_lock(hashtext('tickstream.jobs'))

-- name: job_by_key
SELECT * FROM jobs WHERE principal = $1 AND key = $2

-- name: queued_jobs
SELECT count(*) FROM jobs WHERE state = 'queued'

-- name: add_job
INSERT INTO jobs (kind, arguments, principal, key, fingerprint) VALUES ($1, $2, $3, $4, $5) RETURNING *

-- name: job
SELECT * FROM jobs WHERE id = $1

-- name: jobs
SELECT * FROM jobs WHERE id < $2 ORDER BY id DESC LIMIT $1

-- name: jobs_of_state
SELECT * FROM jobs WHERE state = $3 AND id < $2 ORDER BY id DESC LIMIT $1

-- name: cancel_job
UPDATE jobs SET cancel_asked = true,
       state = CASE state WHEN 'queued' THEN 'cancelled' ELSE state END,
       finished_at = CASE state WHEN 'queued' THEN now() ELSE finished_at END
 WHERE id = $1 AND state IN ('queued', 'running') RETURNING *

-- name: settle_jobs
UPDATE jobs SET state = CASE WHEN cancel_asked THEN 'cancelled' ELSE 'failed' END,
       error = CASE WHEN cancel_asked THEN NULL ELSE $2 END,
       lease_until = NULL, finished_at = now()
 WHERE state = 'running' AND lease_until < now() AND (cancel_asked OR attempts - retries >= $1)
RETURNING id, state

-- name: claim_job
UPDATE jobs SET state = 'running', runner = $1, attempts = attempts + 1, lease_until = now() + $2::interval,
       started_at = now()
 WHERE id = (SELECT id FROM jobs
              WHERE (state = 'queued' AND (not_before IS NULL OR not_before <= now()))
                 OR (state = 'running' AND lease_until < now())
              ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING *

-- name: hold_job
UPDATE jobs SET lease_until = now() + $4::interval
 WHERE id = $1 AND runner = $2 AND attempts = $3 AND state = 'running' RETURNING cancel_asked

-- name: release_job
UPDATE jobs SET state = 'queued', attempts = attempts - 1, runner = NULL, lease_until = NULL, started_at = NULL
 WHERE id = $1 AND runner = $2 AND attempts = $3 AND state = 'running' RETURNING id

-- name: put_off_job
UPDATE jobs SET state = 'queued', retries = retries + 1, not_before = now() + $4::interval, trouble = $5,
       runner = NULL, lease_until = NULL
 WHERE id = $1 AND runner = $2 AND attempts = $3 AND state = 'running' RETURNING id

-- name: replace_waiting_jobs
UPDATE jobs SET state = 'cancelled', finished_at = now()
 WHERE state = 'queued' AND principal = $1 AND key <> $2

-- name: running_job_of
SELECT id FROM jobs WHERE state = 'running' AND principal = $1 LIMIT 1

-- name: finish_job
UPDATE jobs SET state = $4, directory = $5, result = $6, error = $7, lease_until = NULL, finished_at = now()
 WHERE id = $1 AND runner = $2 AND attempts = $3 AND state IN ('running', $4) RETURNING id
