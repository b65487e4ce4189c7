"""Keys of the API in a real Postgres: what is stored of them, and when they end."""

import hashlib
from datetime import timedelta

import pytest

from pipeline.errors import MisuseError
from pipeline.store.keys import Role, create_key, key_id, list_keys, revoke_key, rotate_key
from pipeline.store.keys import valid_keys as valid
from pipeline.store.pool import Pool


async def states(pool: Pool) -> dict[str, str]:
    """State by id."""
    return {row["id"]: row["state"] for row in await list_keys(pool)}


async def test_only_the_digest_is_stored(pool: Pool) -> None:
    """A key has its form; nothing in the table holds its secret, only SHA-256 of the whole."""
    made = await create_key(pool, "dashboard", Role.READER, None)
    prefix, own, secret = made.text.split("_")
    assert (prefix, own, len(secret)) == ("tsk", made.id, 64)
    assert key_id(made.text) == made.id
    assert secret not in repr(made)
    table = await pool.fetchval("SELECT string_agg(k::text, '') FROM api_keys k")
    assert made.id in table
    assert secret not in table
    record = (await valid(pool))[made.id]
    assert record.digest == hashlib.sha256(made.text.encode()).digest()
    assert (record.name, record.role, record.expires_at) == ("dashboard", Role.READER, None)


async def test_keys_differ(pool: Pool) -> None:
    """No two keys share an id or a secret, whatever their name."""
    made = [await create_key(pool, "same", Role.ADMIN, None) for _ in range(20)]
    assert len({part for key in made for part in key.text.split("_")[1:]}) == 40


async def test_a_revoked_key_is_not_valid(pool: Pool) -> None:
    """Revoking ends one key and no other; doing it twice changes nothing."""
    one = await create_key(pool, "one", Role.READER, None)
    two = await create_key(pool, "two", Role.OPERATOR, None)
    await revoke_key(pool, one.id)
    at = await pool.fetchval("SELECT revoked_at FROM api_keys WHERE id = $1", one.id)
    await revoke_key(pool, one.id)
    assert await pool.fetchval("SELECT revoked_at FROM api_keys WHERE id = $1", one.id) == at
    assert set(await valid(pool)) == {two.id}
    assert await states(pool) == {one.id: "revoked", two.id: "valid"}


async def test_a_key_ends_with_its_lifetime(pool: Pool) -> None:
    """An expired key is listed, but valid no more."""
    made = await create_key(pool, "short", Role.READER, timedelta(days=1))
    assert set(await valid(pool)) == {made.id}
    await pool.execute("UPDATE api_keys SET expires_at = now() - interval '1 ms'")
    assert not await valid(pool)
    assert await states(pool) == {made.id: "expired"}


async def test_rotation_keeps_what_the_key_may(pool: Pool) -> None:
    """The new key has name, role and lifetime of the old one, which ends after the overlap."""
    old = await create_key(pool, "bot", Role.OPERATOR, timedelta(days=90))
    new = await rotate_key(pool, old.id, timedelta(hours=1))
    assert (new.name, new.role) == ("bot", Role.OPERATOR)
    found = await valid(pool)
    assert set(found) == {old.id, new.id}
    now = await pool.fetchval("SELECT now()")
    ends = {key: record.expires_at for key, record in found.items()}
    assert ends[old.id] is not None
    assert ends[new.id] is not None
    assert timedelta(minutes=59) < ends[old.id] - now <= timedelta(hours=1)
    assert timedelta(days=89) < ends[new.id] - now <= timedelta(days=90)
    later = await rotate_key(pool, new.id, timedelta(days=1000))
    assert (await valid(pool))[new.id].expires_at == ends[new.id]  # an overlap prolongs nothing
    await rotate_key(pool, later.id, timedelta(0))
    assert later.id not in await valid(pool)


async def test_what_is_not_there_is_told(pool: Pool) -> None:
    """Unknown, revoked and expired keys are not rotated, unknown ones not revoked."""
    gone = await create_key(pool, "gone", Role.READER, None)
    await revoke_key(pool, gone.id)
    for name in (gone.id, "000000000000", "'; DROP TABLE api_keys; --"):
        with pytest.raises(MisuseError, match="no valid key has the id"):
            await rotate_key(pool, name, timedelta(0))
    with pytest.raises(MisuseError, match="no key has the id"):
        await revoke_key(pool, "nobody")
    assert len(await list_keys(pool)) == 1


@pytest.mark.parametrize("name", ["", "x" * 65, "two\nlines", "nul\0"])
async def test_names_are_for_people(pool: Pool, name: str) -> None:
    """A name that a list could not show is refused."""
    with pytest.raises(MisuseError, match="printable"):
        await create_key(pool, name, Role.READER, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tsk_",
        "tsk_0123456789ab_",
        "tsk_0123456789AB_" + "0" * 64,
        "tsk_0123456789ab_" + "0" * 63,
        "tsk_0123456789ab_" + "0" * 65,
        "tsk_0123456789ab_" + "0" * 64 + "\n",
        "TSK_0123456789ab_" + "0" * 64,
        "tsk_٠123456789ab_" + "0" * 64,
    ],
)
def test_what_is_no_key(text: str) -> None:
    """Only the exact form has an id."""
    assert key_id(text) is None


def test_roles_include_the_lower_ones() -> None:
    """The order is reader, operator, admin."""
    order = [Role.READER, Role.OPERATOR, Role.ADMIN]
    for place, role in enumerate(order):
        assert [role.covers(needed) for needed in order] == [n <= place for n in range(3)]
