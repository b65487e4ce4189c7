"""The service `monitoring`: tells alerts to the webhooks that are set."""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from agents.entry import run, stop_by_signal
from agents.retries import Outage
from agents.webhooks import deliver
from pipeline.bus.topics import ensure_topics
from pipeline.calls.client import Client
from pipeline.calls.hooks import check_webhooks
from pipeline.errors import MisuseError, UnavailableError
from pipeline.settings import Settings
from pipeline.waiting import ended, set_within

LOG: Final = structlog.get_logger()
_PAUSE: Final = 1.0  # seconds between attempts to reach the broker


async def work(settings: Settings, _: Sequence[str] = ()) -> None:
    """Deliver until SIGTERM or SIGINT.

    Raises:
        MisuseError: no broker or no webhook is set, or one that cannot be called.
    """
    if settings.kafka is None:
        raise MisuseError("alerts are on Kafka: set TICKSTREAM_KAFKA, or use `tickstream up`")
    if not settings.webhooks:
        raise MisuseError("no webhook is set: TICKSTREAM_WEBHOOKS__NAME__URL=https://...")
    check_webhooks(settings)
    stop = stop_by_signal()
    await _topics(settings, settings.kafka, stop)
    async with Client(settings.calls) as client, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                deliver(name, hook, client, settings.kafka, group_of(settings, name)), name=name
            )
            for name, hook in settings.webhooks.items()
        ]
        await stop.wait()
        await ended(*tasks)
    LOG.info("monitoring_stopped")


def group_of(settings: Settings, name: str) -> str:
    """The consumer group of a webhook."""
    return f"{settings.worker.group}.webhook.{name}"


async def _topics(settings: Settings, kafka: str, stop: asyncio.Event) -> None:
    """Make the topics as soon as the broker is there."""
    outage = Outage("kafka_awaited")
    while not stop.is_set():
        try:
            await ensure_topics(kafka, settings.topics)
        except UnavailableError as error:
            outage.tell(error)
            await set_within(stop, _PAUSE)
        else:
            return


def main() -> None:
    """Run it."""
    run("python -m agents.monitoring", work)


if __name__ == "__main__":
    main()
