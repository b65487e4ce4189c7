"""The same three servers as containers, for tests on a machine with a Docker engine."""

import contextlib
from typing import Any, Self

from pipeline.errors import UnavailableError
from pipeline.servers.fleet import Addresses

KAFKA_IMAGE = "confluentinc/cp-kafka:7.6.0"
POSTGRES_IMAGE = "postgres:18"
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


def start_containers() -> Containers:
    """Start the three by testcontainers, which is a dependency of the tests only.

    Raises:
        UnavailableError: testcontainers or a Docker engine is missing, or an image cannot be had.
    """
    try:
        import docker  # type: ignore[import-untyped]  # noqa: PLC0415 - tests only, ships no types
        from testcontainers.community.kafka import KafkaContainer  # noqa: PLC0415 - the same
        from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415 - the same
        from testcontainers.community.redis import RedisContainer  # noqa: PLC0415 - the same
    except ImportError as error:
        raise UnavailableError(
            f"containers need testcontainers ({error}): pip install testcontainers"
        ) from None
    try:
        engine: Any = docker.from_env(timeout=3)
        try:
            engine.ping()
        finally:
            engine.close()
    except Exception as error:  # noqa: BLE001 - docker raises many kinds, none of them a base
        raise UnavailableError(
            f"no Docker engine answers ({error}): start it, or use the embedded servers"
        ) from None
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
