"""One run among many: a chain of some settings over shared ticks, and its figures by windows."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.resources import files
from threading import Lock
from typing import Final

import numpy as np

from pipeline.replay.output import machine
from pipeline.replay.shared_ticks import SharedTicks
from pipeline.replay.silence import Silence
from pipeline.replay.splits import Window
from pipeline.replay.trial_figures import STAGES_READ, Outcome, outcome
from pipeline.stages.chain import Chain, ChainSettings
from schemas.arrivals import Arrivals
from schemas.blocks import Array, Rows, own_columns

_CODE: Final = ("pipeline.kernels", "pipeline.stages", "pipeline.replay", "pipeline.sources")
_ALONE: Final = Lock()  # a user's columns belong to the process: one run at a time
_FIRST: Final = -(2**63)

Part = Mapping[str, Rows]


@dataclass(frozen=True, slots=True)
class Trial:
    """A run: settings, the windows that are told, and the clock of their returns.

    Attributes:
        period: of the returns, ns.
        year: periods of a year.
    """

    settings: ChainSettings
    windows: tuple[Window, ...]
    period: int
    year: float

    def key(self, shared: SharedTicks) -> str:
        """A hash of all that its outcome depends on: ticks, settings, code and machine."""
        facts = {
            "code": code_digest(),
            "machine": machine(),
            "ticks": sorted(shared.sha256.items()),
            "closes": shared.closes,
            "settings": self.settings.model_dump(mode="json"),
            "windows": [asdict(window) for window in self.windows],
            "period": self.period,
            "year": self.year,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Told:
    """What a run found: the hash of its settings as in a manifest, and each window's figures."""

    settings_hash: str
    outcomes: Sequence[Outcome] = field(default=())


@lru_cache(maxsize=1)
def code_digest() -> str:
    """A hash of the sources that an outcome depends on."""
    found = hashlib.sha256()
    for package in (*_CODE, "schemas"):
        for source in sorted(files(package).iterdir(), key=lambda one: one.name):
            if source.name.endswith(".py"):
                found.update(source.name.encode() + source.read_bytes())
    return found.hexdigest()


def run(trial: Trial, shared: SharedTicks) -> Told:
    """Do a run.

    Raises:
        TickstreamError: the ticks are not there, or the settings cannot be run.
    """
    with _ALONE, own_columns():
        settings_hash = _fingerprint(trial.settings)
        parts: dict[Window, list[Part]] = {
            span: [] for window in trial.windows for span in window.spans
        }
        for partition in sorted(shared.symbols):
            _partition(trial.settings, shared, partition, parts)
        told = [
            outcome(
                {span: parts[span] for span in window.spans},
                trial.settings,
                trial.period,
                trial.year,
            )
            for window in trial.windows
        ]
        return Told(settings_hash, told)


def _fingerprint(settings: ChainSettings) -> str:
    Chain(settings)  # a user's columns join
    return settings.fingerprint()


def _partition(
    settings: ChainSettings, shared: SharedTicks, partition: int, parts: Mapping[Window, list[Part]]
) -> None:
    """Add the rows that a partition has in each window; none of them has a hole."""
    begins = sorted({(_since(window), window.skipped) for window in parts})
    starts = sorted({start for start, _ in begins if start != _FIRST})
    states = _states(settings, shared, partition, starts)
    for start, skipped in begins:
        mine = [window for window in parts if (_since(window), window.skipped) == (start, skipped)]
        chain = Chain(settings, partition)
        if start != _FIRST:
            chain.restore(states[start])
            chain.begin_books(*([Silence(skipped, settings.signals.follow)] if skipped else []))
        for window, rows in _until(chain, mine, start, shared, settings):
            parts[window].extend(rows)


def _since(window: Window) -> int:
    return _FIRST if window.start is None else window.start


def _states(
    settings: ChainSettings, shared: SharedTicks, partition: int, starts: Sequence[int]
) -> dict[int, bytes]:
    """The state of a chain that has seen all ticks before each of these times, ascending."""
    found: dict[int, bytes] = {}
    if not starts:
        return found
    chain = Chain(settings, partition)
    for came, time in _pieces(shared, partition, _FIRST, starts):
        if len(came):
            chain.step(came)
        if time is not None:
            found[time] = chain.snapshot()
        if time == starts[-1]:
            break
    return found


def _until(
    chain: Chain,
    windows: Sequence[Window],
    start: int,
    shared: SharedTicks,
    settings: ChainSettings,
) -> Iterator[tuple[Window, list[Part]]]:
    """The rows from the start to each window's end, where the books end as at that of a file."""
    ends = sorted({window.end for window in windows if window.end is not None})
    rest = [window for window in windows if window.end is None]
    rows: list[Part] = []
    offset = -1
    for came, time in _pieces(shared, chain.partition, start, ends):
        if len(came):
            rows.append(_read(chain.step(came).rows))
            offset = int(came["offset"][-1])
        if time is None:
            continue
        ended = [*rows, *_ending(chain, offset, settings)]
        yield from ((window, ended) for window in windows if window.end == time)
        if time == ends[-1] and not rest:
            return
    if shared.closes:
        rows += _ending(chain, offset, settings)
    yield from ((window, rows) for window in rest)


def _ending(chain: Chain, offset: int, settings: ChainSettings) -> list[Part]:
    """The rows that an end after this offset makes; the chain itself can go on."""
    if offset < 0:
        return []
    copy = Chain(settings, chain.partition)
    copy.restore(chain.snapshot())
    return [_read(copy.finish(offset + 1).rows)]


def _read(rows: Mapping[str, Rows]) -> Part:
    return {stage: rows[stage] for stage in STAGES_READ}


def _pieces(
    shared: SharedTicks, partition: int, start: int, times: Sequence[int]
) -> Iterator[tuple[Arrivals, int | None]]:
    """The ticks from a time on, cut before the first one at or after each of `times`.

    Each piece comes with the time that it ends at, or None. Where the clock falls back, a tick
    counts as late as those before it. A time behind the last tick is reached at the end.
    """
    waiting = sorted(times)
    seen = _FIRST
    nothing: Arrivals | None = None
    for came in shared.blocks(partition):
        reached = _reached(came, seen)
        seen = int(reached[-1])
        low = int(reached.searchsorted(start, "left"))
        nothing = came.slice(0, 0)
        while waiting and seen >= waiting[0]:
            high = int(reached.searchsorted(waiting[0], "left"))
            yield came.slice(low, max(low, high)), waiting.pop(0)
            low = max(low, high)
        if low < len(came):
            yield came.slice(low, len(came)), None
    if nothing is not None:
        for time in waiting:
            yield nothing, time


def _reached(came: Arrivals, seen: int) -> Array:
    """The latest event time up to each tick; one that cannot be read has none."""
    times = np.where(came["fault"] < 0, came["ts"], seen)
    found: Array = np.maximum.accumulate(np.maximum(times, seen))
    return found
