-- More engines: what each says, and its weight in p_up.
ALTER TABLE predictions
    ADD COLUMN "p_mean_reversion" double precision,
    ADD COLUMN "p_breakout" double precision,
    ADD COLUMN "p_last_sign" double precision,
    ADD COLUMN "p_online_logit" double precision,
    ADD COLUMN "w_mean_reversion" double precision,
    ADD COLUMN "w_breakout" double precision,
    ADD COLUMN "w_last_sign" double precision,
    ADD COLUMN "w_online_logit" double precision;
-- A view keeps the columns of the day it was made.
CREATE OR REPLACE VIEW predictions_at AS SELECT to_timestamp(ts / 1e9) AS "time", * FROM predictions;
