-- The engine gbdt: what its active version says, its weight in p_up, and what its shadow says beside.
ALTER TABLE predictions
    ADD COLUMN "p_gbdt" double precision,
    ADD COLUMN "w_gbdt" double precision,
    ADD COLUMN "shadow_p" double precision;
-- A view keeps the columns of the day it was made.
CREATE OR REPLACE VIEW predictions_at AS SELECT to_timestamp(ts / 1e9) AS "time", * FROM predictions;

-- From which tick of a partition on which versions speak. It is stored before any row of theirs is published, so that
-- whoever makes these rows again, after a crash or for a replay, makes the same ones.
CREATE TABLE activations (
    service text NOT NULL,
    "partition" integer NOT NULL,
    "offset" bigint NOT NULL, -- the first tick at or behind this place
    "index" integer NOT NULL,
    model text NOT NULL,
    generation bigint NOT NULL, -- of the model
    version text, -- none: the engine is silent
    shadow text,
    planned_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (service, "partition", "offset", "index")
);

-- Which version predicts and is scored beside the active one, and does not trade. It changes with the generation.
ALTER TABLE models ADD COLUMN shadow text REFERENCES model_versions;
CREATE TABLE shadows (
    model text NOT NULL REFERENCES models,
    generation bigint NOT NULL,
    version text REFERENCES model_versions, -- none: no shadow from here on
    reason text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (model, generation)
);
