"""Parity: replay a stretch of the topic and hold every stored live row against it, bit by bit."""

from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from pipeline.bus.decoding import new_decoder
from pipeline.bus.ranges import Range
from pipeline.bus.topics import offset_bounds
from pipeline.errors import MisuseError, StateError, UncheckedError
from pipeline.models.activations import plan_stored
from pipeline.replay.differences import Difference, first_difference
from pipeline.replay.engine import Progress, quiet
from pipeline.replay.messages import Read, cut, from_broker, groups
from pipeline.settings import Settings
from pipeline.stages.chain import Chain
from pipeline.store.pool import Pool
from pipeline.store.statements import statement
from pipeline.store.stored import reading
from pipeline.store.stretches import BEHIND, Place, SortedRows, StoredRows, kept_state
from schemas.blocks import STAGES, Rows, empty
from schemas.topics import PRICES


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Rows compared by stage, and the first difference if there is one."""

    rows: Mapping[str, int]
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class Piece:
    """Replayed rows of every stage up to a place, which `whole` says is the end of a message."""

    rows: Mapping[str, Rows]
    upto: Place
    whole: bool


async def pieces(read: Read, chain: Chain, span: Range, block: int) -> AsyncGenerator[Piece, None]:
    """Step a chain over the messages of its partition with low <= offset < high.

    At most `block` ticks a piece. The last piece is empty and ends with the span, also where the
    topic ends before: whatever is stored behind it must show.
    """
    decoder = new_decoder(chain.partition)
    async with aclosing(read(chain.partition, span)) as found:
        async for messages in found:
            for group in groups(messages, block):
                parts = list(cut(*decoder.decode(group), block))
                for came, unread in parts[:-1]:
                    upto = int(came["offset"][-1]), int(came["index"][-1])
                    yield Piece(chain.step(came, unread).rows, upto, whole=False)
                rows = chain.step(*parts[-1]).rows
                yield Piece(rows, (group[-1].offset, BEHIND), whole=True)
    yield Piece({}, (span[1] - 1, BEHIND), whole=True)


@dataclass(slots=True)
class Comparison:
    """Stored rows of a partition held against its replay from an offset on, piece by piece."""

    stored: StoredRows
    low: int
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    difference: Difference | None = None
    _after: Place = (-1, BEHIND)

    async def add(self, piece: Piece) -> None:
        """Compare the rows of the next piece; nothing more once there is a difference."""
        if piece.upto[0] < self.low or self.difference is not None:
            return
        after = max(self._after, (self.low - 1, BEHIND))
        found = []
        for stage in STAGES:
            ours = piece.rows.get(stage, empty(stage))
            if len(ours) and ours["offset"][0] < self.low:
                ours = ours.take(ours["offset"] >= self.low)
            live = await self.stored.between(after, piece.upto, ours)
            self.rows[stage] += len(live)
            difference = first_difference(live, ours)
            if difference is not None:
                found.append(difference)
        # Of one row, the first stage that differs is the cause of the others.
        self.difference = min(found, key=lambda one: (one.offset, one.index), default=None)
        self._after = piece.upto


async def stored_marks(pool: Pool, settings: Settings) -> dict[int, int]:
    """The last offset that a live run has stored, by partition.

    Raises:
        MisuseError: it ran with other settings than these.
    """
    rows = await pool.fetch(statement("progress"), settings.worker.group)
    if any(row["fingerprint"] != settings.chain.fingerprint() for row in rows):
        raise MisuseError(
            "what is stored was computed with other settings or another version: give the --bar "
            "and --set of the live run"
        )
    return {row["partition"]: row["mark"] for row in rows if row["mark"] >= 0}


async def first_kept(pool: Pool, settings: Settings, partition: int) -> int:
    """The first offset of which all rows are stored: where old ones are dropped, of a tick."""
    if settings.store.retention_days is None:
        return 0
    return await pool.fetchval(statement("first_offset"), partition) or 0


async def compare(
    bootstrap: str,
    pool: Pool,
    settings: Settings,
    ranges: Mapping[int, Range],
    progress: Progress = quiet,
) -> ParityReport:
    """Replay partitions and compare within low <= offset < high; ends at the first difference.

    A replay begins with the topic or, where retention has deleted its beginning, with a state that
    a worker or an earlier check kept. What is held does not grow with the ranges.

    Raises:
        UncheckedError: there is no state to begin with.
        UnavailableError: a server does not answer.
    """
    rows = dict.fromkeys(STAGES, 0)
    starts = await _starts(bootstrap, pool, settings, ranges)
    total = sum(ranges[partition][1] - start for partition, (_, start) in starts.items())
    done = 0
    for partition, (low, high) in sorted(ranges.items()):
        chain, start = starts.pop(partition)
        async with reading(pool) as connection:
            comparison = Comparison(SortedRows(connection, partition, low, high), low, rows)
            span = start, high
            replay = pieces(from_broker(bootstrap), chain, span, settings.replay.block)
            async with aclosing(replay) as found:
                async for piece in found:
                    await comparison.add(piece)
                    if comparison.difference is not None:
                        await still_there(bootstrap, comparison.difference)
                        return ParityReport(rows, comparison.difference)
                    share = (done + piece.upto[0] + 1 - start) / total if total else None
                    progress(rows["ticks"], share)
        done += high - start
    return ParityReport(rows, None)


async def first_offsets(bootstrap: str) -> Mapping[int, int]:
    """The first offset that `prices` still has, by partition; 0 of one that it does not have."""
    edges = await offset_bounds(bootstrap, PRICES)
    return defaultdict(int, {partition: first for partition, (first, _) in edges.items()})


async def still_there(bootstrap: str, difference: Difference) -> None:
    """Make sure that retention has not taken away the message of a difference meanwhile.

    Raises:
        UncheckedError: it has, and the replay may have missed it.
    """
    first = (await first_offsets(bootstrap))[difference.partition]
    if first > difference.offset:
        raise UncheckedError(
            f"partition {difference.partition}: retention has deleted the messages before offset "
            f"{first} while they were compared"
        )


async def _starts(
    bootstrap: str, pool: Pool, settings: Settings, ranges: Mapping[int, Range]
) -> dict[int, tuple[Chain, int]]:
    """For each partition a chain and the first offset that it has not seen."""
    begins = await first_offsets(bootstrap)
    found = {}
    for partition, (low, _) in ranges.items():
        first = begins[partition]
        chain = Chain(settings.chain, partition)
        start = 0
        if first > 0:
            start = await restored(chain, pool, settings, first, low)
        await plan_stored(pool, settings.worker.group, chain)
        found[partition] = chain, start
    return found


def checker_of(settings: Settings) -> str:
    """The service under which scheduled checks keep how far they came, and their states."""
    return f"{settings.worker.group}.parity"


async def restored(chain: Chain, pool: Pool, settings: Settings, first: int, low: int) -> int:
    """Give a chain the oldest kept state from which a replay can reach `low`; where that begins.

    `first` is the first offset that the topic still has.

    Raises:
        UncheckedError: there is none.
        StateError: what there is is damaged, or was made with other settings.
    """
    refused: StateError | None = None
    for service in (checker_of(settings), settings.worker.group):
        state = await kept_state(pool, service, chain.partition, first - 1, low - 1)
        if state is None:
            continue
        try:
            chain.restore(state[1])
        except StateError as error:
            refused = error
        else:
            return state[0] + 1
    if refused is not None:
        raise refused
    newest = await kept_state(pool, settings.worker.group, chain.partition, low, 2**62)
    hint = "" if newest is None else f"; --offsets {chain.partition}:{newest[0] + 1}- can be"
    raise UncheckedError(
        f"partition {chain.partition}: retention has deleted the messages before offset {first}, "
        f"and no state is kept from which offset {low} could be reached: it cannot be compared"
        f"{hint}"
    )
