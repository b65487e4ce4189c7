"""The optional containers."""

import pytest

from pipeline.errors import UnavailableError
from pipeline.servers.containers import engine_refusal, start_containers
from pipeline.servers.probe import check_kafka, check_postgres, check_redis


@pytest.mark.skipif(engine_refusal() is not None, reason="no Docker engine")
@pytest.mark.timeout(600)
def test_containers_give_three_addresses() -> None:
    """All three containers accept connections at the addresses given."""
    with start_containers() as containers:
        check_kafka(containers.addresses.kafka)
        check_postgres(containers.addresses.postgres)
        check_redis(containers.addresses.redis)


def test_no_engine_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an engine the error says so in one line."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(UnavailableError, match="no Docker engine answers") as caught:
        start_containers()
    assert "\n" not in str(caught.value)
