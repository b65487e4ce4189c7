"""`up` with scheduled checks: a changed value is an alert, trouble is told, the stack goes on."""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from click.testing import CliRunner

from pipeline.bus.publisher import Outgoing, Publisher
from pipeline.cli.main import cli
from pipeline.errors import UnavailableError
from pipeline.servers import Fleet, start_servers
from schemas.codec import tick_bytes
from schemas.topics import PRICES
from tests.acceptance import evidence
from tests.acceptance.commands import Up, only_line, tickstream, up, wait_until
from tests.acceptance.parity.tapes import Document, sample_of, tape

EVERY: Final = 0.05  # minutes
SETS: Final = ("--set", "bars.clock=ticks:5", "--set", "signals.follow=momentum_20")
FRAME: Final = 20
MESSAGES: Final = 150
_PATIENCE: Final = 60.0
_HOLD: Final = "SELECT FROM progress WHERE service = 'tickstream.parity' FOR UPDATE"

pytestmark = pytest.mark.timeout(240)


@dataclass(slots=True)
class Watched:
    """A stack whose log is read on."""

    fleet: Fleet
    stack: Up
    ticks: Iterator[Document]
    read: int = 0

    def next(self, words: str) -> str:
        """Wait for the next line of the log with these words."""
        found: list[str] = []

        def told() -> bool:
            assert self.stack.process.poll() is None, self.stack.log.read_text()
            lines = self.stack.log.read_text().splitlines()[self.read :]
            places = [i for i, line in enumerate(lines) if words in line]
            if places:
                found.append(lines[places[0]])
                self.read += places[0] + 1
            return bool(places)

        wait_until(told, _PATIENCE, f"a line with {words!r}")
        return found[0]

    async def publish(self) -> None:
        """Some more ticks; wait until they are stored."""
        values = [tick_bytes(list(islice(self.ticks, FRAME))) for _ in range(MESSAGES)]
        async with Publisher(self.stack.addresses.kafka) as publisher:
            await publisher.deliver(Outgoing(PRICES, value, b"ES") for value in values)
        await evidence.until(lambda: evidence.drained(self.stack.addresses), _PATIENCE)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Iterator[Watched]:
    """A stack of servers of our own, of which one will go away, that checks itself."""
    home = tmp_path_factory.mktemp("turns")
    ticks = tape(sample_of(sample, FRAME * MESSAGES), "x")
    try:
        fleet = start_servers(home / "servers")
    except UnavailableError as error:
        pytest.skip(f"NO SERVERS: {error}")
    arguments = ("--parity-every", EVERY, "--drift-every", EVERY, *SETS)
    with fleet, up(home / "up", home / "log", *arguments, addresses=fleet.addresses) as stack:
        yield Watched(fleet, stack, ticks)


@dataclass(frozen=True, slots=True)
class Planted:
    """A fill that was changed by hand, and what was told of it."""

    row: Any
    changed: float
    line: str
    ready: str


@pytest.fixture(scope="module")
def planted(watched: Watched) -> Planted:
    """Untouched rows are told equal; then one is changed."""
    asyncio.run(watched.publish())
    assert "ALERT" not in watched.stack.log.read_text()
    watched.next("parity: bit-equal")
    row, changed = asyncio.run(_plant(watched))
    line = watched.next("parity: ALERT")
    return Planted(row, changed, line, watched.next("worker-1 ready"))


def test_a_changed_value_is_an_alert(watched: Watched, planted: Planted) -> None:
    """It is named, in the log and on `alerts`."""
    row, changed, line = planted.row, planted.changed, planted.line
    where = f"partition {row['partition']} offset {row['offset']} index {row['index']} (ES.x)"
    assert f"live and replay differ: fills, row at {where}, column price" in line
    assert f"live {changed!r} ({changed.hex()})" in line
    assert f"replayed {row['price']!r} ({row['price'].hex()})" in line
    (alert,) = [
        json.loads(one.value or b"")
        for one in asyncio.run(evidence.records(watched.stack.addresses, "alerts"))
    ]
    assert alert["kind"] == "parity"
    assert (alert["stage"], alert["symbol"], alert["column"]) == ("fills", "ES.x", "price")
    assert (alert["offset"], alert["index"]) == (row["offset"], row["index"])
    assert (alert["live"], alert["replayed"]) == (changed, row["price"])
    assert "(alerts: 1)" in planted.ready
    parity = httpx.get(watched.stack.api.replace("/graphql", "/readyz")).json()["checks"]["parity"]
    assert (parity["ok"], parity["alerts"]) == (False, 1)
    assert parity["state"] in {"differs", "equal"}  # a turn may have come after it


def test_drift_is_watched_too(watched: Watched, planted: Planted) -> None:
    """Every row that the workers publish, once; the line of readiness and `/readyz` tell it."""
    assert "drift " in planted.ready
    stored = asyncio.run(_stored(watched))
    assert stored["features"] == stored["predictions"] > MESSAGES * FRAME // 5
    pattern = re.compile("drift: steady: (.+) rows of features, (.+) rows of predictions")

    def seen() -> dict[str, int]:
        found = pattern.findall(watched.stack.log.read_text())
        counts = zip(*([int(n.replace(",", "")) for n in pair] for pair in found), strict=True)
        return dict(zip(stored, map(sum, counts), strict=False))

    wait_until(lambda: seen() == stored, _PATIENCE, f"turns over {stored}")
    drift = httpx.get(watched.stack.api.replace("/graphql", "/readyz")).json()["checks"]["drift"]
    assert (drift["ok"], drift["state"], drift["alerts"]) == (True, "steady", 0)


async def _stored(watched: Watched) -> dict[str, int]:
    """Rows by table."""
    async with evidence.connection_to(watched.stack.addresses) as connection:
        row = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM features) AS features,"
            " (SELECT count(*) FROM predictions) AS predictions"
        )
    return dict(row or {})


async def _plant(watched: Watched) -> tuple[Any, float]:
    """Change a fill while the check waits: it must not have seen it before."""
    async with evidence.connection_to(watched.stack.addresses) as connection:
        before = await connection.fetchval('SELECT max("offset") FROM ticks')
        async with connection.transaction():
            await connection.execute(_HOLD)
            await watched.publish()
            row = await connection.fetchrow(
                'SELECT * FROM fills WHERE "offset" > $1 ORDER BY "offset" LIMIT 1 OFFSET 3', before
            )
            assert row is not None
            changed = row["price"] * 1.0000001
            done = await connection.execute(
                'UPDATE fills SET price = $1 WHERE "offset" = $2 AND "index" = $3',
                changed, row["offset"], row["index"],
            )  # fmt: skip
            assert done == "UPDATE 1"
    return row, changed


@pytest.mark.usefixtures("planted")
def test_trouble_is_told_and_the_check_goes_on(watched: Watched) -> None:
    """Without Postgres nothing is checked; when it is back the next turn takes up what is new."""
    watched.fleet.kill("postgres")
    line = watched.next("parity: not checked")
    assert "Postgres" in line
    assert "again at the next turn" in line
    watched.fleet.restart("postgres")
    asyncio.run(watched.publish())
    assert "rows of offsets" in watched.next("parity: bit-equal")
    assert watched.stack.log.read_text().count("ALERT") == 1


@pytest.mark.usefixtures("planted")
def test_the_command_finds_it_too(watched: Watched) -> None:
    """Also long after: exit code 1 with it, 0 for the offsets behind it."""
    values = watched.stack.values()
    done = tickstream("parity", *SETS, "--json", values=values)
    told = json.loads(done.stdout)["difference"]
    assert (told["stage"], told["symbol"], told["column"]) == ("fills", "ES.x", "price")
    assert "fills, row at" in only_line(done, 1)
    span = ("--offsets", f"{told['partition']}:{told['offset'] + 1}-")
    done = tickstream("parity", *SETS, *span, values=values)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("bit-equal: ticks ")


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "other settings"),
        ((*SETS, "--offsets", "0:0-99999999"), 2, "is not among them"),
        ((*SETS, "--offsets", "77:0-1"), 2, "nothing is stored of partition 77"),
        ((*SETS, "--offsets", "0:0-1", "--to", "1700000000"), 2, "give one of them"),
        ((*SETS, "--set", "worker.group=nobody"), 3, "there is no live run"),
        ((*SETS, "--from", "2030-01-01T00:00:00Z"), 3, "no tick is stored"),
    ],
)
def test_what_cannot_be_compared_is_no_difference(
    watched: Watched, arguments: tuple[str, ...], code: int, words: str
) -> None:
    """Exit code 2 for misuse, 3 where the comparison cannot be made, one line that says why."""
    done = CliRunner().invoke(cli, ["parity", *arguments], env=watched.stack.values())
    assert done.exit_code == code, done.output
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
