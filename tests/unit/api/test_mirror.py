"""The copy of the latest state: never behind what was published, never back in time."""

from collections.abc import Sequence
from itertools import count
from typing import Any, Final, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.latest import LatestLoader
from api.mirror import MISSING, STALE, Mirror, newest
from api.services import Services
from pipeline.cache.documents import refilled
from pipeline.cache.latest import encode
from pipeline.errors import UnavailableError
from tests.unit.api.conftest import FakeLives

STAGE: Final = "bars"
Row = dict[str, Any]


def row(offset: int, symbol: str = "A", partition: int = 0) -> Row:
    """A row as far as the mirror cares."""
    return {"partition": partition, "offset": offset, "index": 0, "symbol": symbol}


def offset_of(found: Any) -> int:
    """The offset of a row, -1 where there is none."""
    return -1 if found is None else int(found["offset"])


@pytest.fixture
def lives() -> FakeLives:
    """A feed that follows bars and has just proven it."""
    made = FakeLives()
    made.lives[STAGE] = 1
    made.seconds = 0.1
    return made


@pytest.fixture
def mirror(lives: FakeLives) -> Mirror:
    """A mirror of at most three symbols."""
    return Mirror(lives, symbols=3)


def fill(mirror: Mirror, **rows: Row | None) -> None:
    """Keep what was read just now."""
    mirror.keep(STAGE, rows, mirror.begin(STAGE), {})


def test_what_was_read_is_served_and_kept_up(mirror: Mirror, lives: FakeLives) -> None:
    """From the first reading on a row, or that there is none, is served as the feed has it."""
    assert mirror.get(STAGE, "A") is MISSING
    fill(mirror, A=row(3), B=None)
    assert lives.wanted == [STAGE]
    assert (mirror.get(STAGE, "A"), mirror.get(STAGE, "B")) == (row(3), None)
    for symbol, offset in (("A", 4), ("B", 7), ("C", 9)):
        mirror.take(STAGE, encode(row(offset, symbol)))
    assert [offset_of(mirror.get(STAGE, symbol)) for symbol in "AB"] == [4, 7]
    assert mirror.get(STAGE, "C") is MISSING  # nobody has asked for it
    assert mirror.get("ticks", "A") is MISSING
    assert mirror.staleness() == 0.1


def test_after_a_gap_nothing_is_served(mirror: Mirror, lives: FakeLives) -> None:
    """A late proof, a new connection, no connection: it is to be read again."""
    fill(mirror, A=row(3))
    lives.seconds = STALE + 0.01
    assert mirror.get(STAGE, "A") is MISSING
    assert mirror.staleness() == 0
    lives.seconds = 0.1
    assert mirror.get(STAGE, "A") == row(3)
    for life in (0, 2):
        lives.lives[STAGE] = life
        assert mirror.get(STAGE, "A") is MISSING
    assert mirror.known(STAGE, "A") == row(3)


def test_what_was_read_across_a_gap_is_not_served(mirror: Mirror, lives: FakeLives) -> None:
    """A reading that began before the stage was followed may have missed something."""
    for life in (0, 2):
        ticket = mirror.begin(STAGE)
        lives.lives[STAGE] = life
        assert mirror.keep(STAGE, {"A": row(3)}, ticket, {}) == {"A": row(3)}
        assert mirror.get(STAGE, "A") is MISSING
    lives.lives[STAGE] = 0
    ticket = mirror.begin(STAGE)
    lives.lives[STAGE] = 3
    mirror.keep(STAGE, {"A": row(3)}, ticket, {})
    assert mirror.get(STAGE, "A") is MISSING


def test_what_came_while_it_was_read_stays(mirror: Mirror) -> None:
    """A newer row that the feed brought meanwhile is served instead of what was read."""
    fill(mirror, A=row(3))
    ticket = mirror.begin(STAGE)
    mirror.take(STAGE, encode(row(5)))
    assert offset_of(mirror.keep(STAGE, {"A": row(4)}, ticket, {})["A"]) == 5
    assert offset_of(mirror.get(STAGE, "A")) == 5


def test_identities_decide(mirror: Mirror) -> None:
    """An older row replaces nothing and says that the cache is behind, an equal one that not."""
    fill(mirror, A=row(10))
    mirror.take(STAGE, encode(row(9)))
    assert mirror.get(STAGE, "A") is MISSING
    assert mirror.behind(STAGE, {"A": row(9)}) != {}
    assert mirror.behind(STAGE, {"A": None}) != {}
    assert mirror.behind(STAGE, {"A": row(10)}) == mirror.behind(STAGE, {"A": row(11)}) == {}
    mirror.take(STAGE, refilled(encode(row(10))))
    assert mirror.get(STAGE, "A") == row(10)
    mirror.take(STAGE, encode(row(1, partition=1)))
    assert mirror.get(STAGE, "A")["partition"] == 1


def test_postgres_may_overrule(mirror: Mirror) -> None:
    """Where Postgres has less than was known, as after a new beginning, that is the truth."""
    fill(mirror, A=row(10))
    found: dict[str, Row | None] = {"A": row(2)}
    behind = mirror.behind(STAGE, found)
    assert offset_of(mirror.keep(STAGE, found, mirror.begin(STAGE), {})["A"]) == 10
    assert offset_of(mirror.keep(STAGE, found, mirror.begin(STAGE), behind)["A"]) == 2
    assert offset_of(mirror.get(STAGE, "A")) == 2


def test_the_symbols_are_bounded(mirror: Mirror) -> None:
    """The one that was longest not asked for gives way; without room nothing is kept."""
    fill(mirror, A=row(1), B=row(1, "B"), C=row(1, "C"))
    mirror.get(STAGE, "A")
    fill(mirror, D=row(1, "D"))
    assert len(mirror) == 3
    assert mirror.get(STAGE, "B") is MISSING
    assert mirror.get(STAGE, "A") == row(1)
    lives = FakeLives()
    none = Mirror(lives, symbols=0)
    assert none.keep(STAGE, {"A": row(1)}, none.begin(STAGE), {}) == {"A": row(1)}
    assert (len(none), lives.wanted) == (0, [])


def test_what_was_dropped_from_the_cache_is_read_again(mirror: Mirror, lives: FakeLives) -> None:
    """By key; and what was being read at that time is not served."""
    lives.lives["predictions"] = 1
    fill(mirror, A=row(1), **{"B:C": row(1, "B:C")})
    mirror.keep("predictions", {"B:C": row(1, "B:C")}, mirror.begin("predictions"), {})
    ticket = mirror.begin(STAGE)
    mirror.forget(["bar:A", "prediction:B:C:combined", "metrics:A:1d", "nonsense", "price:A"])
    assert mirror.get(STAGE, "A") is MISSING
    assert mirror.get("predictions", "B:C") is MISSING
    assert mirror.get(STAGE, "B:C") == row(1, "B:C")
    mirror.keep(STAGE, {"A": row(1)}, ticket, {})
    assert mirror.get(STAGE, "A") is MISSING


@pytest.mark.parametrize("text", [b"", b"{}", b'{"symbol":"A"}', b"\xff" * 60])
def test_what_is_no_row_is_refused(mirror: Mirror, text: bytes) -> None:
    """Something else on the channel is said so, and changes nothing."""
    fill(mirror, A=row(1))
    with pytest.raises(ValueError, match=r"subsection|substring|document"):
        mirror.take(STAGE, text)
    assert mirror.get(STAGE, "A") == row(1)


def test_a_text_that_cannot_be_read_is_read_elsewhere(mirror: Mirror) -> None:
    """A cut text is not served, nor does it stand in the way of what is right."""
    fill(mirror, A=row(1))
    mirror.take(STAGE, encode(row(2))[:-1])
    assert mirror.get(STAGE, "A") is MISSING
    assert mirror.behind(STAGE, {"A": row(2)}) == {}
    fill(mirror, A=row(2))
    assert mirror.get(STAGE, "A") == row(2)


@pytest.mark.parametrize("symbol", ['A"B', "A\\B", '\\"', '","', "{}:[]"])
def test_any_symbol_is_found_in_its_text(mirror: Mirror, symbol: str) -> None:
    """A name may hold what JSON escapes."""
    fill(mirror, **{symbol: row(1, symbol)})
    mirror.take(STAGE, encode(row(2, symbol)))
    assert offset_of(mirror.get(STAGE, symbol)) == 2


class World:
    """Postgres, a cache behind it that may be lost or away, and a feed that may break."""

    def __init__(self, lives: FakeLives) -> None:
        self.lives = lives
        self.mirror = Mirror(lives, symbols=3)
        self.stored_to = -1
        self.cached_to: int | None = None
        self.cache_away = self.postgres_away = False
        self._numbers = count(1)

    async def cached(self, _: str, names: Sequence[str]) -> dict[str, Row | None]:
        """What the cache has."""
        if self.cache_away:
            raise UnavailableError("away")
        return {} if self.cached_to is None else dict.fromkeys(names, row(self.cached_to))

    async def stored(self, _: str, names: Sequence[str]) -> dict[str, Row]:
        """What Postgres has."""
        if self.postgres_away:
            raise UnavailableError("away")
        return {} if self.stored_to < 0 else dict.fromkeys(names, row(self.stored_to))

    def commit(self) -> None:
        """A worker stores a row."""
        self.stored_to += not self.postgres_away

    def put(self) -> None:
        """The worker caches what it stored last; that is published if it is newer."""
        known = -1 if self.cached_to is None else self.cached_to
        if not self.cache_away and self.stored_to > known:
            self.cached_to = self.stored_to
            if self.lives.life(STAGE):
                self.mirror.take(STAGE, encode(row(self.stored_to)))

    def lose(self) -> None:
        """The cache is emptied without a word, as by FLUSHALL."""
        self.cached_to = None

    def cut(self) -> None:
        """The feed loses its connection."""
        self.lives.lives.clear()

    def mend(self) -> None:
        """The feed has a connection again, unless it has one."""
        self.lives.lives.setdefault(STAGE, next(self._numbers))

    def late(self) -> None:
        """The proof is late, or in time again."""
        self.lives.seconds = 5.0 - self.lives.seconds

    def cache_goes(self) -> None:
        """The cache does not answer, or answers again with what it had."""
        self.cache_away = not self.cache_away
        self.cut()

    def postgres_goes(self) -> None:
        """The same of Postgres."""
        self.postgres_away = not self.postgres_away


ACTS = ("commit", "put", "lose", "cut", "mend", "late", "cache_goes", "postgres_goes")


@settings(max_examples=100)
@given(
    st.lists(
        st.sampled_from((*ACTS, "commit", "put", "mend", "ask", "ask")), min_size=40, max_size=80
    )
)
async def test_nobody_sees_a_symbol_go_back(acts: list[str]) -> None:
    """Whatever fails in whatever order: never less than before, nor less than the cache has."""
    lives = FakeLives()
    lives.seconds = 0.0
    world = World(lives)
    seen = -1
    for act in acts:
        if act != "ask":
            getattr(world, act)()
            continue
        loader = LatestLoader(cast("Services", world))
        from_mirror = world.mirror.get(STAGE, "A") is not MISSING
        try:
            found = offset_of(await loader.wait(STAGE, "A"))
        except UnavailableError:
            assert world.postgres_away
            continue
        assert found >= seen
        assert found <= world.stored_to
        if from_mirror or not world.cache_away:
            assert found >= (-1 if world.cached_to is None else world.cached_to)
        if loader.cache_away:
            assert found == world.stored_to
        seen = found


def test_the_newest_of_rows() -> None:
    """None is older than any row."""
    assert newest(None, row(1), row(3), row(2)) == row(3)
    assert newest(None, None) is None
