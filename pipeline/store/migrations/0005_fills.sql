-- Paper fills, and the book of each symbol on a fixed clock; an open day keeps one index (0004).
CREATE TABLE fills (
    "partition" integer NOT NULL,
    "offset" bigint NOT NULL,
    "index" integer NOT NULL,
    "symbol" text NOT NULL,
    "ts" bigint NOT NULL,
    "known_at" bigint NOT NULL,
    "decided_ts" bigint NOT NULL,
    "side" text,
    "reason" text,
    "quantity" double precision,
    "price" double precision,
    "reference" double precision,
    "fee" double precision,
    "slippage" double precision,
    "pnl" double precision,
    "position" double precision,
    "cash" double precision,
    run integer NOT NULL DEFAULT 0,
    written_on date NOT NULL
) PARTITION BY RANGE (written_on);
CREATE INDEX fills_ts ON fills USING brin (ts) WITH (pages_per_range = 32);
CREATE VIEW fills_at AS SELECT to_timestamp(ts / 1e9) AS "time", * FROM fills;

CREATE TABLE equity (
    "partition" integer NOT NULL,
    "offset" bigint NOT NULL,
    "index" integer NOT NULL,
    "symbol" text NOT NULL,
    "ts" bigint NOT NULL,
    "known_at" bigint NOT NULL,
    "position" double precision,
    "mark" double precision,
    "cash" double precision,
    "equity" double precision,
    "pnl" double precision,
    "fees" double precision,
    "traded" double precision,
    "refused" bigint NOT NULL,
    run integer NOT NULL DEFAULT 0,
    written_on date NOT NULL
) PARTITION BY RANGE (written_on);
CREATE INDEX equity_ts ON equity USING brin (ts) WITH (pages_per_range = 32);
CREATE VIEW equity_at AS SELECT to_timestamp(ts / 1e9) AS "time", * FROM equity;
