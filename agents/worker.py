"""A worker process: opens the sinks, starts Faust, and dies hard rather than lose a row."""

import asyncio
import gc
import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, NoReturn

import faust
import structlog

from agents.app import make_app, prices_of
from agents.entry import run, stop_by_signal
from agents.host import Host
from agents.partition import OwnedPartition
from agents.source import FaustSource
from pipeline.bus.decoding import new_decoder
from pipeline.bus.publisher import Publisher
from pipeline.bus.topics import ensure_topics
from pipeline.cache.latest import open_cache
from pipeline.errors import MisuseError
from pipeline.models.following import Follower
from pipeline.replay.warm import trees, warm
from pipeline.settings import Settings
from pipeline.stages.chain import Chain
from pipeline.store.live import LiveStore
from pipeline.store.migrate import migrate
from pipeline.store.pool import open_pool
from pipeline.waiting import set_within

LOG: Final = structlog.get_logger()
GAVE_UP: Final = 70
_SWITCH: Final = 0.0002  # seconds, instead of 5 ms


def _exit_hard(error: BaseException) -> NoReturn:
    """Leave at once: a graceful end would commit what is not stored."""
    LOG.critical("worker_gave_up", error=f"{type(error).__name__}: {error}", exit=GAVE_UP)
    sys.stderr.flush()
    os._exit(GAVE_UP)


def _load_kernels(settings: Settings) -> None:
    """Compile them once, and load them now: to read compiled code takes a second of the processor.

    At the first message it would hold up the event loop with everything that must answer in time,
    the heartbeats of the consumer among them.
    """
    warm()
    trees()
    Chain(settings.chain, 0).step(*new_decoder(0).decode(()))


def _answer_in_time() -> None:
    """What runs in threads, and the collector of garbage, hold up the event loop for less.

    Python's lock is handed on soon; what is loaded by now stays, so nobody looks through it again.
    """
    sys.setswitchinterval(_SWITCH)
    gc.collect()
    gc.freeze()


async def work(settings: Settings, _: Sequence[str] = ()) -> None:
    """Run one worker until it is told to stop.

    Raises:
        TickstreamError: a server does not answer at the start.
    """
    addresses = (settings.kafka, settings.postgres, settings.redis)
    if any(address is None for address in addresses):
        raise MisuseError(
            "a worker needs TICKSTREAM_KAFKA, TICKSTREAM_POSTGRES and TICKSTREAM_REDIS; "
            "`tickstream up` starts all three and a worker"
        )
    kafka, postgres, redis = (str(address) for address in addresses)
    await asyncio.to_thread(_load_kernels, settings)
    _answer_in_time()
    async with AsyncExitStack() as stack:
        pool = await open_pool(postgres, settings.store)
        stack.push_async_callback(pool.close)
        await migrate(pool)
        await ensure_topics(kafka, settings.topics)
        cache = open_cache(redis, settings.cache)
        stack.push_async_callback(cache.close)
        publisher = await stack.enter_async_context(Publisher(kafka))
        store = LiveStore(pool, settings.worker.group, settings.chain.fingerprint())
        worker = settings.worker
        models = Follower(kafka, pool, publisher, worker.model, settings.chain)
        following = asyncio.ensure_future(models.run())
        following.add_done_callback(_ended)
        stack.callback(following.cancel)
        await _heard(models, worker.session_timeout)
        app = make_app(settings, kafka)
        hosts: list[Host] = []
        sources: list[FaustSource] = []

        def own(partition: int, epoch: int) -> OwnedPartition:
            return OwnedPartition(settings.chain, partition, epoch)

        def dealt(_: Any, /, *given: Any, signal: Any, **__: Any) -> None:  # noqa: ARG001 -- as Faust calls
            for source in sources:
                source.deal(tp.partition for tp in given[0])

        async def chain(stream: Any) -> None:
            source = FaustSource(stream, kafka, worker.batch)
            app.settle = source.settle
            sources.append(source)
            host = Host(worker, source, store, publisher, cache, own, models)
            hosts.append(host)
            try:
                await host.run()
            except Exception as error:  # noqa: BLE001 -- whatever it is, it must not leave the body
                _exit_hard(error)

        app.on_partitions_revoked.connect(dealt)
        app.on_partitions_assigned.connect(dealt)
        app.agent(prices_of(app), concurrency=1, name="chain")(chain)
        stop = stop_by_signal()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _tell_tasks)
        await app.start()
        LOG.info("worker_started", group=settings.worker.group, instance=settings.worker.instance)
        await _until(stop, app)
        await app.stop()
        for host in hosts:
            await host.close()
        LOG.info("worker_stopped", ticks=sum(host.ticks for host in hosts))


def _ended(following: "asyncio.Future[NoReturn]") -> None:
    """Who no longer hears of promotions must not go on as if there were none."""
    error = None if following.cancelled() else following.exception()
    if error is not None:
        _exit_hard(error)


async def _heard(models: Follower, seconds: float) -> None:
    """Wait until the versions that are active are ready to speak; not for ever."""
    if not await set_within(models.caught_up, seconds):
        LOG.warning("models_late", seconds=seconds)


def _tell_tasks() -> None:
    """Log where every task stands: `kill -USR1` asks a worker that seems to hang."""
    for task in asyncio.all_tasks():
        told = io.StringIO()
        task.print_stack(limit=6, file=told)
        LOG.warning("task", name=task.get_name(), stack=told.getvalue())


async def _until(stop: asyncio.Event, app: faust.App) -> None:
    """Wait for the order to stop; a crashed app would live on doing nothing."""
    while not stop.is_set():
        if app.crashed:
            _exit_hard(RuntimeError(f"Faust crashed: {app.crash_reason}"))
        await set_within(stop, 0.5)


def main() -> None:
    """Run it."""
    run("python -m agents", work)
