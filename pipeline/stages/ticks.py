"""Ticks: the ingest guard in front of all kernels decides what enters the chain, and why not."""

import re
from collections.abc import Sequence
from typing import ClassVar, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.kernels import sides
from pipeline.kernels import ticks as kernels
from pipeline.stages.base import Block, Stage, State, grown, room
from schemas.arrivals import FACTORS, FLOATS, Arrivals, Gap, Reject
from schemas.blocks import Array, Rows, names_of
from schemas.ticks import COUNTED, DETAILS, REASONS, SYMBOL_PATTERN, Note

_SECOND = 10**9
_UNSEEN = -3
_RENAMED = COUNTED.index(Note.RENAMED)

_NUMBERS: Final = (*FLOATS, *FACTORS)
_NAMES: Final = names_of("ticks")
# Columns that the guard makes, in the order of its outputs; and those it takes as they came.
_INTS: Final = ("flag", "session", "life", "stale", "gap")
_FLOATS: Final = ("scale", "volume_scale")
_TAKEN: Final = tuple(
    name for name in _NAMES if name not in {"partition", "symbol", "ts", *_INTS, *_FLOATS}
)
_SYMBOL: Final = re.compile(SYMBOL_PATTERN, re.ASCII)


class GuardSettings(BaseModel):
    """How to judge: `full` applies every rule, `plain` takes each well-formed positive tick."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["full", "plain"] = "full"
    max_symbols: int = Field(100_000, ge=1, description="symbols per partition")
    time: Literal["event", "receive"] = Field("event", description="the clock of the chain")
    allow_negative: tuple[str, ...] = Field((), description="symbols whose price may be negative")
    consecutive_ids: bool = Field(False, description="ids count up by one: tell what is missing")
    spike: float = Field(50.0, gt=1, description="mean absolute moves that make a spike")
    spike_floor: float = Field(0.005, ge=0, description="log moves below this are never spikes")
    warm_up: int = Field(50, ge=1, description="moves before a spike can be told")
    session_gap: float = Field(4 * 3600.0, gt=0, description="seconds of silence between sessions")
    instrument_gap: float = Field(
        60 * 86_400.0, gt=0, description="seconds after which a jump means another instrument"
    )
    instrument_jump: float = Field(5.0, gt=0, description="mean absolute moves of that jump")
    stale_floor: float = Field(60.0, gt=0, description="seconds of silence that are never stale")


class Ticks(Stage):
    """Judges each tick when it arrives and never later; what passes becomes a row of `ticks`."""

    name: ClassVar[str] = "ticks"

    def __init__(self, settings: GuardSettings) -> None:
        self._settings = settings
        self._symbols: list[str] = []
        self._codes: dict[str, int] = {}
        self._arrays: dict[str, Array] = {
            "floats": np.empty((0, kernels.FLOAT_STATE)),
            "ints": np.empty((0, kernels.INT_STATE), np.int64),
            "side_floats": np.empty((0, sides.FLOAT_STATE)),
            "side_ints": np.empty((0, sides.INT_STATE), np.int64),
            "ids": np.empty((0, kernels.ID_WINDOW), np.int64),
            "counts": np.empty((0, len(COUNTED)), np.int64),
            "negative": np.empty(0, np.int8),
        }
        self._unread: Array = np.zeros(len(REASONS), np.int64)
        self._named: Sequence[str] | None = None
        self._rows_of: Array = np.empty(0, np.int32)
        self._strange = False  # whether some of those names were never met
        gaps = (settings.session_gap, settings.instrument_gap, settings.stale_floor)
        self._ints = np.array(
            [
                settings.mode == "plain",
                *(min(int(gap * _SECOND), 2**62) for gap in gaps),
                settings.warm_up,
                settings.consecutive_ids,
                0,
            ],
            np.int64,
        )
        self._floats = np.array([settings.spike, settings.spike_floor, settings.instrument_jump])

    @property
    def symbols(self) -> list[str]:
        """Symbols of the partition by state row; append only."""
        return self._symbols

    def counts(self) -> Array:
        """Absolute counts of shape (symbols, COUNTED)."""
        return self._arrays["counts"][: len(self._symbols)].copy()

    def touched(self) -> Array:
        """State rows of the symbols of the last run, ascending: no other counts have changed."""
        rows = self._rows_of[self._rows_of >= 0]
        rows.sort()
        return rows

    def counts_of(self, rows: Array) -> Array:
        """Absolute counts of shape (rows, COUNTED)."""
        return self._arrays["counts"][rows]

    def unread(self) -> Array:
        """Absolute counts by reason, shape (reasons,), of what decoding turned away."""
        return self._unread.copy()

    def step(self, block: Block) -> Block:
        """Add the accepted ticks as rows, the others as rejects, and gaps, in arrival order."""
        came = block.arrivals
        for reject in block.rejects:
            self._unread[REASONS.index(reject.reason)] += 1
        columns = came.columns
        symbol = self._admit(came)[columns["symbol"]]
        n = len(symbol)
        ts = columns["ts" if self._settings.time == "event" else "known_at"]
        verdict = np.empty(n, np.int32)
        ints = room(kernels.INT_OUT, n, np.int32)
        floats = room(kernels.FLOAT_OUT, n)
        missing_from = np.empty(n if self._settings.consecutive_ids else 0, np.int64)
        arrays = self._arrays
        accepted = kernels.judge(
            self._ints,
            self._floats,
            symbol,
            arrays["negative"],
            columns["fault"],
            ts,
            columns["known_at"],
            columns["received"],
            columns["id"],
            tuple([columns[name] for name in _NUMBERS]),
            arrays["floats"],
            arrays["ints"],
            arrays["side_floats"],
            arrays["side_ints"],
            arrays["ids"],
            arrays["counts"],
            verdict,
            ints,
            floats,
            missing_from,
        )
        found = {name: columns[name] for name in _TAKEN}
        found["symbol"], found["ts"] = symbol, ts
        found.update(zip(_INTS, ints[:, :n], strict=True))
        found.update(zip(_FLOATS, floats[:, :n], strict=True))
        rejects = block.rejects
        if accepted < n:
            # What bears no symbol of ours is counted under none.
            self._unread += np.bincount(verdict[symbol < 0], minlength=len(REASONS))
            rejects = (*rejects, *self._rejects(came, verdict))
            kept = np.flatnonzero(verdict == kernels.ACCEPTED)
            found = {name: values[kept] for name, values in found.items()}
            missing_from = missing_from[kept] if self._settings.consecutive_ids else missing_from
        found["partition"] = np.empty(accepted, np.int32)
        found["partition"].fill(came.partition)
        rows = Rows(self.name, found, self._symbols)
        gaps = block.gaps
        if self._settings.consecutive_ids:
            gaps = (*gaps, *_gaps(rows, missing_from))
        return block.plus(rows, rejects=rejects, gaps=gaps)

    def codes_for_rename(self, old: str, new: str) -> tuple[int, int] | None:
        """State rows to move from and to; None when there is nothing to move."""
        if old not in self._codes or old == new:
            return None
        if new not in self._codes:
            self._added(new)
        return self._codes[old], self._codes[new]

    def rename(self, old: int, new: int) -> None:
        """Move what the guard knows of one symbol to another; the counts stay with their names."""
        arrays = self._arrays
        for name in ("floats", "ints", "side_floats", "side_ints", "ids"):
            arrays[name][new] = arrays[name][old]
        self._fresh(slice(old, old + 1))
        arrays["counts"][new, _RENAMED] += 1

    def _admit(self, came: Arrivals) -> Array:
        """State rows by code of the block: -1 for a bad symbol, -2 for one too many."""
        if came.symbols is not self._named:  # slices of one run share their names
            self._named = came.symbols
            rows = [self._codes.get(name, _UNSEEN) for name in came.symbols]
            self._rows_of = np.array(rows, np.int32)
            self._strange = _UNSEEN in rows
        if not self._strange:
            return self._rows_of
        unseen = self._rows_of[came["symbol"]] == _UNSEEN
        if unseen.any():
            found, first = np.unique(came["symbol"][unseen], return_index=True)
            # In the order of first appearance: rows must not depend on the split into blocks.
            for code in found[np.argsort(first)].tolist():
                self._rows_of[code] = self._row_of(came.symbols[code])
            self._strange = bool((self._rows_of == _UNSEEN).any())
        return self._rows_of

    def _row_of(self, symbol: str) -> int:
        row = self._codes.get(symbol, -1)
        if row >= 0 or not _SYMBOL.fullmatch(symbol):
            return row
        if len(self._symbols) >= self._settings.max_symbols:
            return -2
        return self._added(symbol)

    def _added(self, symbol: str) -> int:
        row = len(self._symbols)
        self._symbols.append(symbol)
        self._codes[symbol] = row
        self._grow(row + 1)
        self._arrays["negative"][row] = symbol in self._settings.allow_negative
        return row

    def _grow(self, n: int) -> None:
        have = len(self._arrays["counts"])
        if n <= have:
            return
        for name, array in self._arrays.items():
            self._arrays[name] = grown(array, n, 0)
        self._fresh(slice(have, None))

    def _fresh(self, rows: slice) -> None:
        floats, ints = self._arrays["floats"], self._arrays["ints"]
        floats[rows] = 0.0
        floats[rows, kernels.SUSPECT] = np.nan
        floats[rows, kernels.SCALE] = 1.0
        floats[rows, kernels.VOLUME_SCALE] = 1.0
        ints[rows] = 0
        ints[rows, kernels.ID_MAX] = kernels.NO_ID_YET
        quote = self._arrays["side_floats"]
        quote[rows] = 0.0
        quote[rows, sides.PRICE : sides.MEDIAN] = np.nan
        self._arrays["side_ints"][rows] = 0
        self._arrays["ids"][rows] = 0

    def _rejects(self, came: Arrivals, verdict: Array) -> list[Reject]:
        found = []
        for i in np.flatnonzero(verdict >= 0).tolist():
            reason = REASONS[verdict[i]]
            found.append(
                Reject(
                    int(came["offset"][i]),
                    int(came["index"][i]),
                    reason,
                    DETAILS[reason],
                    came.symbols[came["symbol"][i]],
                )
            )
        return found

    def snapshot(self) -> State:
        """Symbols and arrays, copied."""
        n = len(self._symbols)
        state = {name: array[:n].copy() for name, array in self._arrays.items()}
        return {**state, "symbols": np.array(self._symbols, "U32"), "unread": self.unread()}

    def restore(self, state: State) -> None:
        """Continue from a snapshot."""
        self._symbols = [str(symbol) for symbol in state["symbols"]]
        self._codes = {symbol: code for code, symbol in enumerate(self._symbols)}
        self._arrays = {name: state[name].copy() for name in self._arrays}
        self._unread = state["unread"].copy()
        self._named = None


def _gaps(rows: Rows, missing_from: Array) -> list[Gap]:
    """The events of rows that tell of missing ids; `missing_from` (n,) is read at those alone."""
    return [
        Gap(
            int(rows["offset"][i]),
            int(rows["index"][i]),
            rows.symbols[rows["symbol"][i]],
            int(rows["ts"][i]),
            int(missing_from[i]),
            int(rows["id"][i]) - 1,
        )
        for i in np.flatnonzero(rows["gap"]).tolist()
    ]
