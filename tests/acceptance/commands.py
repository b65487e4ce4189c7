"""The command line, workers and whole stacks as processes of their own."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Protocol, Self

from pipeline.servers import Addresses, running_addresses
from pipeline.settings import child_environment

TICKSTREAM = str(Path(sys.executable).with_name("tickstream"))


def environment(values: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without any of our variables, then the given ones."""
    ours = child_environment({})
    plain = {name: text for name, text in ours.items() if not name.startswith("TICKSTREAM_")}
    return {**plain, **(values or {})}


def naming(addresses: Addresses) -> dict[str, str]:
    """The variables that name servers."""
    return {f"TICKSTREAM_{name.upper()}": text for name, text in asdict(addresses).items()}


def tickstream(
    *arguments: object,
    values: Mapping[str, str] | None = None,
    timeout: float = 100.0,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [TICKSTREAM, *map(str, arguments)],
        env=environment(values),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def only_line(
    done: subprocess.CompletedProcess[str], code: int, progress: str | None = None
) -> str:
    """The single line of an error for people; fails unless it is one, with this exit code.

    Before it there may be lines of `progress`, of what takes long on a busy machine.
    """
    told = f"exit {done.returncode}\nstdout: {done.stdout}\nstderr: {done.stderr}"
    assert done.returncode == code, told
    lines = done.stderr.splitlines(keepends=True)
    if progress is not None:
        lines = [line for line in lines if not line.startswith(f"{progress}: ")]
    assert len(lines) == 1, told
    line = lines[0]
    assert line.startswith("error: "), told
    assert line.endswith("\n"), told
    assert line.rstrip("\n").isprintable(), told
    return line.strip()


def wait_until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Look every 50 ms until it holds; a failed test after that."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.05)


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process(Protocol):
    """A process that was begun."""

    @property
    def pid(self) -> int:
        """Its id."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; the exit code."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it by kill -9; nothing if it has ended."""


def worker(arguments: Sequence[str], values: Mapping[str, str], sink: IO[bytes]) -> Process:
    """Begin a worker, as the supervisor of `up` does."""
    return subprocess.Popen(
        [sys.executable, "-m", "agents", *arguments],
        env=values,
        stdin=subprocess.DEVNULL,
        stdout=sink,
        stderr=sink,
    )


class Worker:
    """One worker process on named servers, restarted by the test; its log is kept over restarts."""

    def __init__(
        self,
        addresses: Addresses,
        log: Path,
        *sets: str,
        begin: Callable[[Sequence[str], Mapping[str, str], IO[bytes]], Process] = worker,
    ) -> None:
        self.log = log
        self.starts = 0
        self._logged = 0  # bytes of earlier lives in the log
        self._sets = [part for one in sets for part in ("--set", one)]
        self._environment = environment(naming(addresses))
        self._begin = begin
        self._process: Process | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def _begun(self) -> bool:
        return b"worker_started" in self.log.read_bytes()[self._logged :]

    def start(self) -> None:
        """Start it."""
        self.starts += 1
        with self.log.open("ab") as sink:
            self._logged = sink.tell()
            self._process = self._begin(self._sets, self._environment, sink)

    def kill(self) -> None:
        """End it by kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self, seconds: float = 30.0) -> int:
        """Ask it to end; its exit code.

        Waits until it has begun: before that nobody handles the signal, and it ends by it.
        """
        assert self._process is not None
        wait_until(lambda: self._begun or not self.alive, seconds, f"{self.log.name}: begin")
        self._process.terminate()
        try:
            return self._process.wait(seconds)
        finally:
            self._process.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.alive:
            self.kill()


@contextlib.contextmanager
def served(addresses: Addresses, *sets: str) -> Iterator[str]:
    """The API as a process of its own on named servers, open on loopback; its address."""
    port = free_port()
    named = [part for one in sets for part in ("--set", one)]
    process = subprocess.Popen(
        [sys.executable, "-m", "api", "--port", str(port), *named],
        env=environment(naming(addresses)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(answers, 60.0, "the API")
        yield f"http://127.0.0.1:{port}/graphql"
    finally:
        process.terminate()
        process.wait(30.0)


@dataclass(frozen=True, slots=True)
class Up:
    """A running `tickstream up`."""

    process: subprocess.Popen[bytes]
    addresses: Addresses
    api: str
    log: Path

    def values(self) -> dict[str, str]:
        """The variables that name its servers and its API."""
        return {**naming(self.addresses), "GRAPHQL_URL": self.api}


@contextlib.contextmanager
def up(
    data_dir: Path, log: Path, *arguments: object, addresses: Addresses | None = None
) -> Iterator[Up]:
    """`tickstream up` on a data directory; drained and stopped in the end by Ctrl-C.

    With addresses it uses those servers instead of its own.
    """
    port = free_port()
    values = {} if addresses is None else naming(addresses)
    own = ("up", "--data-dir", data_dir, "--set", f"api.port={port}")
    with log.open("wb") as sink:
        process = _popen(sink, values, *own, *arguments)
    try:

        def serves() -> bool:
            text = log.read_text(encoding="utf-8")
            assert process.poll() is None, f"up ended at once: {text}"
            return "running;" in text

        wait_until(serves, 90, "the start of `up`")
        found = addresses or Addresses(**running_addresses(data_dir))
        yield Up(process, found, f"http://127.0.0.1:{port}/graphql", log)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text(encoding="utf-8")
    finally:
        process.kill()
        process.wait()


def _popen(
    sink: IO[bytes], values: Mapping[str, str], *arguments: object
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [TICKSTREAM, *map(str, arguments)],
        env=environment(values),
        stdin=subprocess.DEVNULL,
        stdout=sink,
        stderr=sink,
    )
