"""Pages of history and of what was known at a moment, over more than twenty million stored rows."""

import asyncio
import random
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import numpy as np
import orjson
import pytest

from pipeline.clock import monotonic, today
from pipeline.settings import StoreSettings
from pipeline.store.copy import HEADER, TRAILER, copy_columns, copy_pieces
from pipeline.store.migrate import ensure_days, leaf
from pipeline.store.pool import Pool, open_pool
from pipeline.store.session import Step
from pipeline.store.upkeep import keep, summarise
from schemas.blocks import Rows, empty
from schemas.times import format_rfc3339
from tests.bench.live.knobs import knob
from tests.bench.live.telling import table, tell
from tests.bench.served.ground import ground

DAYS: Final = 12  # settled ones, yesterday, which is open to late writers, and today
SYMBOLS: Final = [f"S{number}" for number in range(200)]
BLOCK: Final = 500_000  # rows of a COPY
START: Final = 1_767_571_200_000_000_000  # ns: 2026-01-05T00:00:00Z
STEP: Final = 10_000_000  # ns from row to row
LATE: Final = 60 * 1_000_000_000  # ns that one row in a hundred comes late
REQUESTS: Final = 1500
CONNECTIONS: Final = (1, 4)
PAGE: Final = 100
NODE: Final = "edges { cursor node { ts price size knownAt } } pageInfo { hasNextPage endCursor }"
ARGUMENTS: Final = {
    "the next 100": "from: $from, first: 100",
    "the last 100": "to: $to, last: 100",
    "asOf, the next 100": "from: $from, first: 100, asOf: {knownAt: $known}",
    "asOf, the last 100": "last: 100, asOf: {eventTime: $to, knownAt: $known}",
}

pytestmark = pytest.mark.timeout(3600)


def made(first: int, count: int, rng: np.random.Generator) -> Rows:
    """Ticks from a place on: time rises, a symbol each by chance, one in a hundred known late."""
    rows = empty("ticks", count, SYMBOLS)
    places = np.arange(first, first + count)
    times = START + places * STEP
    late = np.where(rng.random(count) < 0.01, LATE, 1000)
    for name, value in {
        "partition": 0,
        "offset": places,
        "index": 0,
        "symbol": rng.integers(0, len(SYMBOLS), count),
        "ts": times,
        "known_at": times + late,
        "price": 100 + rng.normal(size=count),
        "size": rng.random(count),
        "flag": 0,
    }.items():
        rows.columns[name][:] = value
    return rows


async def fill(pool: Pool, each: int) -> None:
    """So many ticks on each of the days, which upkeep has seen as it would have."""
    rng = np.random.default_rng(4)
    names = ", ".join(f'"{name}"' for name in copy_columns("ticks"))
    for number in range(DAYS):
        day = today() - timedelta(days=DAYS - 1 - number)
        async with pool.acquire() as connection, connection.transaction():
            await ensure_days(connection, [day])
        sql = f"COPY {leaf('ticks', day)} ({names}) FROM STDIN (FORMAT binary)"
        for first in range(0, each, BLOCK):
            rows = made(number * each + first, min(BLOCK, each - first), rng)
            body = copy_pieces(rows, day, 10_000)
            await pool.transact([Step(sql, copied=[HEADER, *body, TRAILER])])
    await keep(pool, StoreSettings(), today())
    await summarise(pool, today())


async def ask(port: int, key: str, bodies: Sequence[bytes], found: list[float]) -> None:
    """One connection that asks one question after the other; every page must be full."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for body in bodies:
        head = (
            "POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        began = monotonic()
        writer.write(head.encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        length = next(line for line in lines if line.startswith(b"content-length:"))
        text = await reader.readexactly(int(length.partition(b":")[2]))
        found.append(monotonic() - began)
        assert len(orjson.loads(text)["data"]["prices"]["edges"]) == PAGE, text[:500]
    writer.close()


def questions(arguments: str, count: int, rows: int) -> list[bytes]:
    """The same of any symbol at any time of all that is stored, but for the ends of it."""
    chance = random.Random(7)  # noqa: S311 - drawn anew alike, not secret
    used = [name for name in ("from", "to", "known") if f"${name}" in arguments]
    head = ", ".join(["$s: String!", *(f"${name}: DateTime" for name in used)])
    query = f"query({head}) {{ prices(symbol: $s, {arguments}) {{ {NODE} }} }}"
    found = []
    for _ in range(count):
        place = chance.randrange(rows // 5, rows - rows // 5)
        later = min(rows, place + max(rows // 40, 3 * PAGE * len(SYMBOLS)))
        places = {"from": place, "to": place, "known": place if "eventTime" in arguments else later}
        variables = {name: format_rfc3339(START + places[name] * STEP) for name in used}
        variables["s"] = chance.choice(SYMBOLS)
        found.append(orjson.dumps({"query": query, "variables": variables}))
    return found


async def measured(port: int, key: str, arguments: str, connections: int, rows: int) -> list[float]:
    """Seconds of each request."""
    bodies = questions(arguments, REQUESTS, rows)
    await ask(port, key, bodies[:50], [])
    found: list[float] = []
    parts = [bodies[number::connections] for number in range(connections)]
    await asyncio.gather(*(ask(port, key, part, found) for part in parts))
    return found


def test_pages(repository: Path, tmp_path: Path) -> None:
    """Prints the time of a page of 100 over HTTP, with a key: p50, p99 and the worst."""
    each = int(knob("HISTORY_ROWS")) // DAYS
    lines = []
    with ground(tmp_path) as here:
        asyncio.run(here.prepare([], SYMBOLS))

        async def prepare() -> tuple[int, int, int]:
            pool = await open_pool(here.postgres.address, StoreSettings())
            await fill(pool, each)
            count = await pool.fetchval("SELECT count(*) FROM ticks")
            size = await pool.fetchval("SELECT pg_database_size(current_database())")
            settled = await pool.fetchval("SELECT count(*) FROM settled WHERE stage = 'ticks'")
            await pool.close()
            return count, size, settled

        began = monotonic()
        count, size, settled = asyncio.run(prepare())
        assert count == each * DAYS
        seconds = monotonic() - began
        with here.api(repository) as (_, port):
            for connections in CONNECTIONS:
                for name, arguments in ARGUMENTS.items():
                    times = asyncio.run(measured(port, here.key, arguments, connections, count))
                    p50, p99, worst = np.percentile(np.array(times) * 1e3, (50, 99, 100)).tolist()
                    row = (name, str(connections), f"{p50:.1f}", f"{p99:.1f}", f"{worst:.1f}")
                    lines.append(row)
    header = ("a page of prices", "connections", "p50 ms", "p99 ms", "worst ms")
    tell(
        repository,
        "history",
        [
            f"{count:,} ticks of {len(SYMBOLS)} symbols, {DAYS} days, {size / 2**30:.1f} GiB",
            f"stored in {seconds:.0f} s; {settled} days are settled, today is without a btree",
            *table(header, lines),
            f"{REQUESTS} requests each, any symbol at any time; the clients share the cores",
        ],
    )
