"""Who is let in over HTTP and WebSocket, by keys that are read again while they stay."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from api import access as module
from api.access import Access, bearer, credential_of
from api.errors import ApiError, Code
from api.principals import LOCAL, Principal
from pipeline.clock import now_ns
from pipeline.settings import ApiSettings, JwtSettings
from pipeline.store.keys import KeyRecord, Role, digest_of
from tests.unit.api.conftest import HEAD, create
from tests.unit.api.test_tokens import CLAIMS, NOW, SECRET, token
from tests.unit.api.test_websocket import ACK, INIT, LIVE, Client, clients_are, subscribe

KEY = "tsk_0123456789ab_" + "5" * 64
OTHER = "tsk_0123456789ab_" + "6" * 64
ASK = {"query": "{ symbols(first: 1) { name } }"}


def record(text: str = KEY, role: Role = Role.READER, **values: Any) -> KeyRecord:
    """A stored key."""
    common = {"name": "n", "role": role, "digest": digest_of(text), "expires_at": None}
    return KeyRecord(text[4:16], **{**common, **values})


def wall() -> datetime:
    """Now."""
    return datetime.fromtimestamp(now_ns() / 1e9, UTC)


class Door:
    """Access to keys that a test changes."""

    def __init__(self, *records: KeyRecord, **settings: Any) -> None:
        self.keys: dict[str, KeyRecord] | None = {one.id: one for one in records}
        self.reads = 0
        jwt = JwtSettings(secrets=(SecretStr(SECRET),))
        self.access = Access(ApiSettings(**{"auth": True, "jwt": jwt, **settings}), self.read)

    async def read(self) -> Mapping[str, KeyRecord]:
        """What Postgres would say."""
        self.reads += 1
        if self.keys is None:
            raise ApiError(Code.UNAVAILABLE, "away")
        return dict(self.keys)

    async def look(self) -> None:
        """One turn of the loop."""
        task = asyncio.create_task(self.access.run())
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_key_speaks_for_its_role() -> None:
    """The right key gives its principal, another secret under the same id nothing."""
    door = Door(record(role=Role.OPERATOR))
    await door.look()
    assert door.access.admit(KEY) == Principal(
        "key:0123456789ab", Role.OPERATOR, key="0123456789ab"
    )
    for wrong in (OTHER, KEY[:-1], KEY + "5", KEY.upper(), "tsk_", "", "x", None):
        with pytest.raises(ApiError) as caught:
            door.access.admit(wrong)
        assert caught.value.code is Code.UNAUTHENTICATED


async def test_nobody_is_let_in_before_the_keys_are_known() -> None:
    """While Postgres was never reached, keys are not judged; tokens are."""
    door = Door(record())
    with pytest.raises(ApiError) as caught:
        door.access.admit(KEY)
    assert caught.value.code is Code.UNAVAILABLE
    assert door.access.admit(token()).id == "token:ann"


async def test_keys_outlive_an_absence_of_postgres_but_not_their_time() -> None:
    """What was read last stays in force, except what ends by itself."""
    soon = wall() + timedelta(milliseconds=300)
    door = Door(record(expires_at=soon), record("tsk_ffffffffffff_" + "1" * 64))
    await door.look()
    door.keys = None
    await door.look()
    assert door.access.admit(KEY).until == soon.timestamp()
    await asyncio.sleep(0.31)
    with pytest.raises(ApiError):
        door.access.admit(KEY)
    assert door.access.admit("tsk_ffffffffffff_" + "1" * 64).until is None


async def test_a_token_ends_though_it_was_verified() -> None:
    """A token that is known is refused once its time is over."""
    door = Door()
    text = token({**CLAIMS, "exp": NOW + 600})
    found = door.access.admit(text)
    assert door.access.holds(found)
    ended = Principal(found.id, found.role, until=now_ns() / 1e9 - 1)
    assert not door.access.holds(ended)


async def test_tokens_need_a_key_of_the_settings() -> None:
    """Without secrets or public keys no token is taken."""
    door = Door(jwt=JwtSettings())
    with pytest.raises(ApiError):
        door.access.admit(token())


async def test_without_auth_everybody_is_local() -> None:
    """Where nobody is asked, no key is read and all is allowed."""
    door = Door(auth=False)
    assert door.access.admit(None) is LOCAL
    async with asyncio.timeout(1):
        await door.access.run()
    assert door.reads == 0


async def test_the_loop_survives_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading that fails in a way nobody thought of does not end the readings."""
    monkeypatch.setattr(module, "_FIRST_EVERY", 0.001)
    door = Door(record())
    fail = True

    async def read() -> Mapping[str, KeyRecord]:
        if fail:
            raise ZeroDivisionError
        return await door.read()

    access = Access(ApiSettings(auth=True), read)
    task = asyncio.create_task(access.run())
    await asyncio.sleep(0.02)
    fail = False
    for _ in range(1000):
        if access.ready:
            break
        await asyncio.sleep(0.005)
    assert access.admit(KEY).role is Role.READER
    task.cancel()


@pytest.mark.parametrize(
    ("header", "credential"),
    [
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Bearer  ", None),
        ("Bearer x", "x"),
        ("bearer  x ", "x"),
        ("Basic eDp5", None),
        ("x", None),
    ],
)
def test_only_bearer_is_read(header: str | None, credential: str | None) -> None:
    """RFC 6750: the scheme, without regard to case, and the credential."""
    assert bearer(header) == credential


@pytest.mark.parametrize(
    ("payload", "credential"),
    [
        (None, "shake"),
        ({}, "shake"),
        ({"other": "Bearer x"}, "shake"),
        ({"authorization": "Bearer x"}, "x"),
        ({"Authorization": "Bearer x"}, "x"),
        ({"authorization": "x"}, None),
        ({"authorization": None}, None),
        ({"authorization": ["Bearer x"]}, None),
    ],
)
def test_connection_init_comes_first(payload: Any, credential: str | None) -> None:
    """What `connection_init` says of authorization is the answer, even a wrong one."""
    assert credential_of(payload, "Bearer shake") == credential


async def post(endpoint: Any, *headers: tuple[str, str]) -> httpx.Response:
    """A query with these headers."""
    transport = httpx.ASGITransport(endpoint)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.post("/", json=ASK, headers=list(headers))


async def test_http_asks_for_a_key(services: Any) -> None:
    """401 with a challenge without a valid one, whatever the body; the answer with it."""
    door = Door(record())
    endpoint = create(services, door.access)
    early = await post(endpoint, ("authorization", f"Bearer {KEY}"))
    assert (early.status_code, early.headers["retry-after"]) == (503, "1")
    await door.look()
    good = ("authorization", f"Bearer {KEY}")
    assert (await post(endpoint, good)).json() == {"data": {"symbols": [{"name": "S000"}]}}
    jwt = ("authorization", f"Bearer {token()}")
    assert (await post(endpoint, jwt)).status_code == 200
    for wrong in (
        [],
        [("authorization", KEY)],
        [("authorization", f"Bearer {OTHER}")],
        [("authorization", f"Basic {KEY}")],
        [good, good],
        [("authorization", f"Bearer {token({**CLAIMS, 'exp': NOW - 1})}")],
        [("authorization", f"Bearer {token(header={'alg': 'none'}, sign=lambda _: b'')}")],
        [("x-api-key", KEY)],
    ):
        answer = await post(endpoint, *wrong)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        (error,) = answer.json()["errors"]
        assert error["extensions"] == {"code": "UNAUTHENTICATED"}
        assert "5555" not in answer.text


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        (None, 4403),
        ({"authorization": f"Bearer {OTHER}"}, 4403),
        ({"authorization": f"Bearer {KEY}"}, ACK),
        ({"authorization": f"Bearer {token()}"}, ACK),
        ({"authorization": f"Bearer {token({**CLAIMS, 'exp': NOW - 1})}"}, 4403),
    ],
)
async def test_websocket_asks_for_a_key(services: Any, payload: Any, answer: Any) -> None:
    """A client without a valid credential in `connection_init` is closed with 4403."""
    door = Door(record())
    await door.look()
    client = Client(create(services, door.access))
    assert await client.receive()
    client.send({**INIT, "payload": payload})
    assert await client.receive() == answer
    if answer == ACK:
        await client.leave()
    assert not door.access._guests


async def test_websocket_before_the_keys_are_known(services: Any) -> None:
    """A client that comes too early is told to try again, not that it is forbidden."""
    client = Client(create(services, Door(record()).access))
    client.send({**INIT, "payload": {"authorization": f"Bearer {KEY}"}})
    assert [await client.receive() for _ in range(2)][-1] == 1013


@pytest.mark.parametrize("change", ["revoked", "lowered", "expired"])
async def test_who_may_not_stay_is_put_out(services: Any, change: str) -> None:
    """The open socket of a key that is not what it was ends with 4403; others stay."""
    second = "tsk_ffffffffffff_" + "1" * 64
    door = Door(record(role=Role.ADMIN), record(second))
    await door.look()
    endpoint = create(services, door.access)
    out, stays = Client(endpoint), Client(endpoint)
    for client, key in ((out, KEY), (stays, second)):
        assert await client.receive()
        client.send({**INIT, "payload": {"authorization": f"Bearer {key}"}})
        client.send(subscribe(payload=LIVE))
        assert await client.receive() == ACK
    await clients_are(services, 2)
    await door.look()
    services.push({**HEAD, "symbol": "A", "offset": 1})
    for client in (out, stays):
        assert (await client.receive())["type"] == "next"
    assert door.keys is not None
    door.keys["0123456789ab"] = {
        "revoked": record("tsk_eeeeeeeeeeee_" + "1" * 64),
        "lowered": record(role=Role.READER),
        "expired": record(role=Role.ADMIN, expires_at=wall()),
    }[change]
    await door.look()
    assert await out.receive() == 4403
    async with asyncio.timeout(5):
        await out.task
    await clients_are(services, 1)
    services.push({**HEAD, "symbol": "A", "offset": 2})
    assert (await stays.receive())["type"] == "next"
    await stays.leave()
    assert not door.access._guests
