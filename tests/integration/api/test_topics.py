"""Fills and alerts that are pushed from Kafka, whatever is away."""

import asyncio
import json
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection

from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.bus.topics import ensure_topics
from pipeline.servers import ports
from pipeline.servers.kafka import KafkaServer
from pipeline.servers.valkey import ValkeyServer
from pipeline.settings import Settings, TopicSettings
from schemas.alerts import gap_document, refusal_document
from schemas.arrivals import Gap
from schemas.codec import block_bytes, json_bytes
from schemas.topics import ALERTS
from tests.integration.api.conftest import becomes, make_rows
from tests.integration.api.test_process import next_of, operating, ready, running

FILLS = "subscription { fills { symbol offset side quantity ts } }"
ALERT = "{ kind symbol time published partition offset index document }"
GAP = gap_document(Gap(9, 1, "A", 10**18, 3, 4), 2)
REFUSED = refusal_document("m", "m-1", "worse", 10**18)

pytestmark = pytest.mark.timeout(240)


async def publish(kafka: str, *records: tuple[str, bytes]) -> None:
    """Publish messages in order."""
    async with Publisher(kafka) as publisher:
        await publisher.deliver(Outgoing(topic, value, partition=0) for topic, value in records)


def fills(symbol: str, n: int, first: int) -> tuple[str, bytes]:
    """A message of fills of a symbol."""
    return "fills", block_bytes(make_rows("fills", symbol, n, first))


async def places(websocket: ClientConnection, n: int) -> list[tuple[str, int]]:
    """The next fills."""
    rows = [(await next_of(websocket))["fills"] for _ in range(n)]
    return [(row["symbol"], int(row["offset"])) for row in rows]


async def alert(websocket: ClientConnection) -> Any:
    """The next alert."""
    return (await next_of(websocket))["alerts"]


async def test_fills_and_alerts(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory, valkey_server: ValkeyServer
) -> None:
    """All of them once: with the cache away, and with the broker away at first and in between."""
    home = tmp_path_factory.mktemp("topics")
    kafka = f"{ports.HOST}:{ports.claim('kafka', home / 'port')}"
    broker = KafkaServer(home)  # which nobody has started
    with ExitStack() as ends:
        ends.callback(broker.kill)
        settings = settings.model_copy(update={"kafka": kafka})
        async with (
            running(settings) as (process, host),
            httpx.AsyncClient(base_url=f"http://{host}") as client,
        ):
            await ready(host)
            async with operating(host, FILLS) as refused:
                message = json.loads(await refused.recv())
                assert message["type"] == "error"
                (error,) = message["payload"]
                assert error["message"] == "Kafka is away; subscribe again in a moment"
                assert error["extensions"] == {"code": "UNAVAILABLE"}
            state = (await client.get("/readyz")).json()
            assert state["status"] == "degraded"
            assert state["checks"]["kafka"] == {"ok": False, "error": "it does not answer"}
            await asyncio.to_thread(broker.start)
            assert broker.address == kafka
            await ensure_topics(kafka, TopicSettings())
            assert await becomes(client, "ready")

            async with (
                operating(host, FILLS) as everything,
                operating(host, FILLS.replace("fills", 'fills(symbols: ["B"])')) as one,
                operating(host, f"subscription {{ alerts {ALERT} }}") as alerts,
                operating(host, f'subscription {{ alerts(symbols: ["A"]) {ALERT} }}') as of_a,
                operating(host, f'subscription {{ alerts(kinds: ["drift"]) {ALERT} }}') as drift,
            ):
                await subscribed(kafka, alerts, everything)
                # Rows of a block are not conflated; what is published twice comes once.
                valkey_server.kill()
                again = fills("B", 2, 203)
                await publish(kafka, fills("A", 3, 200), again, again, ("fills", b"nonsense"))
                wanted = [("A", 200), ("A", 201), ("A", 202), ("B", 203), ("B", 204)]
                assert await places(everything, 5) == wanted
                assert await places(one, 2) == wanted[3:]

                values = [json_bytes(found) for found in (GAP, REFUSED)]
                await publish(kafka, *((ALERTS, value) for value in (b"[]", *values, *values)))
                first, second = await alert(alerts), await alert(alerts)
                assert first.pop("published") > "2026"
                assert first == {
                    "kind": "id_gap",
                    "symbol": "A",
                    "time": GAP["time"],
                    "partition": 2,
                    "offset": str(GAP["offset"]),
                    "index": GAP["index"],
                    "document": values[0].decode(),
                }
                assert (second["kind"], second["symbol"]) == ("model_refused", None)
                assert (await alert(of_a))["document"] == values[0].decode()

                await asyncio.to_thread(broker.kill)
                assert await becomes(client, "degraded")
                await asyncio.to_thread(broker.start)
                drifted = json_bytes({"kind": "drift", "symbol": "A"})
                await publish(kafka, again, fills("B", 1, 205), (ALERTS, drifted))
                assert await places(everything, 1) == await places(one, 1) == [("B", 205)]
                for listener in (alerts, of_a, drift):
                    assert (await alert(listener))["document"] == drifted.decode()
                await asyncio.to_thread(valkey_server.start)
                assert await becomes(client, "ready")
            assert process.returncode is None


async def subscribed(kafka: str, alerts: ClientConnection, everything: ClientConnection) -> None:
    """Until the subscriptions are there: that of a topic waits for the broker."""
    for websocket, topic in ((alerts, ALERTS), (everything, "fills")):
        coming = asyncio.create_task(next_of(websocket))
        number = 0
        while not coming.done():
            value = json_bytes({"kind": str(number)})
            await publish(kafka, (topic, value) if topic == ALERTS else fills("A", 1, number))
            number += 1
            await asyncio.sleep(0.2)
        found = (await coming)[topic]
        while int(found.get("kind") or found["offset"]) < number - 1:
            found = (await next_of(websocket))[topic]
