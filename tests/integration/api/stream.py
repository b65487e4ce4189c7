"""A stream of rows like a worker's, and clients that hold each answer against what was written."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from websockets.exceptions import ConnectionClosed

from agents.caching import CacheKeeper
from agents.retries import FAILURES
from pipeline.cache.latest import open_cache
from pipeline.settings import Settings
from pipeline.store.live import LiveStore, PartitionBatch
from pipeline.store.pool import open_pool
from pipeline.waiting import ended
from tests.integration.api.conftest import make_rows
from tests.integration.api.test_process import subscribed

SYMBOLS: Final = ("A", "B", "C")
STAGES: Final = ("ticks", "bars", "signals")
PACE: Final = 0.01  # seconds between batches
LATEST: Final = """{ symbols(names: ["A", "B", "C"]) { name
  price { symbol offset price } bar { symbol offset close } signal { symbol offset pUp } } }"""
HISTORY: Final = """{ prices(symbol: "B", last: 5) { edges { node { symbol offset price } } } }"""


@dataclass
class Stream:
    """Commits a row of every stage and symbol again and again, and caches what it committed.

    A row of offset n carries n + 0.5 in every float column.
    """

    settings: Settings
    begun: int = -1
    """Offset of the last batch that may be stored."""
    committed: int = -1
    """Offset of the last one that is."""
    _stopped: bool = False
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """It writes for the length of a block, or until `end`."""
        writing = asyncio.create_task(self._run())
        try:
            yield
            await self.end()
        finally:
            await ended(writing)

    async def end(self) -> None:
        """Write the batch under way, and no more."""
        self._stopped = True
        await self._ended.wait()

    async def _run(self) -> None:
        """A server that is away is waited for, as a worker waits."""
        assert self.settings.postgres is not None
        assert self.settings.redis is not None
        pool = await open_pool(self.settings.postgres, self.settings.store)
        store = LiveStore(pool, "stream", "fingerprint")
        cache = open_cache(self.settings.redis, self.settings.cache)
        keeper = CacheKeeper(cache, store, "stream")
        keeping = asyncio.create_task(keeper.run(lambda: SYMBOLS))
        try:
            epoch = (await store.claim(0)).epoch
            while not self._stopped:
                await self._write(store, keeper, epoch)
                await asyncio.sleep(PACE)
            await keeper.flush()
        finally:
            self._ended.set()
            await ended(keeping)
            await cache.close()
            await pool.close()

    async def _write(self, store: LiveStore, keeper: CacheKeeper, epoch: int) -> None:
        self.begun += 1
        batches = [
            PartitionBatch(
                0,
                epoch,
                self.begun * len(SYMBOLS) + place,
                {stage: make_rows(stage, symbol, 1, self.begun) for stage in STAGES},
                [],
                [symbol] if self.begun == 0 else [],
                [],
            )
            for place, symbol in enumerate(SYMBOLS)
        ]
        while True:
            try:
                await store.commit(batches)
            except FAILURES:
                await asyncio.sleep(PACE)
            else:
                self.committed = self.begun
                keeper.remember(batches)
                return


@dataclass
class Verdict:
    """What clients met."""

    faults: list[str] = field(default_factory=list)
    """Answers that are wrong whatever is away."""
    unavailable: set[str] = field(default_factory=set)
    """Messages of errors that told that a server is away."""
    without_cache: int = 0
    """Answers that told that the cache is away."""
    answers: int = 0
    """Answers with all data."""

    def judge(
        self, stream: Stream, before: int, seen: dict[str, int], status: int, text: bytes
    ) -> None:
        """Hold an answer against what was written; `before` was committed before it was asked.

        `seen` are the offsets that the client has got so far.
        """
        answer = json.loads(text)
        codes = {error["extensions"]["code"] for error in answer.get("errors", ())}
        if status != 200 or codes - {"UNAVAILABLE"}:
            self.faults.append(f"{status}: {text[:500]!r}")
            return
        self.unavailable |= {error["message"] for error in answer.get("errors", ())}
        self.without_cache += answer.get("extensions") == {"cache": "unavailable"}
        rows = list(rows_of(answer.get("data")))
        self.answers += not codes
        for row in rows:
            value = row.get("price", row.get("close", row.get("pUp")))
            offset = int(row["offset"])
            if value != offset + 0.5 or offset > stream.begun or row["symbol"] != row["of"]:
                self.faults.append(f"wrong value: {row}")
            # Postgres shows what is committed at once; what the cache holds may follow.
            if row["fresh"] and offset < before:
                self.faults.append(f"old value: {row}, {before} was committed before")
            if offset < seen.get(row["what"], -1):
                self.faults.append(f"went back: {row}, {seen[row['what']]} was shown before")
            seen[row["what"]] = offset


def rows_of(data: dict[str, Any] | None) -> list[dict[str, Any]]:
    """All rows of an answer, with the symbol that each was asked for."""
    if data is None:
        return []
    if "prices" in data:
        nodes = [edge["node"] for edge in data["prices"]["edges"]]
        # The last of a page is the newest there is.
        return [
            {**node, "of": "B", "fresh": place == len(nodes), "what": f"history {place}"}
            for place, node in enumerate(nodes, 1)
        ]
    return [
        {**symbol[name], "of": symbol["name"], "fresh": False, "what": symbol["name"] + name}
        for symbol in data["symbols"]
        for name in ("price", "bar", "signal")
        if symbol[name] is not None
    ]


@dataclass
class Load:
    """Clients that ask all the time, and one that listens."""

    host: str
    stream: Stream
    verdict: Verdict = field(default_factory=Verdict)
    heard: int = -1
    """Offset of the last signal that was pushed."""

    @asynccontextmanager
    async def running(self, clients: int = 4) -> AsyncIterator[None]:
        """For the length of a block."""
        tasks = [asyncio.create_task(self._ask()) for _ in range(clients)]
        tasks.append(asyncio.create_task(self._listen()))
        try:
            yield
        finally:
            await ended(*tasks)
            self.verdict.faults += [repr(one.exception()) for one in tasks if not one.cancelled()]

    async def _ask(self) -> None:
        async with httpx.AsyncClient(base_url=f"http://{self.host}", timeout=60) as client:
            seen: dict[str, int] = {}
            while True:
                for query in (LATEST, HISTORY):
                    before = self.stream.committed
                    answer = await client.post("/graphql", json={"query": query})
                    self.verdict.judge(
                        self.stream, before, seen, answer.status_code, answer.content
                    )
                    await asyncio.sleep(PACE)

    async def _listen(self) -> None:
        try:
            async with subscribed(self.host, "C") as websocket:
                async for text in websocket:
                    row = json.loads(text)["payload"]["data"]["signals"]
                    offset = int(row["offset"])
                    if row["symbol"] != "C" or row["pUp"] != offset + 0.5:
                        self.verdict.faults.append(f"wrong signal: {row}")
                    if not self.heard < offset <= self.stream.begun:
                        self.verdict.faults.append(f"signal {offset} after {self.heard}")
                    self.heard = offset
        except ConnectionClosed as error:
            self.verdict.faults.append(f"the socket was closed: {error}")
