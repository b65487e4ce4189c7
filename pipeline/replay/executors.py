"""Where runs run: processes of this machine, or a Dask cluster by its address."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from threading import Thread
from typing import Any, Final

import pyarrow as pa

from pipeline.errors import MisuseError, TickstreamError, UnavailableError
from pipeline.replay.kept_trials import KeptTrials
from pipeline.replay.shared_ticks import SharedTicks, path_of
from pipeline.replay.trial import Told, Trial, code_digest, run

_AHEAD: Final = 4  # runs that wait for each place
_PATIENCE: Final = 10.0  # seconds until a scheduler answers


@dataclass(frozen=True, slots=True)
class Places:
    """An executor, how many runs it does at once, and the ticks as its workers see them.

    `keeps` says whether those who do the runs also keep the outcomes: then none that is done can
    get lost on its way here.
    """

    executor: Executor
    count: int
    shared: Any
    keeps: bool = False


def run_all(
    places: Places, trials: Mapping[str, Trial], kept: KeptTrials, tell: Callable[[str, Told], None]
) -> None:
    """Do runs in any order, keep each outcome under its key, and tell it.

    Raises:
        TickstreamError: a run failed, could not be kept, or the one who did it died.
    """
    waiting = iter(trials.items())
    running: dict[Future[Told], str] = {}
    _fill(places, waiting, running, kept)
    while running:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            key = running.pop(future)
            told = _result(future)
            if not places.keeps:
                kept.put(key, told)
            tell(key, told)
        _fill(places, waiting, running, kept)


def _fill(
    places: Places,
    waiting: Iterator[tuple[str, Trial]],
    running: dict[Future[Told], str],
    kept: KeptTrials,
) -> None:
    while len(running) < _AHEAD * places.count:
        following = next(waiting, None)
        if following is None:
            return
        key, trial = following
        keeper = kept if places.keeps else None
        running[places.executor.submit(_run, trial, places.shared, key, keeper)] = key


def _run(trial: Trial, shared: SharedTicks, key: str, kept: KeptTrials | None) -> Told:
    """Do a run, and keep its outcome before the next one begins."""
    told = run(trial, shared)
    if kept is not None:
        kept.put(key, told)
    return told


def _result(future: Future[Told]) -> Told:
    try:
        return future.result()
    except TickstreamError:
        raise
    except BrokenProcessPool as error:
        raise TickstreamError(
            "a process of the runs died (out of memory?); what is done is kept: try again"
        ) from error
    except Exception as error:
        raise TickstreamError(f"a run failed: {type(error).__name__}: {error}") from error


@contextmanager
def processes(count: int, shared: SharedTicks) -> Iterator[Places]:
    """Fresh processes of this machine; they end with this one, however it ends."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, context, _beginning)
    try:
        yield Places(pool, count, shared, keeps=True)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    pool.shutdown()


def _beginning() -> None:
    """The first thing that a process of the runs does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)


@contextmanager
def cluster(address: str, shared: SharedTicks) -> Iterator[Places]:
    """The workers of a Dask cluster.

    Ticks that a worker cannot see as files are sent to all of them, compressed.

    Raises:
        MisuseError: Dask is not installed, or a worker runs other code.
        UnavailableError: no scheduler answers, or it has no worker.
    """
    try:
        distributed = import_module("distributed")  # an extra, and slow to import
    except ImportError as error:
        raise MisuseError("--scheduler needs Dask: pip install -e '.[dask]'") from error
    try:
        client = distributed.Client(address, timeout=_PATIENCE)
    except (OSError, ValueError) as error:  # a timeout is an OSError
        raise UnavailableError(f"no Dask scheduler answers at {address}") from error
    with client:
        seen = _seen(client, address, shared)
        if not all(seen):
            shared = replace(shared, data=packed(shared))
        # A worker gets the scattered ticks where a run has the future of them.
        ticks = client.scatter(shared, broadcast=True, hash=False)
        yield Places(client.get_executor(pure=False), len(seen), ticks, keeps=all(seen))


def _seen(client: Any, address: str, shared: SharedTicks) -> list[bool]:
    """For each thread of each worker, whether it sees the ticks."""
    found = client.run(_sight, shared.folder, sorted(shared.sha256), on_error="return")
    if not found:
        raise UnavailableError(f"the Dask scheduler at {address} has no worker")
    for worker, sight in found.items():
        if isinstance(sight, BaseException) or sight[0] != code_digest():
            raise MisuseError(f"the Dask worker {worker} runs other code than this: update it")
    threads = client.nthreads()
    return [sees for worker, (_, sees) in found.items() for _ in range(threads.get(worker, 1))]


def _sight(folder: Path, partitions: Sequence[int]) -> tuple[str, bool]:
    """What a worker has: the code, and the files of the ticks or not."""
    return code_digest(), all(path_of(folder, n).exists() for n in partitions)


def packed(shared: SharedTicks) -> dict[int, bytes]:
    """The files of the ticks as bytes, compressed."""
    found = {}
    for partition in shared.sha256:
        sink = pa.BufferOutputStream()
        with pa.memory_map(str(path_of(shared.folder, partition))) as source:
            file = pa.ipc.open_file(source)
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            with pa.ipc.new_file(sink, file.schema, options=options) as writer:
                for place in range(file.num_record_batches):
                    writer.write_batch(file.get_batch(place))
        found[partition] = sink.getvalue().to_pybytes()
    return found
