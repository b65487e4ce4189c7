"""Fresh processes for tasks of a leak check: forked from a server that has run no tick."""

import multiprocessing
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Final

from pipeline.errors import TickstreamError
from pipeline.replay.leakcheck_jobs import Result, Task, work

_READY: Final = "pipeline.replay.leakcheck_ready"
_OURS: Final = ("pipeline.", "schemas.")


def apart(task: Task) -> Result:
    """Do a task in a process of its own, and wait for it.

    Raises:
        TickstreamError: it failed or died.
    """
    context = multiprocessing.get_context("forkserver")
    # The server loads once what every process would load anew: this, and the kernels.
    loaded = [name for name in tuple(sys.modules) if name.startswith(_OURS)]
    context.set_forkserver_preload([_READY, *loaded])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_deliver, args=(theirs, task), daemon=True)
    process.start()
    theirs.close()
    try:
        answer = ours.recv()
    except EOFError as error:
        process.join()
        raise TickstreamError(
            f"a process of the leak check died with exit code {process.exitcode}"
        ) from error
    finally:
        ours.close()
    process.join()
    if isinstance(answer, TickstreamError):
        raise answer
    if not isinstance(answer, Result):
        raise TickstreamError(f"a process of the leak check failed:\n{answer}")
    return answer


def _deliver(to: Connection, task: Task) -> None:
    """The body of the process."""
    try:
        answer: Result | TickstreamError | str = work(task)
    except TickstreamError as error:
        answer = error
    except Exception:  # noqa: BLE001 -- whatever it is, the one who waits must hear of it
        answer = traceback.format_exc()
    to.send(answer)
    to.close()
