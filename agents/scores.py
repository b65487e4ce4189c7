"""Scores the versions that speak on the live run, and rolls back promotions that made it worse."""

import asyncio
from typing import Final

import structlog

from agents.retries import Outage
from pipeline.models.live_scores import Scoring
from pipeline.models.watching_turns import Watchdog
from pipeline.settings import Settings
from pipeline.store.pool import Pool
from pipeline.waiting import set_within

LOG: Final = structlog.get_logger()


async def keep_scores(pool: Pool, kafka: str, settings: Settings, stop: asyncio.Event) -> None:
    """A turn every `models.score_seconds`, and a look at watched promotions, until told to stop."""
    seconds = settings.models.score_seconds
    scoring, watchdog = Scoring(kafka, pool, settings), Watchdog(kafka, pool, settings)
    outage = Outage("scores_not_kept")
    while not stop.is_set():
        try:
            found = await scoring.turn(seconds)
            if settings.models.watch:
                await watchdog.turn()
        except Exception as error:  # noqa: BLE001 -- whatever it meets, the jobs go on
            outage.tell(error)
        else:
            outage.over()
            if found:
                LOG.info("outcomes_scored", outcomes=found)
        await set_within(stop, seconds)
