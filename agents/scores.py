"""Scores the versions that speak on the live run, and says once only that a server is away."""

import asyncio
from typing import Final

import structlog

from agents.entry import paused
from agents.retries import FAILURES, Outage
from pipeline.errors import ConflictError
from pipeline.models.live_scores import Scoring
from pipeline.settings import Settings
from pipeline.store.pool import Pool

LOG: Final = structlog.get_logger()


async def keep_scores(pool: Pool, kafka: str, settings: Settings, stop: asyncio.Event) -> None:
    """A turn every `models.score_seconds`, until told to stop."""
    seconds = settings.models.score_seconds
    scoring = Scoring(kafka, pool, settings)
    outage = Outage("scores_not_kept")
    while not stop.is_set():
        try:
            found = await scoring.turn(seconds)
        except (ConflictError, *FAILURES) as error:
            outage.tell(error)
        else:
            outage.over()
            if found:
                LOG.info("outcomes_scored", outcomes=found)
        await paused(stop, seconds)
