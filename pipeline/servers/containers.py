"""The same three servers as containers, for tests on a machine with a Docker engine."""

import contextlib
from typing import Self
from urllib.parse import urlsplit

from pipeline.errors import UnavailableError
from pipeline.servers import probe
from pipeline.servers.fleet import Addresses

KAFKA_IMAGE = "confluentinc/cp-kafka:7.6.0"
POSTGRES_IMAGE = "postgres:18"
ENGINE = "unix:///var/run/docker.sock"
REDIS_IMAGE = "valkey/valkey:9"


class Containers:
    """Running containers; a context manager that removes them."""

    def __init__(self, addresses: Addresses, stack: contextlib.ExitStack) -> None:
        self.addresses = addresses
        self._stack = stack

    def stop(self) -> None:
        """Stop and remove them."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def engine_refusal() -> str | None:
    """Why no Docker engine can be reached, None if one accepts a connection.

    By a bare socket: the Docker client leaks one when nobody answers.
    """
    try:
        from docker.utils import kwargs_from_env  # type: ignore[import-untyped]  # noqa: PLC0415 - tests only, ships no types
    except ImportError as error:
        return str(error)
    parts = urlsplit(str(kwargs_from_env().get("base_url", ENGINE)))
    if parts.scheme in {"unix", "http+unix"}:
        return probe.refusal(parts.path)
    return probe.refusal((parts.hostname or "localhost", parts.port or 2375))


def start_containers() -> Containers:
    """Start the three by testcontainers, which is a dependency of the tests only.

    Raises:
        UnavailableError: testcontainers or a Docker engine is missing, or an image cannot be had.
    """
    try:
        from testcontainers.community.kafka import KafkaContainer  # noqa: PLC0415 - the same
        from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415 - the same
        from testcontainers.community.redis import RedisContainer  # noqa: PLC0415 - the same
    except ImportError as error:
        raise UnavailableError(
            f"containers need testcontainers ({error}): pip install testcontainers"
        ) from None
    reason = engine_refusal()
    if reason is not None:
        raise UnavailableError(
            f"no Docker engine answers ({reason}): start it, or use the embedded servers"
        )
    with contextlib.ExitStack() as stack:
        try:
            broker = KafkaContainer(KAFKA_IMAGE).with_kraft()
            for key, value in {
                "AUTO_CREATE_TOPICS_ENABLE": "false",
                "MESSAGE_MAX_BYTES": 33554432,
                "REPLICA_FETCH_MAX_BYTES": 33554432,
                "GROUP_MIN_SESSION_TIMEOUT_MS": 1000,
                "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": 1,
                "TRANSACTION_STATE_LOG_MIN_ISR": 1,
            }.items():
                broker.with_env(f"KAFKA_{key}", str(value))
            stack.enter_context(broker)
            database = stack.enter_context(
                PostgresContainer(POSTGRES_IMAGE, dbname="tickstream", driver=None)
            )
            cache = stack.enter_context(RedisContainer(REDIS_IMAGE))
            port = cache.get_exposed_port(cache.port)
            addresses = Addresses(
                kafka=broker.get_bootstrap_server(),
                postgres=database.get_connection_url(),
                redis=f"redis://{cache.get_container_host_ip()}:{port}/0",
            )
        except Exception as error:
            raise UnavailableError(f"the containers could not be started: {error}") from error
        return Containers(addresses, stack.pop_all())
