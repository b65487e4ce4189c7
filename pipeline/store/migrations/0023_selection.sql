-- Versions that speak instead of the active one in volatility regimes, {"high": "gbdt-1a2b3c4d5e6f"}.
ALTER TABLE activations ADD COLUMN selected jsonb NOT NULL DEFAULT '{}'; -- null: nobody speaks there
ALTER TABLE models ADD COLUMN selected jsonb NOT NULL DEFAULT '{}'; -- it changes with the generation
CREATE TABLE selections (
    model text NOT NULL REFERENCES models,
    generation bigint NOT NULL,
    selected jsonb NOT NULL, -- all of it, from here on
    reason text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (model, generation)
);

-- By the version of which volatility regime the engine gbdt spoke.
ALTER TABLE predictions
    ADD COLUMN "gbdt_regime" text;
-- A view keeps the columns of the day it was made.
CREATE OR REPLACE VIEW predictions_at AS SELECT to_timestamp(ts / 1e9) AS "time", * FROM predictions;
