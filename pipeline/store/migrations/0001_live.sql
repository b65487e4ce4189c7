-- The tables of the live path. Event time is bigint nanoseconds since 1970 UTC: timestamptz keeps only microseconds.
-- Stage tables are partitioned by the day of writing; no unique index: the mark in `progress` makes rows unique.

CREATE TABLE ticks (
    "partition" integer NOT NULL,
    "offset" bigint NOT NULL,
    "index" integer NOT NULL,
    "symbol" text NOT NULL,
    "ts" bigint NOT NULL,
    "known_at" bigint NOT NULL,
    "price" double precision,
    "size" double precision,
    "side" text,
    "bid" double precision,
    "ask" double precision,
    "bid_size" double precision,
    "ask_size" double precision,
    "open" double precision,
    "high" double precision,
    "low" double precision,
    "id" bigint NOT NULL,
    "flag" text,
    run integer NOT NULL DEFAULT 0,
    written_on date NOT NULL
) PARTITION BY RANGE (written_on);
CREATE INDEX ticks_ts ON ticks USING brin (ts) WITH (pages_per_range = 32);
CREATE INDEX ticks_offset ON ticks USING brin ("offset") WITH (pages_per_range = 32);
CREATE VIEW ticks_at AS SELECT to_timestamp(ts / 1e9) AS "time", * FROM ticks;

CREATE TABLE bars (
    "partition" integer NOT NULL,
    "offset" bigint NOT NULL,
    "index" integer NOT NULL,
    "symbol" text NOT NULL,
    "ts" bigint NOT NULL,
    "known_at" bigint NOT NULL,
    "open" double precision,
    "high" double precision,
    "low" double precision,
    "close" double precision,
    "volume" double precision,
    "notional" double precision,
    "vwap" double precision,
    "n" bigint NOT NULL,
    "trigger_ts" bigint NOT NULL,
    "exec_price" double precision,
    "exec_bid" double precision,
    "exec_ask" double precision,
    "exec_ts" bigint NOT NULL,
    run integer NOT NULL DEFAULT 0,
    written_on date NOT NULL
) PARTITION BY RANGE (written_on);
CREATE INDEX bars_ts ON bars USING brin (ts) WITH (pages_per_range = 32);
CREATE INDEX bars_offset ON bars USING brin ("offset") WITH (pages_per_range = 32);
CREATE VIEW bars_at AS SELECT to_timestamp(ts / 1e9) AS "time", * FROM bars;

CREATE TABLE features (
    "partition" integer NOT NULL,
    "offset" bigint NOT NULL,
    "index" integer NOT NULL,
    "symbol" text NOT NULL,
    "ts" bigint NOT NULL,
    "known_at" bigint NOT NULL,
    "bar_ret_1" double precision,
    "bar_ret_20" double precision,
    "bar_ewma_vol" double precision,
    "realized_vol_20" double precision,
    "parkinson_20" double precision,
    "garman_klass_20" double precision,
    "yang_zhang_20" double precision,
    "rsi_14" double precision,
    "macd_line" double precision,
    "macd_signal" double precision,
    "macd_hist" double precision,
    "boll_z_20" double precision,
    "natr_14" double precision,
    "adx_14" double precision,
    "donchian_pos_20" double precision,
    "efficiency_ratio_10" double precision,
    "roc_10" double precision,
    "volume_z_20" double precision,
    "vwap_dev_20" double precision,
    "amihud_20" double precision,
    "autocorr1_50" double precision,
    "variance_ratio_5_50" double precision,
    "drawdown" double precision,
    "beta_60" double precision,
    "corr_60" double precision,
    "ret_1" double precision,
    "ret_20" double precision,
    "ewma_vol" double precision,
    "realized_vol_50" double precision,
    "momentum_20" double precision,
    "tick_vwap_dev_50" double precision,
    "trade_imbalance_50" double precision,
    "microprice_dev" double precision,
    "queue_imbalance" double precision,
    "spread_bp" double precision,
    "ofi_50" double precision,
    "size_z_50" double precision,
    "tick_intensity" double precision,
    "tod_sin" double precision,
    "tod_cos" double precision,
    run integer NOT NULL DEFAULT 0,
    written_on date NOT NULL
) PARTITION BY RANGE (written_on);
CREATE INDEX features_ts ON features USING brin (ts) WITH (pages_per_range = 32);
CREATE INDEX features_offset ON features USING brin ("offset") WITH (pages_per_range = 32);
CREATE VIEW features_at AS SELECT to_timestamp(ts / 1e9) AS "time", * FROM features;

CREATE TABLE regimes (
    "partition" integer NOT NULL,
    "offset" bigint NOT NULL,
    "index" integer NOT NULL,
    "symbol" text NOT NULL,
    "ts" bigint NOT NULL,
    "known_at" bigint NOT NULL,
    "vol" text,
    "trend" text,
    "efficiency_ratio" double precision,
    "vol_low" double precision,
    "vol_high" double precision,
    run integer NOT NULL DEFAULT 0,
    written_on date NOT NULL
) PARTITION BY RANGE (written_on);
CREATE INDEX regimes_ts ON regimes USING brin (ts) WITH (pages_per_range = 32);
CREATE INDEX regimes_offset ON regimes USING brin ("offset") WITH (pages_per_range = 32);
CREATE VIEW regimes_at AS SELECT to_timestamp(ts / 1e9) AS "time", * FROM regimes;

CREATE TABLE predictions (
    "partition" integer NOT NULL,
    "offset" bigint NOT NULL,
    "index" integer NOT NULL,
    "symbol" text NOT NULL,
    "ts" bigint NOT NULL,
    "known_at" bigint NOT NULL,
    "horizon" integer NOT NULL,
    "p_up" double precision,
    "p_momentum" double precision,
    "p_base_rate" double precision,
    "w_momentum" double precision,
    "w_base_rate" double precision,
    "sigma" double precision,
    "close" double precision,
    run integer NOT NULL DEFAULT 0,
    written_on date NOT NULL
) PARTITION BY RANGE (written_on);
CREATE INDEX predictions_ts ON predictions USING brin (ts) WITH (pages_per_range = 32);
CREATE INDEX predictions_offset ON predictions USING brin ("offset") WITH (pages_per_range = 32);
CREATE VIEW predictions_at AS SELECT to_timestamp(ts / 1e9) AS "time", * FROM predictions;

CREATE TABLE signals (
    "partition" integer NOT NULL,
    "offset" bigint NOT NULL,
    "index" integer NOT NULL,
    "symbol" text NOT NULL,
    "ts" bigint NOT NULL,
    "known_at" bigint NOT NULL,
    "action" text,
    "edge_bp" double precision,
    "confidence" double precision,
    "p_up" double precision,
    "price" double precision,
    "horizon" integer NOT NULL,
    run integer NOT NULL DEFAULT 0,
    written_on date NOT NULL
) PARTITION BY RANGE (written_on);
CREATE INDEX signals_ts ON signals USING brin (ts) WITH (pages_per_range = 32);
CREATE INDEX signals_offset ON signals USING brin ("offset") WITH (pages_per_range = 32);
CREATE VIEW signals_at AS SELECT to_timestamp(ts / 1e9) AS "time", * FROM signals;

CREATE TABLE rejected (
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    "index" integer NOT NULL,
    symbol text NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    value bytea NOT NULL,
    rejected_at timestamptz NOT NULL DEFAULT now(),
    written_on date NOT NULL
);
CREATE INDEX rejected_written_on ON rejected USING brin (written_on);

CREATE TABLE symbols (
    symbol text NOT NULL,
    partition integer NOT NULL,
    first_seen timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (symbol, partition)
);

-- Absolute counts: a batch that is replayed cannot count twice.
CREATE TABLE data_quality (
    partition integer NOT NULL,
    symbol text NOT NULL,
    reason text NOT NULL,
    count bigint NOT NULL,
    counted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, symbol, reason)
);

-- One row per service and source partition: who owns it, and up to where its rows are stored.
CREATE TABLE progress (
    service text NOT NULL,
    partition integer NOT NULL,
    epoch bigint NOT NULL,
    mark bigint NOT NULL,
    fingerprint text NOT NULL,
    moved_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (service, partition)
);

-- State of the chain behind an offset, zstd.
CREATE TABLE snapshots (
    service text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    epoch bigint NOT NULL,
    data bytea NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (service, partition, "offset")
);
