"""Each engine trading alone: the books of a replay made again with its probability as the only one.

Signals, fills and equity are functions of bars, features and predictions, and these a replay has
written. So they are stepped again by the same stages over what it wrote, `p_up` replaced.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from pipeline.replay.figures import EQUITY, FILLS, P_UP, name_of, said
from pipeline.replay.trades import BOOK
from pipeline.replay.trial_figures import table_of
from pipeline.stages.base import HEAD, Block, Stage
from pipeline.stages.chain import ChainSettings, book_stages
from pipeline.stages.fills import BARS_READ
from schemas.blocks import COLUMNS, Array, Rows, dtype_of
from schemas.codec import Decoder

_TRADED: Final = ""  # what was traded in truth; no engine is called so
_VOLATILITY: Final = "bar_ewma_vol"
_MADE: Final = ("equity", "fills")
_SAID: Final = ("sigma", "close", "horizon")


@dataclass(frozen=True, slots=True)
class Traded:
    """Rows of two stages, the columns EQUITY and FILLS, partition by partition."""

    equity: pd.DataFrame
    fills: pd.DataFrame


@dataclass(slots=True)
class _Trader:
    """The stages behind the predictions for one partition, and what they made so far."""

    stages: Sequence[Stage]
    column: str  # of the predictions, in the place of p_up
    parts: list[Mapping[str, Rows]] = field(default_factory=list)

    def step(self, block: Block) -> None:
        predictions = block.rows["predictions"]
        columns = {**predictions.columns, P_UP: predictions[self.column]}
        rows = {**block.rows, "predictions": Rows("predictions", columns, predictions.symbols)}
        block = Block(block.arrivals, rows, end_offset=block.end_offset)
        for stage in self.stages:
            block = stage.step(block)
        self.parts.append({name: block.rows[name] for name in _MADE})


def alone(
    directory: Path, manifest: Mapping[str, Any], equity: pd.DataFrame
) -> Mapping[str, Traded] | None:
    """What each engine, and the combination, had traded alone, by name.

    What was traded in truth is made again with them; None where that does not give every bit of
    `equity`: an instrument has changed its symbol, which the stages do not tell.

    Args:
        directory: of a replay.
        manifest: of the same.
        equity: its rows of that stage, the columns EQUITY.
    """
    settings = _settings(manifest["settings"])
    names = (_TRADED, *said()[1:])
    traders: dict[tuple[int, str], _Trader] = {}

    def step(partition: int, block: Block) -> None:
        for name in names:
            if (partition, name) not in traders:
                mine = settings if name == _TRADED else _unled(settings)
                traders[partition, name] = _Trader(book_stages(mine), name or P_UP)
            traders[partition, name].step(block)

    last: dict[int, Block] = {}
    for partition, block in _blocks(directory, settings.signals.follow):
        step(partition, block)
        last[partition] = block
    for given in manifest["inputs"]:
        if "file" in given:  # its end closed the last beat
            for partition, block in last.items():
                step(partition, _ended(block, given["rows"]))
    made = {
        name: Traded(table_of(parts, "equity", EQUITY), table_of(parts, "fills", FILLS))
        for name, parts in _by_name(names, traders).items()
    }
    if not _by_book(made.pop(_TRADED).equity).equals(_by_book(equity)):
        return None
    return {name_of(name): found for name, found in made.items()}


def _by_book(rows: pd.DataFrame) -> pd.DataFrame:
    """Book by book, as the end of a file closes them in an order of its own."""
    return rows.sort_values(BOOK, kind="stable", ignore_index=True)


def _settings(told: Mapping[str, Any]) -> ChainSettings:
    """Those that decide how is traded."""
    return ChainSettings.model_validate(
        {name: told[name] for name in ("bars", "signals", "fills", "equity")}
    )


def _unled(settings: ChainSettings) -> ChainSettings:
    """The same, led by a probability."""
    signals = settings.signals.model_copy(update={"follow": None})
    return settings.model_copy(update={"signals": signals})


def _blocks(directory: Path, follow: str | None) -> Iterator[tuple[int, Block]]:
    """What was written, a row group at a time, each partition as a block of its own."""
    wanted = {
        "bars": BARS_READ,
        "features": tuple(dict.fromkeys((_VOLATILITY, *([follow] if follow else [])))),
        "predictions": tuple(dict.fromkeys((*HEAD, *_SAID, *said()[1:]))),
    }
    files = {stage: pa.parquet.ParquetFile(directory / f"{stage}.parquet") for stage in wanted}
    codes: dict[str, int] = {}
    for group in range(files["bars"].num_row_groups):
        tables = {
            stage: files[stage].read_row_group(group, columns=list(names))
            for stage, names in wanted.items()
        }
        symbols = _codes(tables["bars"]["symbol"], codes)
        rows = {
            stage: Rows(stage, _columns(stage, table, symbols), list(codes))
            for stage, table in tables.items()
        }
        partitions = tables["bars"]["partition"].to_numpy()
        for partition in np.unique(partitions).tolist():
            at = partitions == partition
            some = {stage: Rows(stage, _of(each, at), each.symbols) for stage, each in rows.items()}
            yield partition, Block(Decoder(partition).decode(())[0], some)


def _codes(names: Any, known: dict[str, int]) -> Array:
    """Symbols as codes that all row groups share, int32 (n,)."""
    coded = names.combine_chunks().dictionary_encode()
    table = [known.setdefault(name, len(known)) for name in coded.dictionary.to_pylist()]
    found: Array = np.array(table, np.int32)[coded.indices.to_numpy()]
    return found


def _columns(stage: str, table: Any, symbols: Array) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for column in COLUMNS[stage]:
        if column.name == "symbol":
            found["symbol"] = symbols
        elif column.name in table.column_names:
            found[column.name] = table[column.name].to_numpy().astype(dtype_of(column), copy=False)
    return found


def _of(rows: Rows, at: Array) -> dict[str, Array]:
    return {name: values[at] for name, values in rows.columns.items()}


def _ended(block: Block, rows: int) -> Block:
    """No bar more, and the end of the file."""
    none = {stage: each.take(slice(0)) for stage, each in block.rows.items()}
    return Block(block.arrivals, none, end_offset=rows)


def _by_name(
    names: Iterable[str], traders: Mapping[tuple[int, str], _Trader]
) -> Mapping[str, list[Mapping[str, Rows]]]:
    """What the traders of a name made, partition by partition."""
    return {
        name: [part for (_, n), t in traders.items() if n == name for part in t.parts]
        for name in names
    }
