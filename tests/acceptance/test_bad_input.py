"""Every kind of bad message between good ticks: set aside with its reason; the stream goes on."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from aiokafka import AIOKafkaProducer

from pipeline.cli.stack import prepare
from pipeline.clock import now_ns
from pipeline.servers import Addresses, start_servers
from pipeline.settings import load_settings
from tests.acceptance import evidence
from tests.acceptance.commands import Worker, naming, tickstream

PARTITION = 2
SECOND, DAY = 10**9, 86_400 * 10**9
NOW = now_ns()
BASE = NOW - 600 * SECOND
MAX = 32 * 2**20

pytestmark = pytest.mark.timeout(240)


def tick(**fields: Any) -> dict[str, Any]:
    """A tick at the base time, with fields replaced; None leaves one out."""
    whole = {"symbol": "ES", "ts": BASE, "price": 1640.25, "size": 1.0, **fields}
    return {name: value for name, value in whole.items() if value is not None}


def coded(document: Any) -> bytes:
    """JSON as a publisher writes it."""
    return json.dumps(document).encode()


def arrow(*rows: Mapping[str, Any]) -> bytes:
    """An Arrow IPC stream of ticks."""
    table = pa.Table.from_pylist([dict(row) for row in rows])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def noise(size: int, first: bytes = b"") -> bytes:
    """Random bytes, always the same."""
    return first + np.random.default_rng(7).bytes(size - len(first))


@dataclass(frozen=True, slots=True)
class Bad:
    """A message with something wrong in it, and what is to become of it."""

    name: str
    value: bytes | None
    reason: str
    index: int = -1
    """Of the bad tick; -1 for the message."""
    kept: bytes | None = None
    """The bytes that are kept, if not all of the message."""
    good: int = 0
    """Good ticks in the same message."""


SPLIT = [tick(id="a1"), tick(id="a2", price=0.0), tick(id="a3")]
HOURS_AGO, TOMORROW = NOW - 5 * 3600 * SECOND, NOW + 2 * DAY
NAIVE = "2026-01-05T09:30:00"
DEEP = b'{"symbol": ' + b"[" * 100_000

# In this order: each is followed by a good tick a second after the last one.
BADS = (
    Bad("empty value", b"", "undecodable", kept=b""),
    Bad("null value", None, "undecodable", kept=b""),
    Bad("blanks", b" \n\t ", "undecodable"),
    Bad("truncated JSON", coded(tick())[:-9], "undecodable"),
    Bad("truncated JSON array", coded([tick(), tick()])[:-1], "undecodable"),
    Bad("not UTF-8", coded(tick()).replace(b"ES", b"\xc3\x28"), "undecodable"),
    Bad("a number", b"42", "undecodable"),
    Bad("a string", b'"ES 1640.25"', "undecodable"),
    Bad("null", b"null", "undecodable"),
    Bad("nested without end", DEEP, "undecodable"),
    Bad("truncated Arrow", arrow(tick(), tick())[:-40], "undecodable"),
    Bad("Arrow cut in its schema", arrow(tick())[:60], "undecodable"),
    Bad("10 MB of noise", noise(10 * 2**20, b"\x00"), "undecodable"),
    Bad("noise like an array", noise(2**20, b"["), "undecodable"),
    Bad("noise like an object", noise(2**20, b"{"), "undecodable"),
    Bad("noise like Arrow", noise(2**20, b"\xff\xff\xff\xff"), "undecodable"),
    Bad("symbol of a wrong type", coded(tick(symbol=5)), "malformed", 0),
    Bad("price of a wrong type", coded(tick(price="1640.25")), "malformed", 0),
    Bad("time of a wrong type", coded(tick(ts=[1])), "malformed", 0),
    Bad("side of a wrong kind", coded(tick(side="long")), "malformed", 0),
    Bad("an array of numbers", b"[1]", "malformed", 0, kept=b"1"),
    Bad("missing symbol", coded(tick(symbol=None)), "malformed", 0),
    Bad("missing price", coded(tick(price=None)), "malformed", 0),
    Bad("missing time", coded(tick(ts=None)), "malformed", 0),
    Bad("empty symbol", coded(tick(symbol="")), "bad_symbol", 0),
    Bad("symbol with a space", coded(tick(symbol="E S")), "bad_symbol", 0),
    Bad("symbol too long", coded(tick(symbol="E" * 33)), "bad_symbol", 0),
    Bad("infinite price in Arrow", arrow(tick(price=float("inf"))), "non_finite", 0),
    Bad("NaN price in Arrow", arrow(tick(price=float("nan"))), "non_finite", 0),
    Bad("infinite size in Arrow", arrow(tick(size=float("inf"))), "non_finite", 0),
    Bad("price beyond doubles", coded(tick()).replace(b"1640.25", b"1e999"), "undecodable"),
    Bad("zero price", coded(tick(price=0)), "non_positive", 0),
    Bad("negative price", coded(tick(price=-37.63)), "non_positive", 0),
    Bad("negative size", coded(tick(size=-1)), "negative_size", 0),
    Bad("milliseconds named nanoseconds", coded(tick(ts=BASE // 10**12)), "bad_time", 0),
    Bad("before 1971", coded(tick(ts="1970-06-01T00:00:00Z")), "bad_time", 0),
    Bad("two days ahead", coded(tick(ts=TOMORROW)), "bad_time", 0),
    Bad("naive time", coded(tick(ts=NAIVE)), "bad_time", 0),
    Bad("late", coded(tick(ts=HOURS_AGO)), "late", 0),
    Bad("duplicate id", coded(tick(id="good-1", ts=NOW)), "duplicate", 0),
    Bad("one of an array", coded(SPLIT), "non_positive", 1, coded(SPLIT[1]), 2),
    Bad("Arrow without price", arrow({"symbol": "ES", "ts": BASE}), "malformed"),
    Bad("Arrow with prices of text", arrow(tick(price="much")), "malformed"),
)


def good(number: int) -> dict[str, Any]:
    """The good tick behind bad message `number`; its id is taken by a duplicate later on."""
    return tick(ts=BASE + number * SECOND // 100, price=1640.0 + number, id=f"good-{number}")


@dataclass(frozen=True, slots=True)
class Poured:
    """The stores after all of it."""

    addresses: Addresses
    offsets: dict[str, int]
    good: list[int]
    alive: bool
    starts: int
    log: str


def _value(bad: Bad, number: int) -> bytes | None:
    """The array's good ticks must not be late where they stand."""
    if bad.good:
        whole = [{**one, "ts": BASE + number * SECOND // 100} for one in SPLIT]
        return coded(whole)
    return bad.value


def _kept(bad: Bad, number: int) -> bytes:
    if bad.good:
        return coded({**SPLIT[1], "ts": BASE + number * SECOND // 100})
    return (bad.value or b"") if bad.kept is None else bad.kept


async def _pour(addresses: Addresses) -> tuple[dict[str, int], list[int]]:
    """Good and bad in turn, on one partition; the offsets of both."""
    bads: dict[str, int] = {}
    goods: list[int] = []
    async with AIOKafkaProducer(
        bootstrap_servers=addresses.kafka, max_request_size=MAX
    ) as producer:

        async def send(value: bytes | None, key: bytes) -> int:
            sent = await producer.send_and_wait("prices", value, key=key, partition=PARTITION)
            return int(sent.offset)

        goods.append(await send(coded(good(0)), b"ES"))
        for number, bad in enumerate(BADS, 1):
            bads[bad.name] = await send(_value(bad, number), bad.name.encode())
            goods.append(await send(coded(good(number)), b"ES"))
    await evidence.until(lambda: evidence.drained(addresses), 90)
    return bads, goods


@pytest.fixture(scope="module")
def poured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Poured]:
    """A worker on real servers that was given all of it."""
    home = tmp_path_factory.mktemp("bad")
    with start_servers(home / "data") as fleet:
        asyncio.run(prepare(fleet.addresses, load_settings()))
        with Worker(fleet.addresses, home / "worker.log") as worker:
            bads, goods = asyncio.run(_pour(fleet.addresses))
            alive = worker.alive
            log = worker.log.read_text()
            yield Poured(fleet.addresses, bads, goods, alive, log.count("worker_started"), log)


def test_the_worker_never_stopped(poured: Poured) -> None:
    """One process, started once, still there."""
    assert poured.alive, poured.log[-3000:]
    assert poured.starts == 1


def test_every_good_tick_arrived(poured: Poured) -> None:
    """Those before and after each bad message, and the neighbours in the array."""
    stored = asyncio.run(evidence.stored_rows(poured.addresses, "ticks"))
    offsets = Counter(row["offset"] for row in stored.values())
    array = poured.offsets["one of an array"]
    assert offsets == Counter([*poured.good, array, array])
    assert {row["price"] for row in stored.values() if row["offset"] != array} == {
        good(number)["price"] for number in range(len(BADS) + 1)
    }


async def _rejected(addresses: Addresses) -> dict[tuple[int, int, int], evidence.Row]:
    async with evidence.connection_to(addresses) as connection:
        rows = await connection.fetch("SELECT * FROM rejected")
    assert len(rows) == len({(row["partition"], row["offset"], row["index"]) for row in rows})
    return {(row["partition"], row["offset"], row["index"]): dict(row) for row in rows}


def test_every_bad_message_is_in_the_table(poured: Poured) -> None:
    """With reason, detail, coordinates and its bytes; nothing else is there."""
    found = asyncio.run(_rejected(poured.addresses))
    wrong = []
    for number, bad in enumerate(BADS, 1):
        offset = poured.offsets[bad.name]
        mine = [row for (_, at, _), row in found.items() if at == offset]
        facts = [(row["partition"], row["index"], row["reason"]) for row in mine]
        if facts != [(PARTITION, bad.index, bad.reason)] or not mine[0]["detail"]:
            wrong.append(f"{bad.name}: {facts}")
        elif mine[0]["value"] != _kept(bad, number):
            wrong.append(f"{bad.name}: kept {mine[0]['value'][:80]!r}")
    assert not wrong, "\n".join(wrong)
    assert len(found) == len(BADS)


def test_every_bad_message_is_on_its_topic(poured: Poured) -> None:
    """`prices.rejected` carries bytes and key; headers say reason, detail and coordinates."""
    found = asyncio.run(evidence.records(poured.addresses, "prices.rejected"))
    table = asyncio.run(_rejected(poured.addresses))
    assert len(found) == len(BADS)
    keys = {offset: name for name, offset in poured.offsets.items()}
    for record in found:
        headers = record.headers
        assert headers["topic"] == "prices"
        at = (int(headers["partition"]), int(headers["offset"]), int(headers["index"]))
        row = table.pop(at)
        assert (headers["reason"], headers["detail"]) == (row["reason"], row["detail"])
        assert record.value == row["value"]
        assert record.key == keys[at[1]].encode()
    assert not table


def test_every_reason_is_counted(poured: Poured) -> None:
    """The data-quality table adds up to the rejected ones, by reason."""

    async def look() -> dict[str, int]:
        async with evidence.connection_to(poured.addresses) as connection:
            rows = await connection.fetch(
                "SELECT reason, sum(count)::bigint AS n FROM data_quality GROUP BY reason"
            )
        return {row["reason"]: row["n"] for row in rows}

    rows = asyncio.run(_rejected(poured.addresses)).values()
    assert asyncio.run(look()) == dict(Counter(row["reason"] for row in rows))


def test_parity_holds_through_all_of_it(poured: Poured) -> None:
    """A replay turns the same messages away and computes the same rows."""
    done = tickstream("parity", values=naming(poured.addresses))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"bit-equal: ticks {len(poured.good) + 2}")
