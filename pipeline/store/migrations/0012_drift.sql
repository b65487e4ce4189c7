-- How far each watcher of drift came, with the state of its detectors there; every turn that found rows is a generation.
CREATE TABLE drift_states (
    service text NOT NULL,
    partition integer NOT NULL,
    generation bigint NOT NULL,
    places jsonb NOT NULL, -- by topic: the next offset of it, and offset and index of the last row seen
    data bytea NOT NULL, -- zstd
    kept_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (service, partition)
);

-- An alarm is stored in the transaction that keeps the state, and told to the topic `alerts` after that.
ALTER TABLE drift
    ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN announced boolean NOT NULL DEFAULT false;
CREATE INDEX drift_id ON drift (id);
CREATE INDEX drift_symbol ON drift (symbol, id);
CREATE INDEX drift_unannounced ON drift (id) WHERE NOT announced;
