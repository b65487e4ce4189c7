"""Many runs over one input: it is read once, and each run done once, whoever does it and when."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from pipeline.errors import MisuseError
from pipeline.replay.executors import Places, run_all
from pipeline.replay.grid import Parameters
from pipeline.replay.kept_trials import KEPT, TICKS, KeptTrials, unfinished
from pipeline.replay.output import machine
from pipeline.replay.shared_ticks import SharedTicks, TicksWriter
from pipeline.replay.sharing import Shared
from pipeline.replay.trial import Told, Trial, code_digest
from pipeline.stages.chain import ChainSettings
from pipeline.stages.equity import parse_period
from schemas.blocks import Array

RUNS: Final = "runs.parquet"
REPORT: Final = "report.html"

Open = Callable[[SharedTicks], AbstractContextManager[Places]]
Progress = Callable[[int, float | None], None]


@dataclass(frozen=True, slots=True)
class Variant:
    """One set of parameters, and the settings that they make."""

    parameters: Parameters
    settings: ChainSettings


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for.

    Attributes:
        variants: the runs.
        period: of the returns, ns.
        year: periods of a year; None: told from the input.
        facts: what the manifest says of the choice of runs.
    """

    variants: Sequence[Variant]
    period: int
    year: float | None
    facts: Mapping[str, Any]


class Experiment:
    """An input that is shared, and the runs over it; `done` of them now and `kept` from before."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        earlier: Path,
        shared: Shared,
        periods: Array,
        places: Open,
        stack: ExitStack,
        told: Progress,
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.ticks, self.inputs = shared
        self.periods = periods  # their ends, where a tick came
        self.year = self.ticks.periods_per_year if plan.year is None else plan.year
        self.done = 0
        self.kept = 0
        self.keys: list[str] = []
        self._known = KeptTrials(folder / KEPT, earlier)
        self._places = places
        self._stack = stack
        self._open: Places | None = None
        self._told = told

    def trials(self, windows: Mapping[int, Any]) -> list[Trial]:
        """Runs of variants by their place, each over its windows."""
        return [
            Trial(self.plan.variants[place].settings, tuple(some), self.plan.period, self.year)
            for place, some in windows.items()
        ]

    def outcomes(self, trials: Sequence[Trial]) -> list[Told]:
        """What each run found, those that are kept without doing them again.

        Raises:
            TickstreamError: a run failed, or could not be kept.
        """
        keys = [trial.key(self.ticks) for trial in trials]
        self.keys += keys
        found = {key: known for key in keys if (known := self._known.get(key)) is not None}
        missing = {key: t for key, t in zip(keys, trials, strict=True) if key not in found}
        self.kept += len(found)
        count = 0

        def tell(key: str, told: Told) -> None:
            nonlocal count
            found[key] = told
            count += 1
            self._told(count, count / len(missing))

        if missing:
            run_all(self._opened(), missing, self._known, tell)
        self.done += count
        return [found[key] for key in keys]

    def _opened(self) -> Places:
        """Where runs are done, from the first one on."""
        if self._open is None:
            self._open = self._stack.enter_context(self._places(self.ticks))
        return self._open

    def clean(self) -> None:
        """Keep the outcomes of these runs only."""
        self._known.only(self.keys)

    def manifest(self, sums: Mapping[str, str]) -> dict[str, Any]:
        """What was run, for the output; the same whoever ran it and when."""
        return {
            "tickstream": version("tickstream"),
            "code": code_digest(),
            **self.plan.facts,
            "period_ns": self.plan.period,
            "periods_per_year": self.year,
            "inputs": self.inputs,
            "runs": len(self.plan.variants),
            "sha256": dict(sums),
            "machine": machine(),
        }


@contextmanager
def experiment(
    out: Path, plan: Plan, read: Callable[[TicksWriter], Shared], places: Open, told: Progress
) -> Iterator[Experiment]:
    """Read the input, and have a folder where the output grows.

    Raises:
        MisuseError: the output is something else already, the input cannot be read, or a clock of
            the books does not fit into that of the returns.
    """
    for variant in plan.variants:
        beat = parse_period(variant.settings.equity.period)
        if plan.period % beat:
            raise MisuseError(
                f"equity.period {variant.settings.equity.period} does not divide --period: "
                "returns are told at beats of the books"
            )
    with unfinished(out) as folder:
        with TicksWriter(folder / TICKS, plan.period) as writer:
            shared = read(writer)
        earlier = out.resolve() / KEPT
        with ExitStack() as stack:
            yield Experiment(plan, folder, earlier, shared, writer.periods, places, stack, told)
