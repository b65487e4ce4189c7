-- Promotions that are watched: the version that was active before goes on as the shadow, and takes its place back when it
-- is better. Each is judged once.
CREATE TABLE watches (
    model text NOT NULL,
    generation bigint NOT NULL, -- of the promotion
    verdict text CHECK (verdict IN ('kept', 'worse', 'ended', 'refused')), -- none: it is watched
    n bigint, -- rows that both spoke of and whose outcome had come
    live_log_loss double precision, -- of the version that was promoted
    shadow_log_loss double precision, -- of the one before it, on the same rows
    standard_error double precision, -- of their difference
    why text,
    judged_at timestamptz,
    announced boolean NOT NULL DEFAULT false, -- that it was rolled back, on the topic `alerts`
    PRIMARY KEY (model, generation),
    FOREIGN KEY (model, generation) REFERENCES promotions
);
CREATE INDEX watches_open ON watches (model, generation) WHERE verdict IS NULL OR verdict = 'worse' AND NOT announced;

-- What both said of rows whose outcome has come, until the promotion is judged.
CREATE TABLE watched_rows (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service text NOT NULL,
    model text NOT NULL,
    generation bigint NOT NULL,
    n integer NOT NULL,
    data bytea NOT NULL, -- zstd
    FOREIGN KEY (model, generation) REFERENCES watches
);
CREATE INDEX watched_rows_of ON watched_rows (model, generation, service);
