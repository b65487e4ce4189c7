"""Whether a worker that is alive also gets on: decided from looks at the topic and the marks."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

# A worker compiles, joins its group and catches up before the first mark of its life moves.
_TO_START: Final = 30.0
# After each restart that brought nothing, more time: perhaps the catch-up was cut short.
_MORE_TIME: Final = 4
# Where more passes between two looks, we were held up ourselves, and so may the worker have been.
_STEP: Final = 15.0


@dataclass(frozen=True, slots=True)
class Observation:
    """A look at one moment: the bounds of the topic and what is stored of it, by partition."""

    at: float  # monotonic seconds
    bounds: Mapping[int, tuple[int, int]]  # first offset and one past the last
    marks: Mapping[int, int]
    epochs: Mapping[int, int]  # a raised one is a sign of life: the partition was claimed

    def lag(self, partition: int) -> int:
        """Messages of a partition that are there and not stored."""
        low, high = self.bounds[partition]
        return max(0, high - max(low, self.marks.get(partition, -1) + 1))

    def lags(self) -> dict[int, int]:
        """The partitions that have lag, with it."""
        found = {partition: self.lag(partition) for partition in self.bounds}
        return {partition: lag for partition, lag in found.items() if lag}

    def only(self, partitions: Collection[int]) -> "Observation":
        """The part that concerns one worker."""
        bounds = {p: edges for p, edges in self.bounds.items() if p in partitions}
        return replace(self, bounds=bounds)

    def beyond(self, empty: Mapping[int, int]) -> "Observation":
        """Without what is known to hold no message, up to an offset by partition."""
        bounds = {
            p: (max(low, empty.get(p, low)), high) if empty.get(p, low) <= high else (low, high)
            for p, (low, high) in self.bounds.items()
        }
        return replace(self, bounds=bounds)

    def sign(self, partition: int) -> tuple[int, int]:
        """What changes when somebody works on a partition."""
        return self.marks.get(partition, -1), self.epochs.get(partition, 0)


@dataclass(frozen=True, slots=True)
class Stuck:
    """Why a worker is to be restarted."""

    partition: int
    lag: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"is stuck: partition {self.partition} has a lag of {self.lag:,} messages "
            f"and no progress for {self.seconds:.0f} s"
        )


@dataclass(frozen=True, slots=True)
class Watch:
    """What is remembered of one process between two looks; a restart begins a new one."""

    before: Observation | None = None  # the last look that succeeded
    broken: bool = False  # a look failed after it
    idle: float = 0.0  # seconds with lag, answering servers and no progress
    worked: bool = False  # whether a mark has moved in its life
    failures: int = 0  # restarts in a row of which none got to work

    def patience(self, seconds: float) -> float:
        """Seconds of standing still after which it counts as stuck."""
        if self.worked:
            return seconds
        return max(seconds, _TO_START) * min(1 << self.failures, _MORE_TIME)


def look(watch: Watch, seen: Observation | None) -> Watch:
    """The next look, None where a server did not answer: the timer does not run over that."""
    if seen is None:
        return replace(watch, broken=True)
    before, after = watch.before, replace(watch, before=seen, broken=False)
    if before is None:
        return after
    moved = {p for p in seen.bounds if seen.sign(p) != before.sign(p)}
    if any(seen.marks.get(p, -1) > before.marks.get(p, -1) for p in moved):
        after = replace(after, worked=True, failures=0)
    lagging = seen.lags()
    waiting = [p for p in before.lags() if p in lagging and p not in moved]
    if moved.intersection(lagging) or not waiting:
        return replace(after, idle=0.0)
    passed = 0.0 if watch.broken else min(seen.at - before.at, _STEP)
    return replace(after, idle=watch.idle + passed)


def verdict(watch: Watch, seconds: float) -> Stuck | None:
    """What is wrong, None for a healthy worker; `seconds` is the setting, 0 for never."""
    if not seconds or watch.idle < watch.patience(seconds):
        return None
    if watch.before is None or watch.broken:  # no server away at this moment
        return None
    lags = watch.before.lags()
    partition = max(lags, key=lambda p: lags[p])
    return Stuck(partition, lags[partition], watch.idle)


def restarted(watch: Watch, *, stuck: bool) -> Watch:
    """For its new process; after one that was stuck without having worked, with more patience."""
    return Watch(failures=watch.failures + int(stuck and not watch.worked))


def state(watch: Watch, *, alive: bool) -> str:
    """The readiness of a worker in a word or two."""
    if not alive:
        return "down"
    if watch.idle:
        return f"no progress for {watch.idle:.0f} s"
    return "ready" if watch.worked or (watch.before and not watch.before.lags()) else "starting"
