"""Any stage as a pandas table: from a replay's directory, a stretch of the topic, or Postgres."""

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from pipeline.bus.ranges import Limits, Request, first_ms
from pipeline.errors import MisuseError
from pipeline.replay.engine import STORED, TOPIC, replay_request
from pipeline.settings import Settings, load_settings
from pipeline.store.pool import pooled
from pipeline.store.stored import stored_rows
from schemas.blocks import COLUMNS, STAGES, Rows, from_arrow
from schemas.times import NO_TIME, parse_time
from schemas.topics import PRICES

POSTGRES: Final = "postgres"
_TEXT: Final = ("symbol", "label")


def to_pandas(
    source: str | Path,
    stage: str,
    *,
    start: str | int | None = None,
    end: str | int | None = None,
    offsets: Mapping[int, Limits] | None = None,
    settings: Settings | None = None,
) -> pd.DataFrame:
    """The rows of a stage, one table row each, in the order in which a replay writes them.

    Columns are those of `tickstream schema STAGE`: float64 (NaN for null), int64 (times in ns since
    1970 UTC), category for symbols and labels; and `time`, which is `ts` as datetime64[ns, UTC].

    Args:
        source: the directory of a replay; `kafka:prices`, whose messages are replayed with an empty
            state at the start of the stretch; or `postgres`, the stored live rows, ordered by
            event time, partition, offset and index. Addresses are those of the settings.
        stage: ticks, bars, features, regimes, predictions, signals, ...
        start: RFC 3339 with zone or an integer: first event time, for a topic the time of
            publishing.
        end: the same, not included.
        offsets: for a topic, instead of times: (first, one past the last) by partition, None for
            the end that is there.
        settings: of the replay, and the addresses; by default those of the environment.

    Raises:
        MisuseError: there is no such stage, directory or stretch, or no address of the server.
        UnavailableError: the server does not answer.
    """
    if stage not in STAGES:
        raise MisuseError(f"no stage is called {stage!r}: there are {', '.join(STAGES)}")
    chosen = settings or load_settings()
    span = _time(start, "start"), _time(end, "end")
    name = str(source)
    if offsets is not None and name != TOPIC:
        raise MisuseError(f"offsets are for {TOPIC}, not for {name}")
    if name == TOPIC:
        request = Request(PRICES, first_ms(span[0]), first_ms(span[1]), offsets)
        return _replayed(chosen, stage, request)
    if name in {POSTGRES, STORED}:
        return _table(asyncio.run(_stored(chosen, stage, *span)))
    return _between(_written(Path(source), stage), *span)


def _time(said: str | int | None, name: str) -> int | None:
    if said is None:
        return None
    ns = parse_time(said)
    if ns == NO_TIME:
        raise MisuseError(f"{name}={said!r} is no RFC 3339 time with zone, as 2024-08-08T23:54:15Z")
    return ns


def _written(directory: Path, stage: str) -> pd.DataFrame:
    path = directory / f"{stage}.parquet"
    if not path.is_file():
        raise MisuseError(f"{directory}: is not the output of a replay: {path.name} is missing")
    try:
        return _table(from_arrow(stage, pa.parquet.read_table(path)))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise MisuseError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error


def _between(table: pd.DataFrame, start: int | None, end: int | None) -> pd.DataFrame:
    keep = np.ones(len(table), np.bool_)
    if start is not None:
        keep &= table["ts"].to_numpy() >= start
    if end is not None:
        keep &= table["ts"].to_numpy() < end
    return table if keep.all() else table[keep].reset_index(drop=True)


def _replayed(settings: Settings, stage: str, request: Request) -> pd.DataFrame:
    if settings.kafka is None:
        raise MisuseError("no kafka: set TICKSTREAM_KAFKA to the address that `up` prints")
    with tempfile.TemporaryDirectory(prefix="tickstream-") as folder:
        out = Path(folder) / "out"
        asyncio.run(replay_request(settings.kafka, settings.postgres, request, out, settings))
        return _written(out, stage)


async def _stored(settings: Settings, stage: str, start: int | None, end: int | None) -> Rows:
    if settings.postgres is None:
        raise MisuseError("no postgres: set TICKSTREAM_POSTGRES to the address that `up` prints")
    async with pooled(settings.postgres, settings.store) as pool:
        return await stored_rows(pool, stage, start, end)


def _table(rows: Rows) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    for column in COLUMNS[rows.stage]:
        values = rows[column.name]
        if column.kind in _TEXT:
            words = rows.symbols if column.kind == "symbol" else column.labels
            columns[column.name] = pd.Categorical.from_codes(values, pd.Index(list(words)))
        else:
            kind = np.float64 if column.kind == "float64" else np.int64
            columns[column.name] = values.astype(kind, copy=False)
    table = pd.DataFrame(columns, copy=False)
    table.insert(0, "time", pd.to_datetime(table["ts"], utc=True, unit="ns"))
    return table
