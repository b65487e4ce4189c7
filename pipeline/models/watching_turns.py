"""Watched promotions beside a live run: each is judged once, and rolled back if it is worse.

A verdict is stored before anything is done about it, the rollback is a change of the registry that
counts only while the promotion is the newest one, and the alert is noted when it was told. So
whoever dies in between, or finds a server away, leaves the rest to the next turn, of whatever
process; and of two at once one does each step.
"""

import asyncio
from typing import Any, Final

import numpy as np
import structlog

from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.errors import ConflictError, MisuseError, RefusedError
from pipeline.models import announce, remembered
from pipeline.models.watching import PAIRED, judge, needed
from pipeline.settings import Settings
from pipeline.store import watches
from pipeline.store.live import decompress
from pipeline.store.pool import Pool
from schemas.alerts import rollback_document
from schemas.blocks import Array
from schemas.codec import json_bytes
from schemas.topics import ALERTS

LOG: Final = structlog.get_logger()
_ENDED: Final = "another change of who speaks came first"


class Watchdog:
    """Looks after the promotions of a live run, a turn whenever asked."""

    def __init__(self, kafka: str, pool: Pool, settings: Settings) -> None:
        self._kafka = kafka
        self._pool = pool
        self._settings = settings
        self._service = settings.worker.group
        self._needed: dict[tuple[str, int], int] = {}  # rows, where there were too few

    async def turn(self) -> None:
        """Judge what can be judged, and do what is to be done about it.

        Raises:
            UnavailableError: a server does not answer; the next turn goes on.
        """
        found = await watches.unsettled(self._pool, self._service)
        for watch in found:
            if watch["verdict"] is None:
                await self._judge(watch)
            elif watch["generation_now"] == watch["generation"]:
                await self._roll_back(watch["model"], watch["generation"], watch["why"])
        if any(one["verdict"] == "worse" for one in found):
            await self._tell()
            await watches.end_overtaken(self._pool)

    async def _judge(self, watch: dict[str, Any]) -> None:
        model, generation, count = watch["model"], watch["generation"], watch["kept"]
        if watch["generation_now"] != generation:
            await watches.settle(self._pool, model, generation, "ended", _ENDED)
            return
        horizon, least = self._settings.predictions.horizon, self._settings.models.watch_rows
        if count < self._needed.get((model, generation), least):
            return
        data = await watches.rows(self._pool, self._service, model, generation)
        rows = await asyncio.to_thread(_rows, data)
        self._needed[model, generation] = needed(rows, horizon, least)
        found = await asyncio.to_thread(judge, rows, horizon, least)
        if found is None:
            return
        verdict = "worse" if found.better else "kept"
        than = "was better" if found.better else "was not better"
        why = f"its shadow {watch['former']} {than}: {found.why}"
        figures = found.n, found.champion, found.challenger, found.standard_error
        if not await watches.settle(self._pool, model, generation, verdict, why, figures):
            return  # somebody else has judged it, by other rows perhaps
        LOG.info("promotion_judged", model=model, generation=generation, verdict=verdict)
        if verdict == "worse":
            await self._roll_back(model, generation, why)
            await self._tell()

    async def _roll_back(self, model: str, generation: int, why: str) -> None:
        of = self._settings.chain.feature_set
        try:
            async with remembered.changing(self._settings.redis, self._settings.cache):
                change = await announce.rollback(
                    self._pool, self._kafka, model, of, why, generation=generation
                )
        except ConflictError:  # another process, or a person
            return
        except (RefusedError, MisuseError) as error:
            LOG.warning("rollback_refused", model=model, generation=generation, error=str(error))
            await watches.refuse(self._pool, model, generation)
            return
        LOG.warning("promotion_rolled_back", model=model, version=change.version, why=why)

    async def _tell(self) -> None:
        """Tell the stream and `alerts` of rollbacks that they were not told of."""
        async with Publisher(self._kafka) as publisher:
            await announce.announce(self._pool, publisher)
            async with self._pool.acquire() as connection, connection.transaction():
                for one in await watches.untold(connection):  # locked: nobody else tells them
                    document = rollback_document(**one)
                    await publisher.deliver(
                        [Outgoing(ALERTS, json_bytes(document), one["model"].encode())]
                    )
                    await watches.set_told(connection, one["model"], one["generation"])


def _rows(data: list[bytes]) -> Array:
    parts = [np.frombuffer(decompress(one), PAIRED) for one in data]
    return np.concatenate([np.empty(0, PAIRED), *parts])
