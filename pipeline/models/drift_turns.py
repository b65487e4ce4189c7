"""Drift beside a live run: each turn watches what was published since the last one.

The topics `features` and `predictions` carry every row that is stored, some of them twice after a
crash; by their identity each is looked at once. How far a turn came, the state of the detectors
there and the alarms up to there are one transaction, so that a restart neither forgets nor finds a
change twice. What Kafka's retention has deleted was not looked at, which ends nothing.
"""

import asyncio
from collections import Counter
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Final

from pipeline.bus.blocks import fresh_blocks
from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.bus.ranges import Range
from pipeline.bus.topics import offset_bounds
from pipeline.clock import monotonic
from pipeline.errors import ConflictError, StateError, UnavailableError
from pipeline.models.drift import DriftAlarm
from pipeline.models.drift_state import Detectors
from pipeline.settings import Settings
from pipeline.store import drift as store
from pipeline.store.live import compress, decompress
from pipeline.store.places import START, Kept
from pipeline.store.pool import Pool
from schemas.alerts import drift_document
from schemas.codec import json_bytes
from schemas.times import format_rfc3339
from schemas.topics import ALERTS

TOPICS: Final = ("features", "predictions")
_AT_ONCE: Final = 1000  # alerts


@dataclass(slots=True)
class DriftTurn:
    """What one turn did: rows by stage, alarms, and what could not be looked at."""

    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOPICS, 0))
    alarms: list[DriftAlarm] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)  # messages, by where they are
    remade: list[str] = field(default_factory=list)
    behind: int = 0  # messages left to the next turn

    @property
    def alerts(self) -> int:
        """How many alarms."""
        return len(self.alarms)

    @property
    def state(self) -> str:
        """`drifted`, `not checked` or `steady`."""
        if self.alarms:
            return "drifted"
        return "not checked" if self.unchecked or self.unread else "steady"

    def lines(self) -> list[str]:
        """For a log; none when there was nothing new."""
        found = [
            f"ALERT: {one.kind} {one.name} of {one.symbol} is {one.change} since "
            f"{format_rfc3339(one.since)}"
            for one in self.alarms
        ]
        found += [f"not checked: {why}" for why in self.unchecked]
        found += [
            f"not checked: {n:,} messages of {at}: no blocks" for at, n in self.unread.items()
        ]
        found += [f"made anew: the kept state of {why}" for why in self.remade]
        if self.state == "steady" and any(self.rows.values()):
            left = f"; {self.behind:,} messages left" if self.behind else ""
            told = ", ".join(f"{count:,} rows of {stage}" for stage, count in self.rows.items())
            found.append(f"steady: {told}{left}")
        return found


class Watch:
    """Watches one live run, a turn whenever asked, in no consumer group.

    Several may: of two at once, one finds that the other has gone on.
    """

    def __init__(self, kafka: str, pool: Pool, settings: Settings) -> None:
        self._kafka = kafka
        self._pool = pool
        self._service = settings.worker.group
        self._chain = settings.chain.fingerprint()
        self._symbols = settings.drift.symbols

    async def turn(self, seconds: float) -> DriftTurn:
        """Look at what was published since the last turn, for about so many seconds.

        Raises:
            UnavailableError: a server does not answer; what was kept before that stays.
        """
        turn = DriftTurn()
        ends = {topic: await offset_bounds(self._kafka, topic) for topic in TOPICS}
        partitions = sorted(set.intersection(*(set(bounds) for bounds in ends.values())))
        share = seconds / max(1, len(partitions) * len(TOPICS))
        for number in partitions:
            bounds = {topic: ends[topic][number] for topic in TOPICS}
            try:
                await self._partition(turn, number, bounds, share)
            except ConflictError as error:
                turn.unchecked.append(str(error))
        try:
            await announce(self._pool, self._kafka)
        except UnavailableError as error:
            turn.unchecked.append(f"alerts wait for the next turn: {error}")
        return turn

    async def _partition(
        self, turn: DriftTurn, number: int, bounds: dict[str, Range], share: float
    ) -> None:
        before = await store.kept(self._pool, self._service, number)
        places = dict(before.places or {})
        if all(places.get(topic, START)[0] >= end for topic, (_, end) in bounds.items()):
            return
        detectors = await self._resumed(turn, number, before)
        alarms: list[DriftAlarm] = []
        rows = dict.fromkeys(TOPICS, 0)
        behind = 0
        for topic, (_, end) in bounds.items():
            last = places.get(topic, START)
            deadline = monotonic() + share
            async with aclosing(fresh_blocks(self._kafka, topic, number, last, end)) as found:
                async for part, behind_it in found:
                    last = behind_it
                    if part is None:
                        turn.unread[f"{topic}, partition {number}"] += 1
                    elif len(part):
                        alarms += await asyncio.to_thread(detectors.step, part)
                        rows[topic] += len(part)
                    if monotonic() > deadline:
                        break
                else:
                    last = (end, *last[1:])  # also past what is no record
            places[topic] = last
            behind += end - last[0]
        data = await asyncio.to_thread(lambda: compress(detectors.snapshot()))
        now = Kept(before.generation, places, data)
        told = [[asdict(one) for one in some] for some in (alarms, detectors.rows())]
        await store.keep(self._pool, self._service, number, now, *told)
        turn.alarms += alarms
        turn.behind += behind
        for topic, count in rows.items():
            turn.rows[topic] += count

    async def _resumed(self, turn: DriftTurn, number: int, before: Kept) -> Detectors:
        """The detectors as they were kept; what is of no use is told, and begun anew."""
        detectors = Detectors(self._chain, self._symbols)
        if before.data is not None:
            data = await asyncio.to_thread(decompress, before.data)
            try:
                await asyncio.to_thread(detectors.restore, data)
            except StateError as error:
                turn.remade.append(f"partition {number}: {error}")
                return Detectors(self._chain, self._symbols)
        return detectors


async def announce(pool: Pool, kafka: str) -> int:
    """Tell the topic `alerts` of alarms that it was not told of, in their order; how many.

    Who is killed between the telling and its note tells it again, with the same coordinates.

    Raises:
        UnavailableError: a server does not answer; what it was about is told the next time.
    """
    told = 0
    while True:
        async with pool.acquire() as connection, connection.transaction():
            rows = await store.unannounced(connection, _AT_ONCE)  # locked: nobody else tells them
            if not rows:
                return told
            ids = [row.pop("id") for row in rows]
            async with Publisher(kafka) as publisher:
                await publisher.deliver(
                    Outgoing(ALERTS, json_bytes(drift_document(**row)), row["symbol"].encode())
                    for row in rows
                )
            await store.set_announced(connection, ids)
            told += len(ids)
