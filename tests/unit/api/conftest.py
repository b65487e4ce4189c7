"""The endpoint over stores that are lists."""

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from typing import Any, cast

import pytest

from api.access import Access
from api.app import create_graphql
from api.backing import create_access
from api.hub import Hubs
from api.mirror import Mirror
from api.rates import Lease, Rates
from api.renderings import Renderings
from api.services import Services
from api.topics import Topics
from pipeline.cache.buckets import Grant
from pipeline.cache.latest import encode
from pipeline.errors import UnavailableError
from pipeline.settings import Settings

SYMBOLS = [f"S{number:03}" for number in range(50)]
SETTINGS = Settings(postgres="postgresql://nowhere", redis="redis://nowhere")
HEAD = {"partition": 0, "index": 0, "ts": 1_700_000_000_123_456_789, "known_at": 0}


class FakeLives:
    """A feed that says what a test sets; by itself it follows nothing."""

    def __init__(self) -> None:
        self.lives: dict[str, int] = {}
        self.seconds = float("inf")
        self.wanted: list[str] = []

    def want(self, stage: str) -> None:
        """Follow a stage."""
        self.wanted.append(stage)

    def life(self, stage: str) -> int:
        """Whether it is followed."""
        return self.lives.get(stage, 0)

    def age(self) -> float:
        """Seconds since the last proof."""
        return self.seconds


class FakeServices:
    """What the endpoint asks of `Services`, with every call counted."""

    def __init__(self) -> None:
        self.settings = SETTINGS
        self.hubs = Hubs(lambda _stage: nullcontext())
        self.topics = Topics(None)
        self.renderings = Renderings()
        self.lives = FakeLives()
        self.mirror = Mirror(self.lives, symbols=10)
        self.calls: list[tuple[str, str, int]] = []
        self.cache_away = False
        self.postgres_fails: Exception | None = None
        self.cached_symbols = set(SYMBOLS)

    async def symbols(self, names: Collection[str] | None = None) -> list[str]:
        """All names, or those asked for."""
        if self.postgres_fails is not None:
            raise self.postgres_fails
        return [name for name in SYMBOLS if names is None or name in names]

    @staticmethod
    def known_symbols(names: Collection[str] | None = None) -> list[str] | None:
        """Each name was met before; whether they are all has to be asked."""
        return sorted(names) if names is not None and set(names) <= set(SYMBOLS) else None

    async def cached(self, stage: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Rows of the cache."""
        self.calls.append(("cache", stage, len(names)))
        if self.cache_away:
            raise UnavailableError("away")
        return {name: self.row(name) for name in names if name in self.cached_symbols}

    async def stored(self, stage: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Rows of Postgres."""
        self.calls.append(("postgres", stage, len(names)))
        if self.postgres_fails is not None:
            raise self.postgres_fails
        return {name: self.row(name) for name in names}

    def push(self, row: dict[str, Any], stage: str = "signals") -> None:
        """What the feed does when a row is published."""
        self.hubs.publish(stage, encode(row))

    @staticmethod
    def row(name: str) -> dict[str, Any]:
        """A row that will do for the fields the tests ask for."""
        return {**HEAD, "symbol": name, "offset": 2**60, "price": 1.5, "close": 2.5, "id": -1}


async def unlimited(_name: str, _rate: float, _burst: int, wanted: int) -> Grant:
    """A bucket that is never empty."""
    return Grant(wanted, 0.0)


def create(services: FakeServices, access: Access | None = None, lease: Lease = unlimited) -> Any:
    """The GraphQL application over stores that are lists."""
    found = cast("Services", services)
    rates = Rates(services.settings.api, lease)
    return create_graphql(found, access or create_access(found), rates)


@pytest.fixture
def services() -> FakeServices:
    """Stores without servers."""
    return FakeServices()


@pytest.fixture
def endpoint(services: FakeServices) -> Any:
    """The GraphQL application over them."""
    return create(services)


@pytest.fixture
def production(services: FakeServices) -> Any:
    """The same, not for development."""
    api = services.settings.api.model_copy(update={"development": False})
    services.settings = services.settings.model_copy(update={"api": api})
    return create(services)
