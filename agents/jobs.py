"""One attempt at a job: a command of ours as a process of its own, and what it wrote."""

import json
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pipeline.disk import MANIFEST
from pipeline.errors import TemporaryError, UnavailableError
from pipeline.models.jobs import RESULT
from pipeline.replay.backtest import METRICS
from pipeline.servers.child import Child, Command, locked
from pipeline.settings import child_environment
from pipeline.store.jobs import Claim, Job, Kind
from schemas.times import format_rfc3339

OUTPUT: Final = "output"
_COMMANDS: Final = {
    Kind.REPLAY: ("replay",),
    Kind.BACKTEST: ("backtest",),
    Kind.TRAINING: ("train", "range"),
}
_LOG: Final = "log"
_LOCK: Final = "lock"
_GRACE: Final = 10.0  # seconds to clear away what it has begun to write
# The live workers come first.
_GENTLY: Final = ("nice", "-n", "10")
_MISUSE: Final = 2
_CAN_NOT: Final = "it cannot be done: "
_FAILED: Final = "it failed: a server was away, or its output could not be written; see the log"
_KILLED: Final = "its process was killed, perhaps for lack of memory; see the log"


def place_of(home: Path, job: Job, attempt: int) -> Path:
    """The directory of an attempt: its log, and its output while and after it is complete."""
    return home / f"{job['kind']}-{job['id']}.{attempt}"


def clear_former(home: Path, job: Job, held: Claim) -> None:
    """Remove what runners that died of this job left here."""
    for attempt in range(1, held.attempt):
        shutil.rmtree(place_of(home, job, attempt), ignore_errors=True)


def arguments_of(job: Job, out: Path, sets: Sequence[str]) -> list[str]:
    """The command line of a job; `sets` are the settings of its runner."""
    asked = job["arguments"]
    words = [*_COMMANDS[Kind(job["kind"])], asked["source"], "--out", str(out), "--json"]
    for name in ("from", "to"):
        if asked[name] is not None:
            words += [f"--{name}", format_rfc3339(asked[name])]
    for name in ("bar", "trials", "year"):
        if asked.get(name) is not None:
            words += [f"--{name}", str(asked[name])]
    return words + [part for one in (*sets, *asked["settings"]) for part in ("--set", one)]


def begin(job: Job, place: Path, sets: Sequence[str]) -> Child:
    """Start it.

    Raises:
        UnavailableError: the directory cannot be written, or no process be had.
    """
    try:
        # What a former process of this attempt began, if it was released meanwhile.
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        command = Command(
            argv=(
                *_GENTLY, sys.executable, "-m", "pipeline.cli",
                *arguments_of(job, place / OUTPUT, sets),
            ),
            cwd=Path.cwd(),  # a setting of the runner may name a file from there
            environment=child_environment({}),
            stop_signal=signal.SIGINT,  # by which the commands leave nothing half-done
            grace=_GRACE,
        )  # fmt: skip
        with locked(place.name, place / _LOCK) as lock:
            return Child(place.name, command, log=place / _LOG, lock=lock)
    except OSError as error:
        raise UnavailableError(f"{place}: {error.strerror or error}") from error


def result_of(place: Path) -> dict[str, Any]:
    """What is told of a complete output: rows by stage, the fingerprint, figures of a backtest.

    A training has written all that itself, and what came of it.

    Raises:
        UnavailableError: it cannot be read.
    """
    try:
        trained = place / OUTPUT / RESULT
        if trained.exists():
            return dict(json.loads(trained.read_bytes()))
        manifest = json.loads((place / OUTPUT / MANIFEST).read_bytes())
        metrics = place / OUTPUT / METRICS
        figures = _figures(json.loads(metrics.read_bytes())) if metrics.exists() else None
        rows = {**manifest["rows"]}
        return {
            # A list, as JSON in Postgres does not keep the order of keys.
            "rows": [[stage, count] for stage, count in rows.items()],
            "fingerprint": manifest["settings_hash"],
            "figures": figures,
        }
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UnavailableError(f"{place}: the output cannot be read: {error!r}") from error


def _figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    performance, trading = metrics["performance"], metrics["trading"]
    return {
        "final_equity": metrics["final_equity"],
        "total_return": performance.get("total_return"),
        "sharpe": performance.get("sharpe"),
        "max_drawdown": performance.get("max_drawdown"),
        "trades": trading["trades"],
        "win_rate": trading["win_rate"],
    }


def trouble_of(child: Child) -> str:
    """Why a process failed, for who asked for it; addresses and paths stay in its log."""
    if child.code == _MISUSE:
        return _CAN_NOT + last_error(child)
    return _KILLED if child.code == 128 + signal.SIGKILL else _FAILED


def is_temporary(child: Child, job: Job) -> bool:
    """Whether the same attempt may do better later."""
    return job["kind"] == Kind.TRAINING and child.code == TemporaryError.exit_code


def last_error(child: Child) -> str:
    """What a process said last of why it failed, for the log of who started it."""
    told = [line for line in child.output().splitlines() if line.startswith("error: ")]
    return told[-1].removeprefix("error: ") if told else "see its log"


def clear_failed(place: Path) -> None:
    """Remove what a failed attempt has written, except its log."""
    for entry in place.iterdir() if place.is_dir() else ():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
