-- Which instrument bears a symbol, in which units, in which session (see schemas/blocks.py).
ALTER TABLE ticks
    ADD COLUMN "session" integer NOT NULL DEFAULT 0,
    ADD COLUMN "life" integer NOT NULL DEFAULT 0,
    ADD COLUMN "scale" double precision,
    ADD COLUMN "volume_scale" double precision,
    ADD COLUMN "stale" integer NOT NULL DEFAULT 0;
ALTER TABLE bars
    ADD COLUMN "session" integer NOT NULL DEFAULT 0,
    ADD COLUMN "life" integer NOT NULL DEFAULT 0,
    ADD COLUMN "scale" double precision,
    ADD COLUMN "volume_scale" double precision,
    ADD COLUMN "stale" integer NOT NULL DEFAULT 0;
-- A view keeps the columns of the day it was made.
CREATE OR REPLACE VIEW ticks_at AS SELECT to_timestamp(ts / 1e9) AS "time", * FROM ticks;
CREATE OR REPLACE VIEW bars_at AS SELECT to_timestamp(ts / 1e9) AS "time", * FROM bars;
