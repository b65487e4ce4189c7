"""What must hold after a run, asked of Postgres, of the topics and of the cache."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from pipeline.cache.latest import entries
from schemas.blocks import STAGES, names_of
from schemas.topics import BLOCK_TOPICS, REJECTED, SIGNALS
from tests.acceptance import evidence
from tests.acceptance.chaos.oracle import Expected, Identity, Turned
from tests.acceptance.chaos.outputs import OUTPUTS, ends_of, read_on
from tests.acceptance.chaos.prices import Publication, digest
from tests.acceptance.chaos.watching import Database
from tests.acceptance.chaos.world import World

_CACHE: Final = 15.0
_SHOWN: Final = 5
_RANGES: Final = (
    " JOIN unnest($1::int[], $2::bigint[], $3::bigint[]) AS r(of_part, first_at, last_at)"
    ' ON "partition" = of_part AND "offset" >= first_at AND "offset" < last_at'
)


@dataclass(slots=True)
class Verdict:
    """What is wrong, by kind; empty when all is well."""

    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    ahead: list[str] = field(default_factory=list)
    backwards: list[str] = field(default_factory=list)

    def faults(self) -> dict[str, list[str]]:
        """Kinds with their first findings and how many there are."""
        kinds = {
            "lost": self.lost,
            "twice": self.twice,
            "different": self.different,
            "committed ahead of the mark": self.ahead,
            "cache went back": self.backwards,
        }
        return {f"{kind} ({len(found)})": found[:_SHOWN] for kind, found in kinds.items() if found}


async def check(world: World, database: Database, sent: Sequence[Publication]) -> Verdict:
    """Wait until all is stored, then hold everything against a clean replay."""
    verdict = Verdict()
    kafka = world.addresses.kafka
    ends = {p: end for (_, p), end in (await ends_of(kafka, ("prices",))).items()}
    await _drain(world, database, ends, verdict)
    expected = await world.oracle.advance(kafka, ends)
    _published(world, expected, sent, verdict)
    await _stored(database, expected, verdict)
    await _counted(world, database, expected, verdict)
    await _topics(world, expected, verdict)
    await _cache(world, expected, verdict)
    verdict.ahead += world.seen.ahead
    verdict.backwards += world.seen.backwards
    world.before = expected
    return verdict


async def _drain(
    world: World, database: Database, ends: Mapping[int, int], verdict: Verdict
) -> None:
    async def drained() -> bool:
        if world.seen.ahead:  # that is wrong for good: what is acknowledged is never read again
            return True
        marks = await database.marks(world.group)
        return all(marks.get(partition, -1) + 1 == end for partition, end in ends.items())

    try:
        await evidence.until(drained, world.patience, 0.05)
    except TimeoutError:
        marks = await database.marks(world.group)
        verdict.lost.append(f"never stored: marks {marks}, ends {ends}")


def _published(
    world: World, expected: Expected, sent: Sequence[Publication], verdict: Verdict
) -> None:
    """The topic carries what was published, and the replay judged every tick of it."""
    there = Counter((partition, digest(v)) for (partition, _), v in expected.messages.items())
    for missing in Counter((one.partition, digest(one.value)) for one in sent) - there:
        verdict.lost.append(f"a delivered message is not on the topic: {missing}")
    places = [
        (partition, offset, index)
        for (partition, offset), value in expected.messages.items()
        for index in world.ground.market.published[digest(value)]
    ]
    judged = [*expected.rows["ticks"], *expected.rejects]
    _sets("published and replayed", places, judged, verdict)


def _sets(
    what: str, wanted: Iterable[Identity], found: Iterable[Identity], verdict: Verdict
) -> None:
    """Every wanted identity once, and no other."""
    want, got = Counter(iter(wanted)), Counter(iter(found))
    verdict.lost += [f"{what}: {identity} is missing" for identity in want - got]
    verdict.twice += [f"{what}: {identity} is there too often" for identity in got - want]


async def _rows(
    database: Database, table: str, names: Sequence[str], expected: Expected
) -> list[Mapping[str, Any]]:
    listed = ", ".join(f'"{name}"' for name in names)
    edges = [(p, low, high) for p, (low, high) in expected.ranges.items()]
    columns = [list(column) for column in zip(*edges, strict=True)]
    return [
        dict(row)
        for row in await database.fetch(f"SELECT {listed} FROM {table}{_RANGES}", *columns)  # noqa: S608 -- closed lists
    ]


def _identity(row: Mapping[str, Any]) -> Identity:
    return (row["partition"], row["offset"], row["index"])


async def _stored(database: Database, expected: Expected, verdict: Verdict) -> None:
    """Each row of each table once, bit for bit; nothing else anywhere in the tables."""
    judged: list[Identity] = []
    for stage in STAGES:
        found = await _rows(database, stage, names_of(stage), expected)
        wanted = expected.rows[stage]
        identities = [_identity(row) for row in found]
        _sets(stage, wanted, identities, verdict)
        verdict.different += [
            f"{stage}: {row}, replayed {wanted[_identity(row)]}"
            for row in found
            if _identity(row) in wanted
            and not evidence.same_bits(dict(row), wanted[_identity(row)])
        ]
        if stage == "ticks":
            judged += identities
    names = ("partition", "offset", "index", "reason", "detail", "value")
    rejected = await _rows(database, "rejected", names, expected)
    judged += [_identity(row) for row in rejected]
    for row in rejected:
        told = (row["reason"], row["detail"].replace("\N{REPLACEMENT CHARACTER}", "\x00"))
        wanted_reject = expected.rejects.get(_identity(row))
        if wanted_reject is not None and (*told, row["value"]) != _plain(wanted_reject):
            verdict.different.append(f"rejected: {row}, replayed {wanted_reject}")
    wanted_judged = [*expected.rows["ticks"], *expected.rejects]
    _sets("ticks and rejected", wanted_judged, judged, verdict)


def _plain(reject: Turned) -> Turned:
    return (reject[0], reject[1].replace("\N{REPLACEMENT CHARACTER}", "\x00"), reject[2])


async def _counted(world: World, database: Database, expected: Expected, verdict: Verdict) -> None:
    """Whole tables hold as many rows as all runs made; counts of quality were never added twice."""
    made = {stage: len(rows) for stage, rows in expected.rows.items()}
    for table, number in {**made, "rejected": len(expected.rejects)}.items():
        world.totals[table] += number
        count = await database.value(f"SELECT count(*) FROM {table}")  # noqa: S608 -- closed lists
        if count != world.totals[table]:
            kind = verdict.lost if count < world.totals[table] else verdict.twice
            kind.append(f"{table}: {count} rows in all, {world.totals[table]} made")
    found = {
        (row["partition"], row["symbol"], row["reason"]): row["count"]
        for row in await database.fetch("SELECT * FROM data_quality WHERE count > 0")
    }
    wanted = world.oracle.quality()
    verdict.different += [
        f"data_quality {key}: {found.get(key)}, replayed {wanted.get(key)}"
        for key in found.keys() | wanted.keys()
        if found.get(key) != wanted.get(key)
    ]


async def _topics(world: World, expected: Expected, verdict: Verdict) -> None:
    """A reader who drops what is not above the last identity seen gets each row once, in order."""
    kafka = world.addresses.kafka
    ends = await ends_of(kafka, OUTPUTS)
    came = await read_on(kafka, world.read, ends)
    world.read.update(ends)
    for topic in (*BLOCK_TOPICS, SIGNALS):
        taken: list[Identity] = []
        for (name, _), records in came.items():
            if name == topic:
                taken += _taken(world, topic, expected, records, verdict)
        _sets(f"topic {topic}", expected.rows[topic], taken, verdict)
    taken = []
    for (name, _), records in came.items():
        if name == REJECTED:
            taken += _taken_rejects(world, expected, records, verdict)
    _sets("topic prices.rejected", expected.rejects, taken, verdict)


def _taken(
    world: World,
    topic: str,
    expected: Expected,
    records: Sequence[evidence.Record],
    verdict: Verdict,
) -> list[Identity]:
    """What is new to a reader of one partition; a repeat must be equal, too."""
    taken: list[Identity] = []
    high: dict[int, Identity] = {}
    for record in records:
        assert record.value is not None
        if topic == SIGNALS:
            rows = [json.loads(record.value)]
        else:
            rows = pa.ipc.open_stream(record.value).read_all().to_pylist()
        for row in rows:
            identity = _identity(row)
            wanted = _wanted(world, expected, topic, identity)
            if wanted is None:
                verdict.twice.append(f"topic {topic}: a row that nothing made: {row}")
                continue
            whole = evidence.document_of(wanted) if topic == SIGNALS else wanted
            if not evidence.same_bits(row, whole):
                verdict.different.append(f"topic {topic}: {row}, replayed {whole}")
            new = identity in expected.rows[topic]
            if new and identity > high.get(identity[0], (-1, -1, -1)):
                high[identity[0]] = identity
                taken.append(identity)
    return taken


def _wanted(
    world: World, expected: Expected, topic: str, identity: Identity
) -> evidence.Row | None:
    """The replayed row, of this run or of the one before: its end may have been published again."""
    found = expected.rows[topic].get(identity)
    if found is None and world.before is not None:
        found = world.before.rows[topic].get(identity)
    return found


def _taken_rejects(
    world: World, expected: Expected, records: Sequence[evidence.Record], verdict: Verdict
) -> list[Identity]:
    taken = set()
    for record in records:
        partition, offset, index = (
            int(record.headers[name]) for name in ("partition", "offset", "index")
        )
        identity = (partition, offset, index)
        came = (record.headers["reason"], record.headers["detail"], record.value or b"")
        wanted = expected.rejects.get(identity)
        if wanted is not None:
            taken.add(identity)
        elif world.before is not None:
            wanted = world.before.rejects.get(identity)
        if came != wanted:
            verdict.different.append(f"topic prices.rejected: {came}, replayed {wanted}")
    return sorted(taken)


async def _cache(world: World, expected: Expected, verdict: Verdict) -> None:
    """In the end each latest value is the newest row, also after the cache was lost."""
    for stage in STAGES:
        for row in sorted(expected.rows[stage].values(), key=_identity):
            world.latest[f"{stage} {row['symbol']}"] = row
    wanted = {
        key: document
        for name, row in world.latest.items()
        for key, document, _ in entries(name.split()[0], [evidence.document_of(row)])
    }
    wrong: list[str] = []

    async def right() -> bool:
        async with evidence.redis_of(world.addresses) as client:
            found = await client.mget(list(wanted))
        wrong[:] = [
            f"{key}: {value!r} in the end, not {wanted[key]!r}"
            for key, value in zip(wanted, found, strict=True)
            if value is None or json.loads(value) != json.loads(wanted[key])
        ]
        return not wrong

    try:
        await evidence.until(right, _CACHE, 0.1)
    except TimeoutError:
        verdict.backwards += wrong
