"""The live table of `demo` and `up`: rows per stage, rate, lag and the latest signals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Group, RenderableType
from rich.table import Table

from pipeline.bus.topics import offset_bounds
from pipeline.cli.stack import Stack
from pipeline.clock import monotonic
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


class Watcher:
    """Looks at the stores now and then."""

    def __init__(self, stack: Stack, pool: Pool) -> None:
        self._stack = stack
        self._pool = pool

    async def look(self) -> Figures:
        """Count rows, messages not yet stored, and fetch the latest signals."""
        bounds = await offset_bounds(self._stack.addresses.kafka, PRICES)
        stored = await self._pool.fetch(statement("progress"), self._stack.settings.worker.group)
        marks = {row["partition"]: row["mark"] for row in stored}
        lag = sum(
            max(0, high - max(low, marks.get(partition, -1) + 1))
            for partition, (low, high) in bounds.items()
        )
        rows = {stage: await reads.count(self._pool, stage) for stage in STAGES}
        rejected = await self._pool.fetchval(statement("count_rejected"))
        signals = await self._pool.fetch(statement("recent_signals"), _RECENT)
        messages = sum(high - low for low, high in bounds.values())
        found = [reads.document(row) for row in signals]
        return Figures(monotonic(), rows, rejected, lag, messages, found)


@dataclass(frozen=True, slots=True)
class Trend:
    """Two looks, for a rate."""

    before: Figures
    now: Figures

    def rate(self) -> float:
        """Ticks stored a second between the two."""
        seconds = self.now.at - self.before.at
        return (self.now.rows["ticks"] - self.before.rows["ticks"]) / seconds if seconds > 0 else 0

    def then(self, figures: Figures) -> Self:
        """The next pair."""
        return type(self)(self.now, figures)

    def line(self) -> str:
        """For a log."""
        rows = ", ".join(f"{stage} {count:,}" for stage, count in self.now.rows.items())
        return f"{rows}; {self.rate():,.0f} ticks/s, lag {self.now.lag:,} messages"

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
