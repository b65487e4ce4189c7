-- Volatility regime, hidden state and alarms beside the tags.
ALTER TABLE regimes
    ADD COLUMN "vol_regime" text,
    ADD COLUMN "hmm" text,
    ADD COLUMN "hmm_p_low" double precision,
    ADD COLUMN "hmm_p_high" double precision,
    ADD COLUMN "hmm_entropy" double precision,
    ADD COLUMN "cusum" double precision,
    ADD COLUMN "cusum_alarm" text,
    ADD COLUMN "bocpd_p_recent" double precision,
    ADD COLUMN "bocpd_run" double precision,
    ADD COLUMN "bocpd_alarm" text;
-- A view keeps the columns of the day it was made.
CREATE OR REPLACE VIEW regimes_at AS SELECT to_timestamp(ts / 1e9) AS "time", * FROM regimes;
