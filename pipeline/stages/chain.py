"""The one wiring of the stages: agents and replay both drive this."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from pydantic import BaseModel, ConfigDict

from pipeline.errors import StateError
from pipeline.kernels.bars import ROW, TICKS, TIME
from pipeline.stages.bars import Bars, BarsSettings, parse_clock
from pipeline.stages.base import Block, Stage, State, joined, numbers_named
from pipeline.stages.boosted import Activated
from pipeline.stages.custom import Custom
from pipeline.stages.engines import load_engines
from pipeline.stages.equity import Equity, EquitySettings
from pipeline.stages.features import Features, FeaturesSettings
from pipeline.stages.fills import Fills, FillsSettings
from pipeline.stages.predictions import Predictions, PredictionsSettings
from pipeline.stages.regimes import Regimes, RegimesSettings
from pipeline.stages.signals import Signals, SignalsSettings
from pipeline.stages.ticks import GuardSettings, Ticks
from pipeline.stages.user import UserSettings
from schemas.arrivals import Arrivals, Reject
from schemas.blocks import COLUMNS, Array
from schemas.codec import Decoder
from schemas.models import Activation

STATE_VERSION: Final = 2
_DIGEST: Final = 16


class ChainSettings(BaseModel):
    """All that decides the numbers; two chains of equal settings give equal bits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    guard: GuardSettings = GuardSettings()
    bars: BarsSettings = BarsSettings()
    features: FeaturesSettings = FeaturesSettings()
    user: UserSettings = UserSettings()
    regimes: RegimesSettings = RegimesSettings()
    predictions: PredictionsSettings = PredictionsSettings()
    signals: SignalsSettings = SignalsSettings()
    fills: FillsSettings = FillsSettings()
    equity: EquitySettings = EquitySettings()

    def fingerprint(self) -> str:
        """A hash of the settings and of the columns that they fill."""
        columns = {stage: [c.name for c in COLUMNS[stage]] for stage in COLUMNS}
        text = self.model_dump_json() + repr(columns) + str(STATE_VERSION)
        return hashlib.blake2b(text.encode(), digest_size=_DIGEST).hexdigest()

    def feature_set(self, names: Sequence[str]) -> str:
        """A hash of what these columns of bars and features are: their settings and definitions.

        A model that was trained on them is good for chains with the same hash only.

        Raises:
            MisuseError: bars and features have no such column of numbers.
        """
        columns = numbers_named(names)
        decide = self.model_dump(mode="json", include={"guard", "bars", "features", "user"})
        del decide["bars"]["execution_latency"]  # of fills
        for file in decide["user"]["features"]:
            del file["path"]
        told = [(column.name, column.unit, column.meaning) for column in columns]
        text = json.dumps([decide, told], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=_DIGEST).hexdigest()


class Chain:
    """The stages of one partition, in order, with their state."""

    def __init__(self, settings: ChainSettings, partition: int = 0) -> None:
        self.partition = partition
        self.ticks = Ticks(settings.guard)
        self.predictions = Predictions(settings.predictions, load_engines(settings.user))
        self._stages: tuple[Stage, ...] = (
            self.ticks,
            Bars(settings.bars),
            Features(_with_clock(settings)),
            Custom(settings.user),
            Regimes(settings.regimes),
            self.predictions,
            *book_stages(settings),
        )
        self._planned: deque[Activated] = deque()
        self._settings = settings
        self._fingerprint = settings.fingerprint()  # after a user's columns have joined

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in the order of the data."""
        return self._stages

    def step(self, came: Arrivals, unread: Sequence[Reject] = (), end_offset: int = -1) -> Block:
        """Run ticks through all stages; `unread` is what decoding turned away.

        An `end_offset` closes what is open, as a file ends.
        """
        renamed = came["was"] >= 0
        swaps = self._swaps(came) if self._planned else []
        if not swaps and not np.count_nonzero(renamed):
            return self._run(Block(came, rejects=unread, end_offset=end_offset))
        moves = np.flatnonzero(renamed).tolist()
        # An instrument changes its symbol between two ticks: so does its state in every stage.
        edges = sorted({*moves, *(at for at, _ in swaps)})
        blocks = [self._run(Block(came.slice(0, edges[0]), rejects=unread))]
        for start, stop in zip(edges, [*edges[1:], len(came)], strict=True):
            for at, one in swaps:
                if at == start:
                    self.predictions.activate(one)
            if renamed[start]:
                self._rename(came, start)
            blocks.append(self._run(Block(came.slice(start, stop))))
        return joined(blocks, came)

    @property
    def activation(self) -> Activation | None:
        """The last one that is planned or applied."""
        return self._planned[-1].activation if self._planned else self.predictions.activation

    def plan(self, activated: Activated) -> None:
        """Let versions of gbdt speak from a tick on that is to come; a snapshot does not know it.

        Raises:
            ValueError: it is not behind the one before.
        """
        last = self.activation
        if last is not None and activated.activation.place <= last.place:
            raise ValueError(f"{activated.activation} is not behind {last}")
        self._planned.append(activated)

    def _swaps(self, came: Arrivals) -> list[tuple[int, Activated]]:
        """Take what is planned for these ticks; what goes before the first of them is done."""
        found: list[tuple[int, Activated]] = []
        while self._planned:
            offset, index = self._planned[0].activation.place
            behind = came["offset"] > offset
            behind |= (came["offset"] == offset) & (came["index"] >= index)
            if not behind.any():
                break
            one, at = self._planned.popleft(), int(behind.argmax())
            if at:
                found.append((at, one))
            else:
                self.predictions.activate(one)
        return found

    def _run(self, block: Block) -> Block:
        for stage in self._stages:
            block = stage.step(block)
        return block

    def _rename(self, came: Arrivals, at: int) -> None:
        old, new = (came.symbols[came[name][at]] for name in ("was", "symbol"))
        codes = self.ticks.codes_for_rename(old, new)
        if codes is not None:
            for stage in self._stages:
                stage.rename(*codes)

    def finish(self, end_offset: int) -> Block:
        """The rows that the end of a file makes; `end_offset` is one past its last tick's."""
        nothing, _ = Decoder(self.partition).decode(())
        return self.step(nothing, end_offset=end_offset)

    def begin_books(self, *before: Stage) -> None:
        """Decide anew from here on, with first cash; what was learnt of the prices stays.

        Stages of `before` change what is decided on; they are no part of a snapshot's fingerprint.
        """
        begun = book_stages(self._settings)
        self._stages = (*self._stages[: -len(begun)], *before, *begun)

    def copied(self) -> Callable[[], bytes]:
        """A copy of the whole state; what is returned packs it, in another thread if you like."""
        states = {stage.name: stage.snapshot() for stage in self._stages}
        return lambda: _snapshot(self._fingerprint, states)

    def snapshot(self) -> bytes:
        """The whole state: version, fingerprint of settings and columns, checksum, arrays."""
        return self.copied()()

    def restore(self, data: bytes) -> None:
        """Continue from a snapshot, bit for bit; nothing is planned.

        Raises:
            StateError: it is damaged, or was made by another version or by other settings.
        """
        try:
            version, fingerprint, digest, body = msgspec.msgpack.decode(
                data, type=tuple[int, str, str, bytes]
            )
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StateError("the snapshot is damaged: it cannot be read") from error
        if version != STATE_VERSION or fingerprint != self._fingerprint:
            raise StateError(
                "the stored state was made with other settings, features or another version; "
                "run with the settings it was made with, or start a new data directory"
            )
        if hashlib.blake2b(body, digest_size=_DIGEST).hexdigest() != digest:
            raise StateError("the snapshot is damaged: its checksum differs")
        state: dict[str, Any] = msgspec.msgpack.decode(body)
        self._planned.clear()
        for stage in self._stages:
            stage.restore(_unpacked(state[stage.name]))


def _with_clock(settings: ChainSettings) -> FeaturesSettings:
    """The settings of the features, told how wide the bars are: pairs of returns join by it."""
    kind, width = parse_clock(settings.bars.clock)
    # Tick bars of two symbols almost never end together: their returns join by time span.
    join = "span" if kind == TICKS else settings.features.reference_join
    width = width if kind == TIME else 0
    return settings.features.model_copy(update={"bar_ns": width, "reference_join": join})


def book_stages(settings: ChainSettings) -> tuple[Stage, ...]:
    """The last stages: what is decided, and the books that trade it."""
    return Signals(settings.signals), _fills(settings), Equity(settings.equity)


def _fills(settings: ChainSettings) -> Fills:
    """The stage of the fills, told what is said of the bars: the latency and the clock."""
    kind, _ = parse_clock(settings.bars.clock)
    return Fills(settings.fills, settings.bars.execution_latency, rows=kind == ROW)


def _snapshot(fingerprint: str, states: Mapping[str, State]) -> bytes:
    body = msgspec.msgpack.encode({name: _packed(state) for name, state in states.items()})
    digest = hashlib.blake2b(body, digest_size=_DIGEST).hexdigest()
    return msgspec.msgpack.encode((STATE_VERSION, fingerprint, digest, body))


def _packed(state: State) -> dict[str, tuple[str, list[int], bytes]]:
    return {
        name: (array.dtype.str, list(array.shape), np.ascontiguousarray(array).tobytes())
        for name, array in state.items()
    }


def _unpacked(state: Mapping[str, tuple[str, list[int], bytes]]) -> dict[str, Array]:
    return {
        name: np.frombuffer(data, np.dtype(dtype)).reshape(shape).copy()
        for name, (dtype, shape, data) in state.items()
    }
