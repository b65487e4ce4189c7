-- Trainings that a schedule asks for are jobs, too; one that met a server that was away is begun again later.
ALTER TABLE jobs
    DROP CONSTRAINT jobs_kind_check,
    ADD CONSTRAINT jobs_kind_check CHECK (kind IN ('replay', 'backtest', 'training')),
    ADD COLUMN retries integer NOT NULL DEFAULT 0, -- attempts that were put off
    ADD COLUMN not_before timestamptz, -- of one that waits: when it may be begun again
    ADD COLUMN trouble text; -- why it was put off last
