"""`tickstream worker --service monitoring`: from the environment to the receiver, and misuse."""

import asyncio
import base64
import json
import signal
from pathlib import Path

import pytest

from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.bus.topics import ensure_topics
from pipeline.servers import Addresses
from pipeline.settings import TopicSettings, fresh_id
from schemas.topics import ALERTS
from tests.acceptance.commands import (
    TICKSTREAM,
    environment,
    naming,
    only_line,
    up,
    wait_until,
)
from tests.acceptance.forked import tickstream
from tests.fixtures.receivers import receiver

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
URL = "TICKSTREAM_WEBHOOKS__OPS__URL"
SERVICE = ("worker", "--service", "monitoring")


async def test_an_alert_reaches_its_receiver(addresses: Addresses, tmp_path: Path) -> None:
    """The process starts, tells, and ends when asked; its log has no secret."""
    await ensure_topics(addresses.kafka, TopicSettings())
    log = tmp_path / "log"
    async with receiver() as target:
        values = {
            **naming(addresses),
            URL: target.url("/T0/xyzzy"),
            "TICKSTREAM_WEBHOOKS__OPS__SECRETS": json.dumps([SECRET]),
            "TICKSTREAM_WORKER__GROUP": f"test-{fresh_id()}",
        }
        with log.open("wb") as sink:
            process = await asyncio.create_subprocess_exec(
                TICKSTREAM, *SERVICE, env=environment(values), stdout=sink, stderr=sink
            )
        try:
            async with Publisher(addresses.kafka) as publisher:
                number = 0
                while not target.bodies:  # it begins with what comes once it follows
                    number += 1
                    value = json.dumps({"kind": "drift", "number": number}).encode()
                    await publisher.deliver([Outgoing(ALERTS, value)])
                    await asyncio.sleep(0.2)
                    assert process.returncode is None, log.read_text()
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0, log.read_text()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert json.loads(target.bodies[0])["type"] == "drift"
    assert target.requests[0].headers["webhook-signature"].startswith("v1,")
    told = log.read_text()
    assert "webhook_started" in told
    assert "xyzzy" not in told
    assert SECRET[6:] not in told


@pytest.mark.timeout(300)
def test_up_runs_it_when_a_webhook_is_set(addresses: Addresses, tmp_path: Path) -> None:
    """Beside the workers, with a log of its own."""
    told = tmp_path / "data" / "services" / "monitoring.log"
    url = "webhooks.ops.url=http://127.0.0.1:9/"
    group = f"worker.group=test-{fresh_id()}"
    with up(tmp_path / "data", tmp_path / "log", "--set", url, "--set", group, addresses=addresses):
        wait_until(lambda: "webhook_started" in told.read_text(), 120, "the start of monitoring")
    assert "monitoring_stopped" in told.read_text()


def test_up_does_not_start_with_one_that_is_not_called(tmp_path: Path) -> None:
    """It says so before it starts anything."""
    done = tickstream("up", "--data-dir", tmp_path, values={URL: "http://example.com/xyzzy"})
    assert "webhook ops: http://example.com is beyond" in only_line(done, 2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "no webhook is set"),
        ({URL: "http://example.com/xyzzy"}, "webhook ops: http://example.com is beyond"),
        ({URL: "xyzzy"}, "webhook ops: an address to call is https"),
        ({URL: "https://169.254.169.254/xyzzy"}, "link-local"),
        ({URL: "https://a/", "TICKSTREAM_WEBHOOKS__OPS__SECRETS": '["xyzzy"]'}, "whsec_"),
        ({"TICKSTREAM_WEBHOOKS__OPS__SECRETS": "[]"}, "webhooks.ops.url"),
        ({URL: "https://a/", "TICKSTREAM_WEBHOOKS__OPS__NAME": "xyzzy"}, "webhooks.ops.name"),
    ],
)
def test_misuse_is_one_line(values: dict[str, str], words: str) -> None:
    """Without the address or the secret in it."""
    done = tickstream(*SERVICE, values={"TICKSTREAM_KAFKA": "127.0.0.1:9", **values})
    line = only_line(done, 2)
    assert words in line
    assert "xyzzy" not in line
