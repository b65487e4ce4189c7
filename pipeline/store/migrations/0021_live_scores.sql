-- How versions do on the stream is summed up by the UTC day of the rows' event time; scores of a training have no day.
ALTER TABLE model_metrics ADD COLUMN day date;
CREATE UNIQUE INDEX model_metrics_day ON model_metrics (version, rows, day);

-- How far outcomes were taken from the topics of a partition, with the bars that wait for theirs; every turn that found
-- rows is a generation.
CREATE TABLE score_states (
    service text NOT NULL,
    partition integer NOT NULL,
    generation bigint NOT NULL,
    places jsonb NOT NULL, -- by topic: the next offset of it, and offset and index of the last row seen
    data bytea NOT NULL, -- zstd
    kept_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (service, partition)
);
