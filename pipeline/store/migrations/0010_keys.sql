-- Keys of the API. The secret is 256 random bits, so its SHA-256 tells nothing of it; it is stored nowhere.
CREATE TABLE api_keys (
    id text PRIMARY KEY,
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('reader', 'operator', 'admin')),
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),
    lifetime interval, -- none: for ever
    made_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    replaces text REFERENCES api_keys
);
