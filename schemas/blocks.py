"""Columns of every stage, each with its unit and meaning, and the rows that hold them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar, get_args

import numpy as np
import pyarrow as pa
from msgspec import Struct

SCHEMA_VERSION: Final = 1
_MANY: Final = 1024  # rows from which Arrow itself is the faster one

Kind = Literal["int64", "int32", "float64", "symbol", "label"]
Array = np.ndarray[Any, np.dtype[Any]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, kind, unit and meaning.

    In memory a `float64` holds NaN for null, a `label` an int32 code into `labels` (-1 for null), a
    `symbol` an int32 code into the symbols of its `Rows`. In Arrow and Postgres codes are text.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()


IDENTITY: Final = (
    Column("partition", "int32", "-", "partition of `prices` of the tick that triggered the row"),
    Column("offset", "int64", "-", "offset of its message"),
    Column("index", "int32", "-", "place of the tick in its message"),
)
_HEAD: Final = (
    *IDENTITY,
    Column("symbol", "symbol", "-", "instrument"),
    Column("ts", "int64", "ns", "event time, since 1970 UTC"),
    Column("known_at", "int64", "ns", "receive time of the triggering tick"),
)

SIDES: Final = ("buy", "sell")
VOL_TAGS: Final = ("low", "mid", "high")
TREND_TAGS: Final = ("range", "trend")
VolRegime = Literal["low", "normal", "high", "extreme"]
VOL_REGIMES: Final[tuple[str, ...]] = get_args(VolRegime)
CUSUM_ALARMS: Final = ("up", "down")
BOCPD_ALARMS: Final = ("recent", "drop", "both")
ACTIONS: Final = ("hold", "buy", "sell")
FLAGS: Final = ("accepted", "quarantined")
FILL_REASONS: Final = ("signal", "loss_limit", "instrument_ended")
# Engines and what they look at; the rules first, in the order of their scores.
ENGINES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "momentum": "the sign of bar_ret_20, and donchian_pos_20",
        "mean_reversion": "against boll_z_20 and vwap_dev_20",
        "breakout": "with a close that is the highest or lowest of 20, by the rise of volatility",
        "last_sign": "null engine, the sign of the last bar that moved",
        "online_logit": "a logistic model of features, learnt online",
        "gbdt": "boosted trees, the version that is active; null without one",
        "base_rate": "null engine, the share of rises so far",
    }
)


def _floats(*rows: tuple[str, str, str]) -> tuple[Column, ...]:
    return tuple(Column(name, "float64", unit, meaning) for name, unit, meaning in rows)


# Which instrument in which units: state of another life is dropped, of another scale rescaled.
_INSTRUMENT: Final = (
    Column("session", "int32", "-", "number of the symbol's session, counted from its breaks"),
    Column("life", "int32", "-", "number of the instrument that bears this symbol"),
    *_floats(
        ("scale", "-", "product of the corporate-action factors of prices so far"),
        ("volume_scale", "-", "the same of sizes"),
    ),
    Column("stale", "int32", "-", "1 when the symbol had been silent for long by then"),
)

_COLUMNS: Final[dict[str, tuple[Column, ...]]] = {
    "ticks": (
        *_HEAD,
        *_floats(("price", "price", "trade price or mid"), ("size", "quantity", "traded quantity")),
        Column("side", "label", "-", "aggressor", SIDES),
        *_floats(
            ("bid", "price", "best bid"),
            ("ask", "price", "best ask"),
            ("bid_size", "quantity", "quantity at the best bid"),
            ("ask_size", "quantity", "quantity at the best ask"),
            ("open", "price", "open of a row that is a bar"),
            ("high", "price", "high of a row that is a bar"),
            ("low", "price", "low of a row that is a bar"),
        ),
        Column(
            "id", "int64", "-", "trade id, or the 63-bit BLAKE2 hash of a textual one; -1 without"
        ),
        Column("flag", "label", "-", "verdict of the guard", FLAGS),
        *_INSTRUMENT,
        Column(
            "gap", "int32", "ids", "trade ids missing just before; 0 unless guard.consecutive_ids"
        ),
    ),
    "bars": (
        *_HEAD,
        *_floats(
            ("open", "price", "first price by arrival"),
            ("high", "price", "highest price"),
            ("low", "price", "lowest price"),
            ("close", "price", "last price by arrival"),
            ("volume", "quantity", "sum of sizes; null when no tick of the bar carried one"),
            ("notional", "price x quantity", "sum of price times size; null like volume"),
            ("vwap", "price", "notional / volume; null without volume"),
        ),
        Column("n", "int64", "ticks", "number of ticks in the bar"),
        Column("trigger_ts", "int64", "ns", "event time of the tick that closed the bar"),
        *_floats(
            ("exec_price", "price", "execution reference of the previous decision: price"),
            ("exec_bid", "price", "execution reference: best bid"),
            ("exec_ask", "price", "execution reference: best ask"),
        ),
        Column("exec_ts", "int64", "ns", "execution reference: event time; -1 when there is none"),
        *_INSTRUMENT,
        Column("gap", "int32", "ids", "trade ids missing before its ticks: the sum of theirs"),
    ),
    "features": (
        *_HEAD,
        *_floats(
            ("bar_ret_1", "log return", "ln(close / close 1 bar ago)"),
            ("bar_ret_20", "log return", "ln(close / close 20 bars ago)"),
            ("bar_ewma_vol", "log return", "sqrt of the EWMA of squared bar returns, lambda .94"),
            ("realized_vol_20", "log return", "sqrt of the sum of 20 squared bar returns"),
            ("parkinson_20", "log return", "Parkinson range volatility over 20 bars"),
            ("garman_klass_20", "log return", "Garman-Klass volatility over 20 bars"),
            ("yang_zhang_20", "log return", "Yang-Zhang volatility over 20 bars"),
            ("rsi_14", "0..100", "Wilder relative strength over 14 bars; 50 if close never moved"),
            ("macd_line", "price", "EMA 12 - EMA 26, seeds of TA-Lib"),
            ("macd_signal", "price", "EMA 9 of macd_line"),
            ("macd_hist", "price", "macd_line - macd_signal"),
            ("boll_z_20", "sd", "(close - mean) / sd over 20 bars, ddof 0; null when sd = 0"),
            ("natr_14", "percent", "Wilder average true range over 14 bars / close"),
            ("adx_14", "0..100", "Wilder average directional index over 14 bars"),
            ("donchian_pos_20", "0..1", "place of close between lowest low and highest high of 20"),
            ("efficiency_ratio_10", "0..1", "|10-bar change| / sum of |changes|; 1 if none moved"),
            ("roc_10", "percent", "close / close 10 bars ago - 1"),
            ("volume_z_20", "sd", "(volume - mean) / sd of the prior 20 bars, ddof 1"),
            ("vwap_dev_20", "fraction", "close / vwap of 20 bars - 1"),
            ("amihud_20", "1 / notional", "mean of |return| / notional over 20 bars that traded"),
            ("autocorr1_50", "-1..1", "Pearson of (return, return before) over 50 pairs"),
            ("variance_ratio_5_50", "-", "var of 5-bar returns / 5 var of returns, 50 of each"),
            ("drawdown", "fraction", "close / highest close so far - 1"),
            ("beta_60", "-", "slope on the reference's bar returns over 60 pairs known by then"),
            ("corr_60", "-1..1", "correlation with them"),
            ("ret_1", "log return", "ln(price / previous price), at the last tick of the bar"),
            ("ret_20", "log return", "ln(price / price 20 ticks ago)"),
            ("ewma_vol", "log return", "sqrt of time-decayed mean squared tick return, 60 s"),
            ("realized_vol_50", "log return", "sqrt of the sum of 50 squared tick returns"),
            ("momentum_20", "sd", "ret_20 / (ewma_vol sqrt(20))"),
            ("tick_vwap_dev_50", "fraction", "price / vwap of 50 ticks with size - 1"),
            ("trade_imbalance_50", "-1..1", "signed / total size of the last 50 ticks with size"),
            ("microprice_dev", "fraction", "(microprice - mid) / mid; null without sizes, crossed"),
            ("queue_imbalance", "-1..1", "(bid_size - ask_size) / both; null like microprice_dev"),
            ("spread_bp", "bp", "(ask - bid) / mid; null when crossed"),
            ("ofi_50", "quantity", "order flow imbalance (Cont, Kukanov, Stoikov), 50 updates"),
            ("size_z_50", "sd", "(size - mean) / sd of the prior 50 sizes, ddof 1"),
            ("tick_intensity", "ticks/s", "time-decayed rate of ticks, half-life 60 s"),
            ("tod_sin", "-", "sine of 2 pi seconds-of-day / 86400 in the venue's zone, last tick"),
            ("tod_cos", "-", "cosine of the same"),
        ),
    ),
    "regimes": (
        *_HEAD,
        Column(
            "vol", "label", "-", "tercile of bar_ewma_vol against its prior 252 values", VOL_TAGS
        ),
        Column(
            "trend",
            "label",
            "-",
            "trend when the efficiency ratio over 20 bars is above .3",
            TREND_TAGS,
        ),
        *_floats(
            ("efficiency_ratio", "0..1", "|close - close 20 bars ago| / sum of absolute changes"),
            ("vol_low", "log return", "1/3 quantile of the prior 252 bar_ewma_vol"),
            ("vol_high", "log return", "2/3 quantile of the prior 252 bar_ewma_vol"),
        ),
        Column(
            "vol_regime",
            "label",
            "-",
            "level of bar_ewma_vol by the 25, 75, 95 % quantiles of its prior 252 values",
            VOL_REGIMES,
        ),
        Column(
            "hmm",
            "label",
            "-",
            "most probable hidden state, by variance; null without regimes.hmm",
            VOL_TAGS,
        ),
        *_floats(
            ("hmm_p_low", "probability", "filtered probability of the state of least variance"),
            ("hmm_p_high", "probability", "of the state of most variance; a third has the rest"),
            ("hmm_entropy", "nats", "entropy of all of them"),
            ("cusum", "sd", "larger sum beyond the slack, < 0 down; null without regimes.cusum"),
        ),
        Column(
            "cusum_alarm",
            "label",
            "-",
            "which sum passed its threshold; both begin anew",
            CUSUM_ALARMS,
        ),
        *_floats(
            (
                "bocpd_p_recent",
                "probability",
                "P(returns changed in the last 10 bars); null without regimes.bocpd",
            ),
            ("bocpd_run", "bars", "most probable number of bars since the last change"),
        ),
        Column(
            "bocpd_alarm",
            "label",
            "-",
            "recent: bocpd_p_recent rose to .5; drop: bocpd_run fell",
            BOCPD_ALARMS,
        ),
    ),
    "predictions": (
        *_HEAD,
        Column("horizon", "int32", "bars", "bars ahead that the probabilities speak of"),
        *_floats(
            ("p_up", "probability", "combined probability that close rises over the horizon"),
            *(
                (f"p_{name}", "probability", f"engine {name}: {how}")
                for name, how in ENGINES.items()
            ),
            *((f"w_{name}", "weight", f"weight of {name} in p_up") for name in ENGINES),
            ("sigma", "log return", "bar_ewma_vol scaled to the horizon"),
            ("close", "price", "close that the prediction starts from"),
            ("shadow_p", "probability", "the shadow of gbdt: what another version says, unweighed"),
        ),
        Column(
            "gbdt_regime",
            "label",
            "-",
            "vol_regime whose selected version p_gbdt is by; null: by the active one, or by none",
            VOL_REGIMES,
        ),
    ),
    "signals": (
        *_HEAD,
        Column("action", "label", "-", "what to do from here on", ACTIONS),
        *_floats(
            (
                "edge_bp",
                "bp",
                "expected gain of the action after costs; of the better side for hold",
            ),
            ("confidence", "0..1", "|2 p_up - 1|"),
            ("p_up", "probability", "combined probability that close rises over the horizon"),
            ("price", "price", "close at the decision"),
        ),
        Column("horizon", "int32", "bars", "bars ahead that the signal speaks of"),
    ),
    "fills": (
        *_HEAD,
        Column("decided_ts", "int64", "ns", "event time of the tick at which it was decided"),
        Column("side", "label", "-", "what was done", SIDES),
        Column("reason", "label", "-", "why it was done", FILL_REASONS),
        *_floats(
            ("quantity", "quantity", "traded quantity"),
            ("price", "price", "what was paid or got for each, spread and slippage in it"),
            ("reference", "price", "execution reference that it was filled at"),
            ("fee", "money", "fee, paid from the cash"),
            ("slippage", "money", "what the price was worse than the reference, in all"),
            ("pnl", "money", "profit of what it closed, fees of entry and exit in it; else null"),
            ("position", "quantity", "position behind it, less than zero when short"),
            ("cash", "money", "cash behind it"),
        ),
    ),
    "equity": (
        *_HEAD,
        *_floats(
            ("position", "quantity", "position, less than zero when short"),
            ("mark", "price", "last close at or before ts"),
            ("cash", "money", "cash"),
            ("equity", "money", "cash + position x mark"),
            ("pnl", "money", "profit of all that was closed so far"),
            ("fees", "money", "fees so far"),
            ("traded", "money", "value of all trades so far"),
        ),
        Column("refused", "int64", "prices", "references so far that could not be traded at"),
    ),
}
# Read it like a constant; only `extend` below, at the start of a process, adds to it.
COLUMNS: Final[Mapping[str, tuple[Column, ...]]] = MappingProxyType(_COLUMNS)
STAGES: Final = tuple(COLUMNS)


def names_of(stage: str) -> tuple[str, ...]:
    """The names of a stage's columns, in order."""
    return tuple(column.name for column in COLUMNS[stage])


def numbers_of(*stages: str) -> dict[str, Column]:
    """The columns of numbers of these stages by name."""
    return {c.name: c for stage in stages for c in COLUMNS[stage] if c.kind == "float64"}


def engines() -> tuple[str, ...]:
    """The engines that have a column `p_<name>` in `predictions`, in order."""
    names = (name for name in names_of("predictions") if name != "p_up")
    return tuple(name.removeprefix("p_") for name in names if name.startswith("p_"))


def extend(stage: str, columns: Sequence[Column]) -> None:
    """Add a user's columns to a stage, once at the start of a process; known ones are left alone.

    Raises:
        ValueError: a name is taken by another column.
    """
    for column in columns:
        known = next((c for c in COLUMNS[stage] if c.name == column.name), None)
        if known is None:
            _COLUMNS[stage] = (*_COLUMNS[stage], column)
        elif known != column:
            raise ValueError(f"{stage} has a column {column.name} already")


@contextmanager
def own_columns() -> Iterator[None]:
    """Forget in the end the columns that a user's features add meanwhile."""
    before = dict(_COLUMNS)
    try:
        yield
    finally:
        _COLUMNS.update(before)


def per_stage(make: Callable[[str], T]) -> Callable[[str], T]:
    """Keep what a function makes of a stage for as long as the stage has the same columns."""
    known: dict[str, tuple[Sequence[Column], T]] = {}

    @wraps(make)
    def kept(stage: str) -> T:
        columns = COLUMNS[stage]
        found = known.get(stage)
        if found is None or found[0] is not columns:
            found = known[stage] = (columns, make(stage))
        return found[1]

    return kept


_DTYPES: Final[Mapping[Kind, np.dtype[Any]]] = {
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "float64": np.dtype(np.float64),
    "symbol": np.dtype(np.int32),
    "label": np.dtype(np.int32),
}


def dtype_of(column: Column) -> np.dtype[Any]:
    """The numpy dtype that holds a column in memory."""
    return _DTYPES[column.kind]


class Rows(Struct, frozen=True, eq=False):
    """Rows of one stage in columns of shape (n,), with the dtypes of `COLUMNS[stage]`.

    `symbols` decodes the codes of the symbol column. Arrays are read, never written, once here.
    """

    stage: str
    columns: Mapping[str, Array]
    symbols: Sequence[str]

    def __len__(self) -> int:
        return len(self.columns["offset"])

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    def take(self, at: Array | slice) -> "Rows":
        """The rows at positions, in a slice, or where a mask is true."""
        return Rows(self.stage, {k: v[at] for k, v in self.columns.items()}, self.symbols)


@per_stage
def _plan(stage: str) -> tuple[tuple[int, int, int], tuple[tuple[str, int], ...]]:
    """Columns of each dtype, and each column's name with its place when those stand together."""
    kinds = [(np.float64, np.int64, np.int32).index(dtype_of(c).type) for c in COLUMNS[stage]]
    counts = kinds.count(0), kinds.count(1), kinds.count(2)
    order = sorted(range(len(kinds)), key=kinds.__getitem__)
    places = [(c.name, order.index(i)) for i, c in enumerate(COLUMNS[stage])]
    return counts, tuple(places)


def _filled(stage: str, n: int) -> dict[str, Array]:
    # One array for all columns of a dtype: an array a column costs more than it holds.
    (floats, longs, ints), places = _plan(stage)
    columns: list[Array] = [
        *np.full((floats, n), np.nan),
        *np.full((longs, n), -1, np.int64),
        *np.full((ints, n), -1, np.int32),
    ]
    return {name: columns[place] for name, place in places}


@per_stage
def _nothing(stage: str) -> Mapping[str, Array]:
    return MappingProxyType(_filled(stage, 0))


def spoken(rows: Rows, column: Column, at: int) -> Any:
    """A value as people read it: words for codes, None for null."""
    value = rows[column.name][at].item()
    if column.kind == "symbol":
        return rows.symbols[value]
    if column.kind == "label":
        return None if value < 0 else column.labels[value]
    return None if value != value else value  # noqa: PLR0124 -- NaN is null


def empty(stage: str, n: int = 0, symbols: Sequence[str] = ()) -> Rows:
    """Rows of a stage to be filled: floats NaN, labels and integers -1."""
    columns = _filled(stage, n) if n else _nothing(stage)
    return Rows(stage, columns, symbols)


_ARROW_TYPES: Final[Mapping[Kind, Any]] = {
    "int64": pa.int64(),
    "int32": pa.int32(),
    "float64": pa.float64(),
    "symbol": pa.utf8(),
    "label": pa.utf8(),
}


def _arrow_type(column: Column) -> Any:
    return _ARROW_TYPES[column.kind]


def arrow_schema(stage: str) -> Any:
    """The Arrow schema of a stage's rows; meaning and unit are field metadata."""
    return _arrow_schema(stage)


@per_stage
def _arrow_schema(stage: str) -> Any:
    fields = [
        pa.field(
            c.name,
            _arrow_type(c),
            nullable=c.kind in {"float64", "label"},
            metadata={"unit": c.unit, "meaning": c.meaning},
        )
        for c in COLUMNS[stage]
    ]
    return pa.schema(fields, metadata={"stage": stage, "schema_version": str(SCHEMA_VERSION)})


def present(codes: Array, symbols: Sequence[str]) -> tuple[Array, list[str]]:
    """Codes into the symbols that occur, in their order, and those: a few of perhaps thousands."""
    place = np.full(len(symbols), -1)
    place[codes] = 0
    found = np.flatnonzero(place == 0)
    if len(found) == len(symbols):
        return codes, list(symbols)
    place[found] = np.arange(len(found))
    return place[codes], [symbols[code] for code in found.tolist()]


def _float_arrays(columns: Sequence[Array]) -> list[Any]:
    """Arrow arrays of doubles, NaN null, the bits of validity made for all of them at once."""
    n = len(columns[0])
    table = np.ascontiguousarray(columns)
    missing = np.isnan(table)
    nulls = np.count_nonzero(missing, axis=1).tolist()
    bits = np.packbits(~missing, axis=1, bitorder="little")
    return [
        pa.Array.from_buffers(
            pa.float64(), n, [pa.py_buffer(bits[j]) if nulls[j] else None, pa.py_buffer(table[j])],
            nulls[j],
        )
        for j in range(len(columns))
    ]  # fmt: skip


def _text_array(values: Array, words: Sequence[str]) -> Any:
    """An Arrow array of texts by their codes, -1 null: for a few rows much faster than `take`."""
    n = len(values)
    if n >= _MANY:
        absent = values < 0
        codes = pa.array(values, mask=absent if np.count_nonzero(absent) else None)
        return pa.array(words, pa.utf8()).take(codes)
    texts = [words[code] if code >= 0 else "" for code in values.tolist()]
    encoded = "".join(texts).encode()
    ends = np.zeros(n + 1, np.int32)
    np.cumsum(np.fromiter(map(len, texts), np.int32, n), out=ends[1:])  # all of it is ASCII
    missing = values < 0
    nulls = int(np.count_nonzero(missing))
    bits = pa.py_buffer(np.packbits(~missing, bitorder="little")) if nulls else None
    buffers = [bits, pa.py_buffer(ends), pa.py_buffer(encoded)]
    return pa.Array.from_buffers(pa.utf8(), n, buffers, nulls)


def _integer_array(column: Column, values: Array) -> Any:
    kind = _arrow_type(column)
    return pa.Array.from_buffers(
        kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))], 0
    )


def to_arrow(rows: Rows) -> Any:
    """Rows as one Arrow record batch."""
    columns = COLUMNS[rows.stage]
    floats = iter(_float_arrays([rows[c.name] for c in columns if c.kind == "float64"]))
    arrays = []
    for c in columns:
        if c.kind == "float64":
            arrays.append(next(floats))
        elif c.kind in {"symbol", "label"}:
            words = rows.symbols if c.kind == "symbol" else c.labels
            arrays.append(_text_array(rows[c.name], words))
        else:
            arrays.append(_integer_array(c, rows[c.name]))
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(rows.stage))


def from_arrow(stage: str, batch: Any) -> Rows:
    """Rows from an Arrow record batch or table; columns are taken by name, others ignored.

    Raises:
        KeyError: a column of the stage is missing.
    """
    columns: dict[str, Array] = {}
    symbols: list[str] = []
    for c in COLUMNS[stage]:
        array = batch.column(c.name)
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        if c.kind in {"symbol", "label"}:
            coded = array.dictionary_encode()
            codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
            words = coded.dictionary.to_pylist()
            if c.kind == "symbol":
                symbols = words
            else:
                table = np.array([c.labels.index(w) for w in words] + [-1], np.int32)
                codes = table[codes]
            columns[c.name] = codes
        else:
            columns[c.name] = array.to_numpy(zero_copy_only=False).astype(dtype_of(c), copy=False)
    return Rows(stage, columns, symbols)
