"""Parity again and again beside a live run: each turn compares what was stored since the last one.

How far the checks came, and the state of their replay there, are kept in Postgres like those of a
worker, under a service of their own. So a turn replays only what is new, from a state that no
worker made, also after a restart.
"""

from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Final

from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.bus.ranges import Range
from pipeline.clock import monotonic, today
from pipeline.errors import FencedError, StateError, UncheckedError
from pipeline.models.activations import plan_stored
from pipeline.replay.differences import Difference
from pipeline.replay.messages import from_broker
from pipeline.replay.parity import (
    Comparison,
    checker_of,
    first_kept,
    first_offsets,
    pieces,
    restored,
    still_there,
    stored_marks,
)
from pipeline.settings import Settings
from pipeline.stages.chain import Chain
from pipeline.store.live import Claim, LiveStore, PartitionBatch, compress
from pipeline.store.pool import Pool
from pipeline.store.statements import statement
from pipeline.store.stretches import RecentRows
from schemas.alerts import parity_document
from schemas.blocks import STAGES
from schemas.codec import json_bytes
from schemas.topics import ALERTS

_BLOCK: Final = 8_192  # ticks: it runs in a process that has other things to do


@dataclass(slots=True)
class Turn:
    """What one turn did: offsets compared by partition, rows by stage, what it found and mended."""

    ranges: dict[int, Range] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    differences: list[Difference] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    remade: list[str] = field(default_factory=list)
    behind: int = 0  # messages stored but left to the next turn

    @property
    def alerts(self) -> int:
        """How many differences."""
        return len(self.differences)

    @property
    def state(self) -> str:
        """`differs`, `not checked` or `equal`."""
        if self.differences:
            return "differs"
        return "not checked" if self.unchecked else "equal"

    def lines(self) -> list[str]:
        """For a log; none when there was nothing new."""
        found = [f"ALERT: live and replay differ: {one}" for one in self.differences]
        found += [f"not checked: {why}" for why in self.unchecked]
        found += [f"made anew: the kept state of {why}" for why in self.remade]
        if self.state == "equal" and self.ranges:
            places = ", ".join(f"{p}:{low}-{high}" for p, (low, high) in self.ranges.items())
            left = f"; {self.behind:,} messages left" if self.behind else ""
            found.append(f"bit-equal: {sum(self.rows.values()):,} rows of offsets {places}{left}")
        return found


class Checker:
    """Checks one live run, a turn whenever asked, in no consumer group.

    Several may look at the same run: of two at once, one finds that the other has taken over.
    """

    def __init__(self, kafka: str, pool: Pool, settings: Settings) -> None:
        self._kafka = kafka
        self._pool = pool
        self._settings = settings
        fingerprint = settings.chain.fingerprint()
        self._store = LiveStore(pool, checker_of(settings), fingerprint)

    async def turn(self, seconds: float) -> Turn:
        """Compare what was stored since the last turn, for about so many seconds.

        A difference is on the topic `alerts` before its offsets count as compared; what follows it
        is compared by the next turn. What cannot be compared is told and tried again.

        Raises:
            MisuseError: the run has other settings.
            UnavailableError: a server does not answer.
        """
        turn = Turn()
        marks = await stored_marks(self._pool, self._settings)
        begins = await first_offsets(self._kafka)
        recent = await self._recent()
        share = seconds / max(1, len(marks))
        for partition, mark in sorted(marks.items()):
            try:
                kept = (
                    0
                    if partition in recent
                    else await first_kept(self._pool, self._settings, partition)
                )
                await self._partition(
                    turn, partition, begins[partition], kept, mark, monotonic() + share
                )
            except (UncheckedError, StateError, FencedError) as error:
                turn.unchecked.append(str(error))
        return turn

    async def _partition(
        self, turn: Turn, partition: int, first: int, kept: int, mark: int, deadline: float
    ) -> None:
        """One partition: the topic begins at `first`, what is stored of it at `kept`."""
        claim = await self._store.claim(partition)
        if mark <= claim.mark:
            return
        chain = Chain(self._settings.chain, partition)
        start = await self._resume(turn, chain, claim, first, mark)
        await plan_stored(self._pool, self._settings.worker.group, chain)
        low = max(start, kept, claim.mark + 1)
        if low > claim.mark + 1:
            turn.unchecked.append(
                f"partition {partition}: retention has deleted messages or rows before they were "
                f"compared; going on from offset {low}"
            )
        comparison = Comparison(RecentRows(self._pool, partition), low, turn.rows)
        end = start
        replay = pieces(from_broker(self._kafka), chain, (start, mark + 1), _BLOCK)
        async with aclosing(replay) as found:
            async for piece in found:
                await comparison.add(piece)
                end = piece.upto[0] + 1 if piece.whole else end
                if piece.whole and end > start and monotonic() > deadline:
                    break
        if comparison.difference is not None:
            await still_there(self._kafka, comparison.difference)
            await self._alert(comparison.difference)
            turn.differences.append(comparison.difference)
        await self._keep(claim, chain, end - 1)
        if end > low:
            turn.ranges[partition] = (low, end)
        turn.behind += mark + 1 - end

    async def _recent(self) -> set[int]:
        """Partitions of which no row was dropped since they were compared last."""
        days = self._settings.store.retention_days or 0
        rows = await self._pool.fetch(statement("progress"), checker_of(self._settings))
        first = today() - timedelta(days=days)
        return {row["partition"] for row in rows if row["moved_at"].date() >= first}

    async def _resume(self, turn: Turn, chain: Chain, claim: Claim, first: int, mark: int) -> int:
        """Give the chain a state to go on from; the first offset that it has not seen."""
        if claim.snapshot is not None and claim.snapshot_offset + 1 >= first:
            try:
                chain.restore(claim.snapshot)
            except StateError as error:
                turn.remade.append(f"partition {claim.partition}: {error}")
                await self._store.forget_snapshots(claim.partition)
            else:
                return claim.snapshot_offset + 1
        if first == 0:
            return 0
        return await restored(chain, self._pool, self._settings, first, mark + 1)

    async def _alert(self, difference: Difference) -> None:
        value = json_bytes(parity_document(**asdict(difference)))
        async with Publisher(self._kafka) as publisher:
            await publisher.deliver([Outgoing(ALERTS, value, difference.symbol.encode())])

    async def _keep(self, claim: Claim, chain: Chain, offset: int) -> None:
        """The state first: without its state a mark could not be gone on from."""
        await self._store.save_snapshot(
            claim.partition, claim.epoch, offset, compress(chain.snapshot())
        )
        done = PartitionBatch(claim.partition, claim.epoch, offset, {}, (), (), ())
        await self._store.commit([done])
