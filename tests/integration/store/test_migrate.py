"""Migrations on a real Postgres: once, whoever comes first, and never another text."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from pipeline.errors import StateError
from pipeline.settings import StoreSettings
from pipeline.store import migrate as module
from pipeline.store.migrate import migrate, migrations
from pipeline.store.pool import Pool, open_pool


@pytest.fixture
async def fresh(bare: str) -> AsyncIterator[Pool]:
    """A pool on it."""
    opened = await open_pool(bare, StoreSettings())
    yield opened
    await opened.close()


NAMES = [name for name, _ in migrations()]


async def test_migrations_are_applied_once(fresh: Pool) -> None:
    """The first run applies all in order, the second nothing."""
    assert sorted(NAMES) == NAMES
    assert await migrate(fresh) == NAMES
    assert await migrate(fresh) == []
    assert await fresh.fetchval("SELECT count(*) FROM migrations") == len(NAMES)


async def test_several_processes_may_migrate_at_once(fresh: Pool, bare: str) -> None:
    """Workers and the API start together: one of them does the work, nobody fails."""
    other = await open_pool(bare, StoreSettings())
    try:
        done = await asyncio.gather(*(migrate(pool) for pool in (fresh, other) * 3))
    finally:
        await other.close()
    assert sorted(name for names in done for name in names) == NAMES
    assert await fresh.fetchval("SELECT count(*) FROM bars") == 0


async def test_a_changed_text_is_refused(fresh: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database of another version is left alone, and the message names the file."""
    await migrate(fresh)
    changed = [(name, text + "\n-- changed") for name, text in migrations()]
    monkeypatch.setattr(module, "migrations", lambda: changed)
    with pytest.raises(StateError, match=NAMES[0]):
        await migrate(fresh)


async def test_a_failing_migration_leaves_nothing(
    fresh: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a run or none of it: the next start begins where this one did."""
    texts = [
        *migrations(),
        ("9999_wrong.sql", "CREATE TABLE half (x int); SELECT wrong FROM nothing"),
    ]
    monkeypatch.setattr(module, "migrations", lambda: texts)
    with pytest.raises(StateError, match=r"migration 9999_wrong\.sql .* \"nothing\""):
        await migrate(fresh)
    tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
    assert await fresh.fetchval(tables) == 0
    monkeypatch.undo()
    assert await migrate(fresh) == NAMES
