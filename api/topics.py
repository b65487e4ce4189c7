"""What the topics `fills` and `alerts` bring, each message once, while somebody listens."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

from api.errors import ApiError, Code, masked
from api.hub import Hub, Listener, Row
from pipeline.bus.blocks import fresh_rows
from pipeline.bus.following import TopicFeed
from schemas.alerts import read_alert
from schemas.arrivals import Message
from schemas.codec import row_documents
from schemas.times import NO_TIME, parse_rfc3339
from schemas.topics import ALERTS
from schemas.webhooks import alert_id

FILLS: Final = "fills"
NO_BROKER: Final = "this server has no broker: set TICKSTREAM_KAFKA"
QUEUE: Final = 4096  # rows that wait for one client: none of them is to be lost
_AT_ONCE: Final = 64  # rows between which others may have the loop
_REMEMBERED: Final = 10_000  # alerts
_BEFORE: Final = (-1, -1)
_INT: Final = range(2**31)
_BIG: Final = range(2**63)


class Fills(Hub):
    """Gives fills by their identity: what a worker publishes again after a crash was told."""

    def __init__(self) -> None:
        super().__init__(QUEUE)
        self._marks: dict[int, tuple[int, int]] = {}

    def renew(self) -> None:
        """Places begin anew."""
        self._marks.clear()

    def take(self, partition: int, message: Message) -> Iterator[None]:
        """Give the rows of a message.

        Raises:
            ValueError: it is no block of fills.
        """
        mark = self._marks.get(partition, _BEFORE)
        rows = fresh_rows(FILLS, partition, message.value, mark)
        for start in range(0, len(rows), _AT_ONCE):
            part = rows.take(slice(start, start + _AT_ONCE))
            for row in row_documents(part):
                self.give(self.wanting(row["symbol"]), row)
            yield
        if len(rows):
            self._marks[partition] = (int(rows["offset"][-1]), int(rows["index"][-1]))


class Alerts(Hub):
    """Gives alerts by their bytes: who publishes one twice makes no second one."""

    def __init__(self) -> None:
        super().__init__(QUEUE)
        self._told: OrderedDict[str, None] = OrderedDict()

    def renew(self) -> None:
        """Nothing in an alert depends on its place."""

    def take(self, _partition: int, message: Message) -> Iterator[None]:
        """Give an alert.

        Raises:
            ValueError: it is none.
        """
        value = message.value or b""
        row = alert_row(read_alert(value), value, message.received)
        name = alert_id(value)
        if name not in self._told:
            self.give(self.wanting(row["symbol"]), row)
        self._told[name] = None
        self._told.move_to_end(name)
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        yield


def alert_row(alert: dict[str, Any], value: bytes, published: int) -> Row:
    """What is told of an alert; null where it does not say it, or not as it should."""
    symbol, time = alert.get("symbol"), alert.get("time")
    nanos = parse_rfc3339(time) if isinstance(time, str) else NO_TIME
    return {
        "kind": alert["kind"],
        "symbol": symbol if isinstance(symbol, str) and symbol else None,
        "time": None if nanos == NO_TIME else nanos,
        "published": published,
        "partition": _within(alert.get("partition"), _INT),
        "offset": _within(alert.get("offset"), _BIG),
        "index": _within(alert.get("index"), _INT),
        "document": value.decode(),
    }


def _within(value: Any, bounds: range) -> int | None:
    return value if type(value) is int and value in bounds else None


class Topics:
    """The topics that can be subscribed to; without a broker none can.

    Args:
        kafka: The address of the broker.
    """

    def __init__(self, kafka: str | None) -> None:
        self._hubs: dict[str, Fills | Alerts] = {FILLS: Fills(), ALERTS: Alerts()}
        self._feeds = {
            topic: TopicFeed(kafka, topic, hub.take, hub.renew)
            for topic, hub in self._hubs.items()
            if kafka is not None
        }

    @property
    def clients(self) -> int:
        """How many listen."""
        return sum(hub.clients for hub in self._hubs.values())

    @property
    def answers(self) -> bool | None:
        """Whether the broker does; None while nobody follows a topic."""
        found = [feed.answers for feed in self._feeds.values() if feed.answers is not None]
        return all(found) if found else None

    @asynccontextmanager
    async def subscribed(
        self, topic: str, symbols: Collection[str] | None
    ) -> AsyncIterator[Listener]:
        """A listener to a topic: it is given all that is published from the beginning of the block.

        Raises:
            ApiError: there is no broker, or it does not answer.
        """
        feed = self._feeds.get(topic)
        if feed is None:
            raise ApiError(Code.UNAVAILABLE, NO_BROKER)
        with (
            self._hubs[topic].subscribed(symbols) as listener,
            masked("kafka_failed", "Kafka is away; subscribe again in a moment"),
        ):
            async with feed.holding():
                yield listener

    async def close(self) -> None:
        """End all of it."""
        for feed in self._feeds.values():
            await feed.close()
