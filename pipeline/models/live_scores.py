"""Scores of the versions that speak, and of shadows, on a live run, as outcomes come.

Each turn takes the rows that were published since the last one. The topics `bars` and `predictions`
carry every row that is stored, some twice after a crash, and have what the tables of an open day
have not: an order by identity. By it each row is taken once. What an outcome adds to the scores and
how far that went are one transaction, so that neither a restart nor a second service counts a row
twice.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import astuple, dataclass
from typing import Final

import numpy as np
import structlog

from pipeline.bus.blocks import fresh_blocks
from pipeline.bus.ranges import Range, ranges_by_time
from pipeline.bus.topics import offset_bounds
from pipeline.clock import monotonic
from pipeline.errors import StateError
from pipeline.models.maturing import SAID, Matured, Maturing, day_scores
from pipeline.models.states import fingerprint, packed, unpacked
from pipeline.models.watching import pairs
from pipeline.settings import Settings
from pipeline.store import scores as store
from pipeline.store.activations import activations
from pipeline.store.live import compress, decompress
from pipeline.store.places import START, Kept, Place
from pipeline.store.pool import Pool
from schemas.blocks import Array, Rows
from schemas.models import Activation

LOG: Final = structlog.get_logger()
TOPICS: Final = ("bars", "predictions")
STATE_VERSION: Final = 1
_MESSAGES: Final = 500  # of each topic that are held at once
_SLACK_MS: Final = 60_000  # that clocks of brokers and of Postgres may differ
_IDENTITY: Final = np.dtype([("offset", "i8"), ("index", "i8")])
_COLUMNS: Final[Mapping[str, Mapping[str, type]]] = {
    "bars": {"life": np.int64, "close": np.float64, "scale": np.float64},
    "predictions": {
        "ts": np.int64,
        "p_gbdt": np.float64,
        "shadow_p": np.float64,
        "p_base_rate": np.float64,
        "gbdt_regime": np.int64,
    },
}
Cut = tuple[int, int] | None  # offset and index


@dataclass(frozen=True, slots=True)
class _Read:
    """Fresh rows of some messages: identities (n,), names of symbols (n,), columns (n,) each."""

    identity: Array
    symbol: Array
    columns: dict[str, Array]
    message: Array  # offset of the message of each
    behind: int  # the next message

    def upto(self, cut: Cut) -> Array:
        """The identities that are not behind a cut."""
        if cut is None:
            return self.identity[:0]
        offset, index = self.identity["offset"], self.identity["index"]
        upto = (offset < cut[0]) | ((offset == cut[0]) & (index <= cut[1]))
        return np.asarray(self.identity[upto])


class Scoring:
    """Scores one live run, a turn whenever asked, in no consumer group.

    Several may: of two at once, one finds that the other has gone on.
    """

    def __init__(self, kafka: str, pool: Pool, settings: Settings) -> None:
        self._kafka = kafka
        self._pool = pool
        self._service = settings.worker.group
        self._horizon = settings.predictions.horizon
        self._fingerprint = fingerprint(settings.chain.fingerprint(), SAID.descr)

    async def turn(self, seconds: float) -> int:
        """Take what was published since the last turn, for about so many seconds; outcomes found.

        Raises:
            UnavailableError: a server does not answer; what was kept before that stays.
            ConflictError: another service was faster.
        """
        begun = await store.partitions(self._pool, self._service)
        if not begun:
            return 0
        ends = {topic: await offset_bounds(self._kafka, topic) for topic in TOPICS}
        found = 0
        deadline = monotonic() + seconds
        for number, at in begun.items():
            if not all(number in edges for edges in ends.values()):
                continue  # of topics that were made anew
            now = await store.kept(self._pool, self._service, number)
            if now.places is None:
                since = int(at.timestamp() * 1000) - _SLACK_MS
                now = Kept(0, await self._start(number, since))
            bounds = {topic: ends[topic][number] for topic in TOPICS}
            places = now.places or {}
            if all(places[topic][0] >= end for topic, (_, end) in bounds.items()):
                continue
            maturing = await self._resumed(number, now)
            moved = True
            while moved:
                now, count, moved = await self._slice(number, bounds, maturing, now)
                found += count
                moved = moved and monotonic() < deadline
        return found

    async def _start(self, number: int, since_ms: int) -> dict[str, Place]:
        """Where rows begin by which a version may have spoken."""
        ranges = {t: await ranges_by_time(self._kafka, t, since_ms, None) for t in TOPICS}
        return {topic: (found[number][0], *START[1:]) for topic, found in ranges.items()}

    async def _slice(
        self, number: int, bounds: dict[str, Range], maturing: Maturing, before: Kept
    ) -> tuple[Kept, int, bool]:
        """Take some messages of both topics; how it stands then, outcomes, and whether it moved."""
        places = dict(before.places or {})
        bars, said = [
            await self._read(topic, number, places[topic], bounds[topic]) for topic in TOPICS
        ]
        cut = _cut(bars, said)
        for topic, read in zip(TOPICS, (bars, said), strict=True):
            places[topic] = _behind(read, places[topic], cut)
        if places == before.places:
            return before, 0, False
        # Asked for behind the rows: whatever speaks in them was planned before.
        planned = await activations(self._pool, self._service, number)
        matured, data = await asyncio.to_thread(self._matured, maturing, bars, said, cut, planned)
        now = Kept(before.generation, places, data)
        scored = [astuple(one) for one in day_scores(matured, planned)]
        watched = [
            (one.model, one.generation, len(one.rows), compress(one.rows.tobytes()))
            for one in pairs(matured, planned)
        ]
        await store.keep(self._pool, self._service, number, now, scored, watched)
        return Kept(before.generation + 1, places, data), len(matured.said), True

    def _matured(
        self,
        maturing: Maturing,
        bars: _Read,
        said: _Read,
        cut: Cut,
        planned: Sequence[Activation],
    ) -> tuple[Matured, bytes]:
        """What matures by the rows that both have up to the cut, and the state behind them."""
        both, of_bars, of_said = np.intersect1d(
            bars.upto(cut), said.upto(cut), assume_unique=True, return_indices=True
        )
        told = {
            **{name: values[of_bars] for name, values in bars.columns.items()},
            **{name: values[of_said] for name, values in said.columns.items()},
        }
        rows = np.empty(len(both), SAID)
        rows["level"] = told["close"] / told["scale"]
        rows["ts"] = told["ts"]
        rows["live"], rows["shadow"], rows["null"] = (
            told[name] for name in ("p_gbdt", "shadow_p", "p_base_rate")
        )
        rows["regime"] = told["gbdt_regime"]
        rows["activation"] = -1
        offset, index = both["offset"], both["index"]
        for place, one in enumerate(planned):
            behind = (offset > one.offset) | ((offset == one.offset) & (index >= one.index))
            rows["activation"][behind] = place
        matured = maturing.step(bars.symbol[of_bars], told["life"], rows)
        state = packed(STATE_VERSION, self._fingerprint, maturing.snapshot())
        return matured, compress(state)

    async def _read(self, topic: str, number: int, place: Place, bounds: Range) -> _Read:
        """The next messages of a topic that are there, and what is fresh in them."""
        offset, *mark = place
        begin = max(offset, bounds[0])
        end = min(begin + _MESSAGES, bounds[1])
        parts: list[tuple[int, Rows]] = []
        if begin < end:
            blocks = fresh_blocks(self._kafka, topic, number, (begin, mark[0], mark[1]), end)
            async with aclosing(blocks) as found:
                async for rows, (behind, *_) in found:
                    if rows is None:
                        LOG.warning("rows_unreadable", topic=topic, offset=behind - 1)
                    elif len(rows):
                        parts.append((behind - 1, rows))
        return _joined(topic, parts, max(begin, end))

    async def _resumed(self, number: int, before: Kept) -> Maturing:
        """The bars that wait as they were kept; where that is of no use, none, and it is told."""
        maturing = Maturing(number, self._horizon)
        if before.data is not None:
            try:
                data = await asyncio.to_thread(decompress, before.data)
                maturing.restore(unpacked(STATE_VERSION, self._fingerprint, data))
            except StateError as error:
                LOG.warning("outcomes_made_anew", partition=number, error=str(error))
        return maturing


def _joined(topic: str, parts: Sequence[tuple[int, Rows]], behind: int) -> _Read:
    """Rows of several messages, each with its offset, as one."""
    count = [len(rows) for _, rows in parts]
    identity = np.empty(sum(count), _IDENTITY)
    for name in ("offset", "index"):
        identity[name] = _column(parts, name, np.int64)
    names = [np.array(rows.symbols, object)[rows["symbol"]] for _, rows in parts]
    return _Read(
        identity,
        np.concatenate([np.empty(0, object), *names]),
        {name: _column(parts, name, dtype) for name, dtype in _COLUMNS[topic].items()},
        np.repeat([offset for offset, _ in parts], count),
        behind,
    )


def _column(parts: Sequence[tuple[int, Rows]], name: str, dtype: type) -> Array:
    return np.concatenate([np.empty(0, dtype), *(rows[name] for _, rows in parts)])


def _cut(bars: _Read, said: _Read) -> Cut:
    """The last row up to which both were read; None where one has no row."""
    if not len(bars.identity) or not len(said.identity):
        return None
    first, second = (
        (int(one.identity["offset"][-1]), int(one.identity["index"][-1])) for one in (bars, said)
    )
    return min(first, second)


def _behind(read: _Read, place: Place, cut: Cut) -> Place:
    """Where to go on: what lies behind the cut is read again."""
    if cut is None:
        return place if len(read.identity) else (read.behind, *place[1:])
    taken = len(read.upto(cut))
    return (read.behind if taken == len(read.identity) else int(read.message[taken]), *cut)
