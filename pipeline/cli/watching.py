"""The live table of `demo` and `up`: rows per stage, rate, lag and the latest signals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Group, RenderableType
from rich.table import Table

from pipeline.bus.topics import offset_bounds
from pipeline.cli.stack import Stack
from pipeline.clock import monotonic
from pipeline.servers.watchdog import Observation
from pipeline.store import reads
from pipeline.store.pool import Pool
from pipeline.store.statements import statement
from schemas.blocks import STAGES
from schemas.topics import PRICES

_RECENT = 5


@dataclass(frozen=True, slots=True)
class Figures:
    """A look at the running pipeline."""

    at: float
    rows: Mapping[str, int]
    rejected: int
    lag: int
    messages: int
    signals: Sequence[Mapping[str, Any]]


async def observe(kafka: str, pool: Pool, group: str) -> Observation:
    """What is in the topic and what is stored of it.

    Raises:
        UnavailableError: a server does not answer.
    """
    bounds = await offset_bounds(kafka, PRICES)
    stored = await pool.fetch(statement("progress"), group)
    return Observation(
        monotonic(),
        bounds,
        {row["partition"]: row["mark"] for row in stored},
        {row["partition"]: row["epoch"] for row in stored},
    )


class Watcher:
    """Looks at the stores now and then."""

    def __init__(self, stack: Stack, pool: Pool) -> None:
        self._stack = stack
        self._pool = pool

    async def look(self) -> Figures:
        """Count rows, messages not yet stored, and fetch the latest signals."""
        stack = self._stack
        seen = await observe(stack.addresses.kafka, self._pool, stack.settings.worker.group)
        lag = sum(seen.lags().values())
        rows = {stage: await reads.count(self._pool, stage) for stage in STAGES}
        rejected = await self._pool.fetchval(statement("count_rejected"))
        signals = await self._pool.fetch(statement("recent_signals"), _RECENT)
        messages = sum(high - low for low, high in seen.bounds.values())
        found = [reads.document(row) for row in signals]
        return Figures(monotonic(), rows, rejected, lag, messages, found)


@dataclass(frozen=True, slots=True)
class Trend:
    """Two looks, for a rate."""

    before: Figures
    now: Figures

    def rate(self, stages: Sequence[str] = ("ticks",)) -> float:
        """Rows of these stages stored a second between the two; none while retention drops some."""
        seconds = self.now.at - self.before.at
        more = sum(self.now.rows[stage] - self.before.rows[stage] for stage in stages)
        return max(0, more) / seconds if seconds > 0 else 0

    def then(self, figures: Figures) -> Self:
        """The next pair."""
        return type(self)(self.now, figures)

    def line(self) -> str:
        """For a log."""
        rows = ", ".join(f"{stage} {count:,}" for stage, count in self.now.rows.items())
        rates = f"{self.rate():,.0f} ticks/s, {self.rate(STAGES):,.0f} rows/s"
        return f"{rows}; {rates}, lag {self.now.lag:,} messages"

    def picture(self, addresses: Sequence[str]) -> RenderableType:
        """For a terminal."""
        table = Table(title="rows in Postgres", title_justify="left")
        for stage in (*self.now.rows, "rejected", "ticks/s", "lag"):
            table.add_column(stage, justify="right")
        counts = [f"{count:,}" for count in self.now.rows.values()]
        table.add_row(*counts, f"{self.now.rejected:,}", f"{self.rate():,.0f}", f"{self.now.lag:,}")
        signals = Table(title="latest signals", title_justify="left")
        for name in ("time", "symbol", "action", "price", "edge bp", "confidence", "p up"):
            signals.add_column(name, justify="left" if name in {"time", "symbol"} else "right")
        for row in self.now.signals:
            signals.add_row(
                row["time"][:23],
                row["symbol"],
                row["action"],
                f"{row['price']:,.2f}",
                f"{row['edge_bp']:.2f}",
                f"{row['confidence']:.2f}",
                f"{row['p_up']:.3f}",
            )
        return Group("\n".join(addresses), table, signals)
