"""Ticks: the ingest guard in front of all kernels decides what enters the chain, and why not."""

import re
from dataclasses import replace
from typing import Any, ClassVar, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pipeline.kernels import ticks as kernels
from pipeline.stages.base import Block, Stage, State, grown
from schemas.arrivals import FLOATS, Arrivals, Reject
from schemas.blocks import Array, Rows, empty
from schemas.ticks import DETAILS, REASONS, SYMBOL_PATTERN
from schemas.times import NO_TIME

_SYMBOL: Final = re.compile(SYMBOL_PATTERN, re.ASCII)


class GuardSettings(BaseModel):
    """How to judge: `full` applies every rule, `plain` takes each well-formed positive tick."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["full", "plain"] = "full"
    max_symbols: int = Field(100_000, ge=1, description="symbols per partition")


class Ticks(Stage):
    """Judges each tick when it arrives and never later; what passes becomes a row of `ticks`."""

    name: ClassVar[str] = "ticks"

    def __init__(self, settings: GuardSettings) -> None:
        self._settings = settings
        self._symbols: list[str] = []
        self._codes: dict[str, int] = {}
        self._arrays: dict[str, Array] = {
            "last_ts": np.empty(0, np.int64),
            "ids": np.empty((0, kernels.ID_WINDOW), np.int64),
            "id_count": np.empty(0, np.int64),
            "id_max": np.empty(0, np.int64),
            "counts": np.empty((0, len(REASONS) + 1), np.int64),
        }
        self._unread: Array = np.zeros(len(REASONS), np.int64)

    @property
    def symbols(self) -> list[str]:
        """Symbols of the partition by state row; append only."""
        return self._symbols

    def counts(self) -> Array:
        """Absolute counts of shape (symbols, reasons + 1): rejected by reason, accepted last."""
        return self._arrays["counts"][: len(self._symbols)].copy()

    def unread(self) -> Array:
        """Absolute counts by reason, shape (reasons,), of what decoding turned away."""
        return self._unread.copy()

    def step(self, block: Block) -> Block:
        """Add the accepted ticks as rows and the others as rejects, both in arrival order."""
        came = block.arrivals
        for reject in block.rejects:
            self._unread[REASONS.index(reject.reason)] += 1
        state_of = self._admit(came)
        symbol = state_of[came["symbol"]] if len(came) else np.empty(0, np.int32)
        verdict = np.empty(len(came), np.int32)
        arrays = self._arrays
        kernels.judge(
            self._settings.mode == "plain",
            symbol,
            came["fault"],
            came["ts"],
            came["known_at"],
            came["received"],
            came["id"],
            tuple(came[name] for name in FLOATS),
            arrays["last_ts"],
            arrays["ids"],
            arrays["id_count"],
            arrays["id_max"],
            arrays["counts"],
            verdict,
        )
        # What bears no symbol of ours is counted under none.
        self._unread += np.bincount(verdict[symbol < 0], minlength=len(REASONS))
        accepted = verdict == kernels.ACCEPTED
        everything = bool(accepted.all())
        rejects = () if everything else self._rejects(came, verdict)
        rows = self._rows(came, symbol, slice(None) if everything else accepted)
        return replace(block.plus(rows), rejects=(*block.rejects, *rejects))

    def _admit(self, came: Arrivals) -> Array:
        # A block may name symbols that it has no tick of: they wait for the one that has.
        present = np.bincount(came["symbol"], minlength=len(came.symbols)).tolist()
        codes = np.empty(len(came.symbols), np.int32)
        for i, symbol in enumerate(came.symbols):
            code = self._codes.get(symbol, -1)
            if code < 0 and present[i] and _SYMBOL.fullmatch(symbol):
                code = -2
                if len(self._symbols) < self._settings.max_symbols:
                    code = len(self._symbols)
                    self._symbols.append(symbol)
                    self._codes[symbol] = code
            codes[i] = code
        self._grow(len(self._symbols))
        return codes

    def _grow(self, n: int) -> None:
        fills = {"last_ts": NO_TIME, "id_max": -(2**63)}
        for name, array in self._arrays.items():
            self._arrays[name] = grown(array, n, fills.get(name, 0))

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

    def _rows(self, came: Arrivals, symbol: Array, kept: Any) -> Rows:
        columns = {"symbol": symbol[kept]}
        for name in ("offset", "index", "ts", "known_at", "side", "id", *FLOATS):
            columns[name] = came[name][kept]
        n = len(columns["ts"])
        columns["partition"] = np.full(n, came.partition, np.int32)
        columns["flag"] = np.zeros(n, np.int32)
        order = empty(self.name).columns
        return Rows(self.name, {name: columns[name] for name in order}, self._symbols)

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
