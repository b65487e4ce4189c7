-- Replays and backtests that somebody asked for by GraphQL; the service `training` does them.
CREATE TABLE jobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('replay', 'backtest')),
    arguments jsonb NOT NULL,
    principal text NOT NULL,
    key text NOT NULL, -- the client's own, so that asking again makes no second job
    fingerprint text NOT NULL, -- of its settings: live rows of the same one are equal where they overlap
    state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    asked_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    cancel_asked boolean NOT NULL DEFAULT false,
    attempts integer NOT NULL DEFAULT 0,
    runner text, -- who does it, as long as the lease lasts
    lease_until timestamptz,
    directory text, -- of what it wrote, on the machine of its runner
    result jsonb,
    error text,
    UNIQUE (principal, key),
    CHECK ((state = 'running') = (lease_until IS NOT NULL)),
    CHECK ((state = 'done') = (result IS NOT NULL)),
    CHECK ((state = 'failed') = (error IS NOT NULL))
);
CREATE INDEX jobs_by_state ON jobs (state, id);
