"""Asks for the trainings that are due."""

import asyncio
from typing import Final

import structlog

from agents.retries import FAILURES, Outage
from pipeline.clock import now_ns
from pipeline.models.scheduled import due
from pipeline.settings import Settings
from pipeline.store import jobs
from pipeline.store.pool import Pool
from pipeline.waiting import set_within

LOG: Final = structlog.get_logger()
_LOOK: Final = 1.0  # seconds between looks at the clock
_LONGEST: Final = 30.0  # seconds between attempts to reach Postgres


async def keep_schedule(pool: Pool, settings: Settings, stop: asyncio.Event) -> None:
    """Ask for each training when it is due, until told to stop.

    Of several services one asks for it, as it has the same key for all. A turn that passed while
    none ran, or a former one was still being done, is left out.
    """
    asked = None
    outage = Outage("training_not_asked")
    while not stop.is_set():
        new = due(settings, now_ns())
        pause = _LOOK
        if new.key != asked:
            try:
                job = await jobs.schedule(pool, new)
            except FAILURES as error:
                outage.tell(error)
                pause = min(_LOOK * 2.0 ** min(outage.times, 10), _LONGEST)
            else:
                outage.over()
                if job is not None:
                    asked = new.key
                    LOG.info("training_asked", job=job["id"], turn=new.key, state=job["state"])
        await set_within(stop, pause)
