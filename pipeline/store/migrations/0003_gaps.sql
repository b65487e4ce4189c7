-- Trade ids that are missing before a tick, and in a bar (guard.consecutive_ids).
ALTER TABLE ticks
    ADD COLUMN "gap" integer NOT NULL DEFAULT 0;
ALTER TABLE bars
    ADD COLUMN "gap" integer NOT NULL DEFAULT 0;
-- A view keeps the columns of the day it was made.
CREATE OR REPLACE VIEW ticks_at AS SELECT to_timestamp(ts / 1e9) AS "time", * FROM ticks;
CREATE OR REPLACE VIEW bars_at AS SELECT to_timestamp(ts / 1e9) AS "time", * FROM bars;
