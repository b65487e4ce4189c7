"""Alerts from a real broker to real receivers: at least once, and none holds up another."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from structlog.testing import capture_logs

from agents.webhooks import deliver
from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.bus.topics import ensure_topics
from pipeline.calls.client import Client
from pipeline.servers import Addresses
from pipeline.servers.kafka import KafkaServer
from pipeline.settings import CallsSettings, TopicSettings, Webhook, fresh_id
from schemas.codec import json_bytes
from schemas.topics import ALERTS
from tests.fixtures.receivers import Receiver, receiver

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
PATH = "/T0/B0/xyzzy"
PLACE = TopicPartition(ALERTS, 0)


@dataclass(slots=True)
class Bench:
    """A broker with the topic, a client, and the name of a fresh group."""

    kafka: str
    client: Client
    group: str

    def hook(self, target: Receiver, **given: Any) -> Webhook:
        """A webhook that posts to a receiver."""
        return Webhook.model_validate({"url": target.url(PATH), "secrets": [SECRET], **given})

    async def committed(self, group: str) -> int | None:
        """The offset that a group has stored."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        await admin.start()
        try:
            found = await admin.list_consumer_group_offsets(group)
        except KafkaError:  # the broker has only begun to have groups
            return None
        finally:
            await admin.close()
        return found[PLACE].offset if PLACE in found else None

    async def reaches(self, group: str, offset: int) -> int:
        """Wait until a group has stored this offset or a later one."""
        while True:
            found = await self.committed(group)
            if found is not None and found >= offset:
                return found
            await asyncio.sleep(0.05)

    @asynccontextmanager
    async def delivering(
        self, hook: Webhook, name: str = "ops"
    ) -> AsyncIterator["asyncio.Task[None]"]:
        """Delivers meanwhile, from a place that is stored."""
        group = f"{self.group}.{name}"
        task = asyncio.create_task(deliver(name, hook, self.client, self.kafka, group))
        try:
            await self.reaches(group, 0)
            yield task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def publish(self, *alerts: dict[str, Any] | bytes) -> None:
        """Alerts, in order."""
        values = [one if isinstance(one, bytes) else json_bytes(one) for one in alerts]
        async with Publisher(self.kafka) as publisher:
            await publisher.deliver(Outgoing(ALERTS, one, b"A", 0) for one in values)


def alert(number: int, kind: str = "id_gap") -> dict[str, Any]:
    """An alert that is known by its number."""
    return {"kind": kind, "symbol": "A", "time": "2026-01-05T09:30:00Z", "number": number}


def numbers(found: Receiver) -> list[int]:
    """The alerts that came, in the order of their coming."""
    return [json.loads(body)["data"]["number"] for body in found.bodies]


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something; the test's own timeout ends it."""
    while True:
        if holds():
            return
        await asyncio.sleep(0.02)


@pytest.fixture
async def bench(addresses: Addresses) -> AsyncIterator[Bench]:
    """The broker of this run; every test follows in groups of its own."""
    await ensure_topics(addresses.kafka, TopicSettings())
    calls = CallsSettings(first_pause=0.01, attempts=2, timeout=2.0, longest_rest=0.5)
    async with Client(calls) as client:
        yield Bench(addresses.kafka, client, f"test-{fresh_id()}")


@pytest.fixture
async def target() -> AsyncIterator[Receiver]:
    """A receiver."""
    async with receiver() as found:
        yield found


async def test_an_alert_is_posted_signed_and_under_its_id(bench: Bench, target: Receiver) -> None:
    """What was published before the webhook is not told; what it is told can be verified."""
    await bench.publish(alert(0))
    async with bench.delivering(bench.hook(target)):
        await bench.publish(alert(1), alert(1), alert(2))
        await until(lambda: len(target.bodies) == 3)
    assert sorted(numbers(target)) == [1, 1, 2]
    ids = set()
    for request, body in zip(target.requests, target.bodies, strict=True):
        name, sent = request.headers["webhook-id"], request.headers["webhook-timestamp"]
        signed = hmac.new(KEY, f"{name}.{sent}.".encode() + body, hashlib.sha256).digest()
        assert request.headers["webhook-signature"] == f"v1,{base64.b64encode(signed).decode()}"
        document = json.loads(body)
        assert document == {
            "type": "id_gap",
            "timestamp": "2026-01-05T09:30:00Z",
            "missed": 0,
            "data": alert(document["data"]["number"]),
        }
        ids.add((document["data"]["number"], name))
    assert len(ids) == 2  # who publishes an alert twice makes no second one


async def test_it_goes_on_where_it_was(bench: Bench, target: Receiver) -> None:
    """What came while nobody delivered is told; what was delivered is not told again."""
    hook = bench.hook(target, at_once=1)
    async with bench.delivering(hook):
        begun = await bench.reaches(f"{bench.group}.ops", 0)
        await bench.publish(*(alert(n) for n in range(50)))
        await bench.reaches(f"{bench.group}.ops", begun + 50)
    await bench.publish(*(alert(n) for n in range(50, 60)))
    async with bench.delivering(hook):
        await until(lambda: len(target.bodies) >= 60)
    assert numbers(target) == list(range(60))  # one at once keeps the order


async def test_who_dies_between_delivery_and_commit_tells_it_again(
    bench: Bench, target: Receiver
) -> None:
    """Under the same id."""
    hung = asyncio.Event()

    async def hanging(_: web.Request) -> web.StreamResponse:
        hung.set()
        await asyncio.sleep(60)
        return web.Response()

    target.answering = hanging
    async with bench.delivering(bench.hook(target)):
        await bench.publish(alert(1))
        await hung.wait()
    target.answering = None
    async with bench.delivering(bench.hook(target)):
        await until(lambda: len(target.bodies) == 2)
    first, second = (one.headers["webhook-id"] for one in target.requests)
    assert first == second


@pytest.mark.parametrize("way", ["error", "silent", "away", "unauthorized", "busy"])
async def test_one_that_fails_holds_up_no_other(
    bench: Bench, target: Receiver, way: str, tmp_path: Path
) -> None:
    """It gets everything later; its trouble is one line, without its address."""
    trouble = True

    async def failing(_: web.Request) -> web.StreamResponse:
        if not trouble:
            return web.Response()
        if way == "silent":
            await asyncio.sleep(60)
        status = {"error": 500, "unauthorized": 401, "busy": 429}.get(way, 200)
        return web.Response(status=status, headers={"Retry-After": "1"} if way == "busy" else {})

    async with receiver() as other:
        if way == "away":
            bad = Webhook.model_validate({"url": f"http://127.0.0.1:9{PATH}", "secrets": [SECRET]})
        else:
            other.answering = failing
            bad = bench.hook(other)
        with capture_logs() as logs:
            async with bench.delivering(bad, "bad"), bench.delivering(bench.hook(target), "good"):
                await bench.publish(*(alert(n) for n in range(3)))
                await until(lambda: len(target.bodies) == 3)
                await until(lambda: any(one["event"] == "webhook_failing" for one in logs))
                trouble = False
                other.bodies.clear()
                if way != "away":
                    await until(lambda: {0, 1, 2} <= set(numbers(other)))
                    await until(lambda: any(one["event"] == "webhook_recovered" for one in logs))
    told = [one for one in logs if one["event"] == "webhook_failing"]
    assert [one["webhook"] for one in told] == ["bad"], tmp_path
    assert "xyzzy" not in str(logs)
    assert SECRET[6:] not in str(logs)


async def test_what_is_refused_is_given_up_and_told(bench: Bench, target: Receiver) -> None:
    """The next that is delivered says how many are missing, once; also over a restart."""
    target.statuses = [413, 422, 400]
    hook = bench.hook(target, at_once=1)
    with capture_logs() as logs:
        async with bench.delivering(hook):
            before = await bench.reaches(f"{bench.group}.ops", 0)
            await bench.publish(alert(0), alert(1), alert(2))
            await bench.reaches(f"{bench.group}.ops", before + 3)
        async with bench.delivering(hook):
            await bench.publish(alert(3))
            await until(lambda: len(target.bodies) == 4)
            await bench.publish(alert(4))
            await until(lambda: len(target.bodies) == 5)
    assert [json.loads(body)["missed"] for body in target.bodies[3:]] == [3, 0]
    given_up = [one for one in logs if one["event"] == "alerts_given_up"]
    assert sum(one["refused"] for one in given_up) <= 3
    assert given_up


async def test_what_cannot_be_delivered_for_long_is_given_up(
    bench: Bench, target: Receiver
) -> None:
    """By its age, so that an outage has an end."""
    target.statuses = [500] * 2
    with capture_logs() as logs:
        async with bench.delivering(bench.hook(target, age_max=0.5)):
            await bench.publish(alert(0))
            await until(lambda: any(one["event"] == "alerts_given_up" for one in logs))
            await bench.publish(alert(1))
            await until(lambda: len(target.bodies) == 3)
    assert [json.loads(body)["missed"] for body in target.bodies] == [0, 0, 1]
    assert [one.get("too_old") for one in logs if one["event"] == "alerts_given_up"] == [1]


async def test_who_is_gone_is_not_called_again(bench: Bench, target: Receiver) -> None:
    """Until a restart, which tells what it did not take."""
    target.statuses = [410]
    hook = bench.hook(target, at_once=1)
    with capture_logs() as logs:
        async with bench.delivering(hook) as task:
            await bench.publish(alert(0), alert(1))
            await task
    assert numbers(target) == [0]
    assert [one["event"] for one in logs if one["log_level"] == "warning"] == ["webhook_gone"]
    async with bench.delivering(hook):
        await until(lambda: len(target.bodies) == 3)
    assert numbers(target) == [0, 0, 1]


async def test_ten_megabytes_of_answer_are_no_matter(bench: Bench, target: Receiver) -> None:
    """It was delivered."""

    async def large(_: web.Request) -> web.StreamResponse:
        return web.Response(body=bytes(10_000_000))

    target.answering = large
    async with bench.delivering(bench.hook(target, at_once=1)):
        await bench.publish(*(alert(n) for n in range(5)))
        await until(lambda: len(target.bodies) == 5)
    assert numbers(target) == list(range(5))


async def test_what_is_no_alert_is_passed_over(bench: Bench, target: Receiver) -> None:
    """Bad bytes, no document, a huge one: told, counted, and the next is delivered."""
    with capture_logs() as logs:
        async with bench.delivering(bench.hook(target, at_once=1)):
            before = await bench.reaches(f"{bench.group}.ops", 0)
            await bench.publish(b"\xff\x00", b"[]", b'{"kind": 1}', b"x" * 5_000_000, b"")
            await bench.reaches(f"{bench.group}.ops", before + 5)
            await bench.publish(alert(1))
            await until(lambda: len(target.bodies) == 1)
    assert json.loads(target.bodies[0])["missed"] == 5
    assert [one["event"] for one in logs].count("alert_unreadable") == 5


async def test_only_the_kinds_that_are_wanted(bench: Bench, target: Receiver) -> None:
    """Others are passed over, and not missed."""
    async with bench.delivering(bench.hook(target, kinds=["drift", "parity"])):
        await bench.publish(alert(0), alert(1, "drift"), alert(2), alert(3, "parity"))
        await until(lambda: len(target.bodies) == 2)
    assert sorted(numbers(target)) == [1, 3]
    assert [json.loads(body)["missed"] for body in target.bodies] == [0, 0]


async def test_of_two_processes_one_delivers(bench: Bench, target: Receiver) -> None:
    """And the other one when it dies."""
    hook = bench.hook(target)
    group = f"{bench.group}.ops"
    async with bench.delivering(hook):
        second = asyncio.create_task(deliver("ops", hook, bench.client, bench.kafka, group))
        try:
            for number in range(20):
                await bench.publish(alert(number))
                await until(lambda n=number: n in numbers(target))  # type: ignore[misc]
            first = numbers(target)
        finally:
            second.cancel()
            with suppress(asyncio.CancelledError):
                await second
        await bench.publish(alert(20))
        await until(lambda: 20 in numbers(target))
    # A rebalance in between may tell one again, never two each time.
    assert len(first) <= 24


@pytest.mark.timeout(500)
async def test_a_broker_that_dies_and_comes_back(tmp_path: Path, target: Receiver) -> None:
    """Nothing is lost; it is delivered by the same task."""
    calls = CallsSettings(first_pause=0.01)
    server = KafkaServer(tmp_path / "kafka", timeout=180.0)
    try:
        await asyncio.to_thread(server.start)
        await ensure_topics(server.address, TopicSettings())
        async with Client(calls) as client:
            bench = Bench(server.address, client, "own")
            async with bench.delivering(bench.hook(target)) as task:
                await bench.publish(alert(0))
                await until(lambda: 0 in numbers(target))
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.restart)
                await bench.publish(alert(1))
                await until(lambda: 1 in numbers(target))
                assert not task.done()
    finally:
        await asyncio.to_thread(server.stop)
