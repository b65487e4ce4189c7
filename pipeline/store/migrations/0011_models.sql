-- Versions of models: what they are, what they come from, how they did, and which one is active.

-- By the SHA-256 of its bytes: what is read is held against its name.
CREATE TABLE artifacts (
    hash text PRIMARY KEY,
    body bytea NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now()
);

-- A row for each model; every promotion or rollback makes the next generation of it, and two at once cannot make the same.
CREATE TABLE models (
    name text PRIMARY KEY,
    active text,
    generation bigint NOT NULL DEFAULT 0,
    announced bigint NOT NULL DEFAULT 0, -- the generation whose record is on the topic `models`
    changed_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE model_versions (
    version text PRIMARY KEY,
    model text NOT NULL REFERENCES models,
    kind text NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(),
    artifact text NOT NULL REFERENCES artifacts,
    features text[] NOT NULL, -- the columns it looks at, in order
    feature_set text NOT NULL, -- hash of what these are: settings and definitions
    horizon integer NOT NULL, -- bars
    hyperparameters jsonb NOT NULL,
    data jsonb NOT NULL, -- inputs with offsets and hashes
    data_hash text NOT NULL,
    first_ts bigint NOT NULL, -- of the rows it was trained on [ns]
    last_ts bigint NOT NULL,
    metrics jsonb NOT NULL
);
ALTER TABLE models ADD FOREIGN KEY (active) REFERENCES model_versions;

CREATE TABLE promotions (
    model text NOT NULL REFERENCES models,
    generation bigint NOT NULL,
    version text NOT NULL REFERENCES model_versions,
    former text REFERENCES model_versions,
    rolled_back boolean NOT NULL,
    reason text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (model, generation)
);
CREATE VIEW rollback_log AS
    SELECT model, generation, former AS from_version, version AS to_version, reason, at
      FROM promotions WHERE rolled_back;

-- What was measured of a version, and on which rows: `held_out` at its training, `live` or `shadow` on the stream.
CREATE TABLE model_metrics (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version text NOT NULL REFERENCES model_versions,
    rows text NOT NULL CHECK (rows IN ('held_out', 'live', 'shadow')),
    first_ts bigint NOT NULL,
    last_ts bigint NOT NULL,
    n bigint NOT NULL,
    log_loss double precision,
    null_log_loss double precision, -- of the base rate, on the same rows
    brier double precision,
    auc double precision,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX model_metrics_version ON model_metrics (version, at);

-- Two versions on the same rows.
CREATE TABLE model_comparisons (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model text NOT NULL REFERENCES models,
    challenger text NOT NULL REFERENCES model_versions,
    champion text REFERENCES model_versions, -- none: the base rate
    first_ts bigint NOT NULL,
    last_ts bigint NOT NULL,
    data_hash text NOT NULL,
    n bigint NOT NULL,
    challenger_log_loss double precision NOT NULL,
    champion_log_loss double precision NOT NULL,
    standard_error double precision NOT NULL, -- of their difference
    rule text NOT NULL,
    better boolean NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX model_comparisons_model ON model_comparisons (model, at);

CREATE TABLE feature_importance (
    version text NOT NULL REFERENCES model_versions ON DELETE CASCADE,
    method text NOT NULL CHECK (method IN ('gain', 'permutation', 'shap')),
    symbol text NOT NULL, -- `*`: of all symbols
    feature text NOT NULL,
    value double precision NOT NULL,
    place integer NOT NULL, -- 1 is the most important one
    PRIMARY KEY (version, method, symbol, feature)
);

-- Features and losses of engines that are no longer what they were.
CREATE TABLE drift (
    "partition" integer NOT NULL,
    "offset" bigint NOT NULL,
    "index" integer NOT NULL,
    symbol text NOT NULL,
    ts bigint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('feature', 'engine')),
    name text NOT NULL,
    change text NOT NULL,
    since bigint NOT NULL, -- [ns]
    evidence double precision NOT NULL,
    looked bigint NOT NULL,
    stride integer NOT NULL,
    found_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY ("partition", "offset", "index", kind, name)
);
