"""Keys from the command line to a running server: let in, refused, put out."""

import asyncio
import json
from contextlib import suppress
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from api import access
from pipeline.servers.postgres import PostgresServer
from pipeline.settings import Settings
from tests.acceptance.commands import only_line
from tests.acceptance.forked import tickstream
from tests.fixtures.preloaded import refusal
from tests.integration.api.conftest import Feed, becomes, make_rows, served
from tests.integration.api.test_process import ready, running

AUTH = ("--set", "api.auth=true")


def naming(settings: Settings) -> dict[str, str]:
    """The variables that name the servers."""
    assert settings.postgres is not None
    assert settings.redis is not None
    return {"TICKSTREAM_POSTGRES": settings.postgres, "TICKSTREAM_REDIS": settings.redis}


def keys(settings: Settings, *arguments: str) -> Any:
    """`tickstream keys ...`, its JSON."""
    done = tickstream("keys", *arguments, "--json", values=naming(settings))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def status_of(host: str, key: str | None) -> int:
    """Status of a query with a key."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(base_url=f"http://{host}", headers=headers) as client:
        body = {"query": "{ symbols { name } }"}
        return (await client.post("/graphql", json=body)).status_code


async def becomes_status(host: str, key: str, status: int) -> bool:
    """Wait until a query with a key has a status."""
    for _ in range(200):
        if await status_of(host, key) == status:
            return True
        await asyncio.sleep(0.05)
    return False


async def opened(host: str, key: str) -> ClientConnection:
    """A WebSocket that was let in."""
    websocket = await connect(f"ws://{host}/graphql", subprotocols=["graphql-transport-ws"])  # type: ignore[list-item]  # a NewType of str
    payload = {"authorization": f"Bearer {key}"}
    await websocket.send(json.dumps({"type": "connection_init", "payload": payload}))
    assert json.loads(await websocket.recv()) == {"type": "connection_ack"}
    return websocket


async def code_of(websocket: ClientConnection) -> int | None:
    """The code with which the server closes."""
    with suppress(ConnectionClosed):
        async with asyncio.timeout(20):
            await websocket.recv()
    return websocket.close_code


async def test_keys_from_the_command_line(settings: Settings) -> None:
    """Made, used, replaced and revoked: requests are refused and open sockets closed."""
    first = await asyncio.to_thread(keys, settings, "create", "bot", "--role", "reader")
    async with running(settings, *AUTH) as (_, host):
        await ready(host)
        assert await becomes_status(host, first["text"], 200)
        assert await status_of(host, None) == 401
        stays = await opened(host, first["text"])
        rotated = await asyncio.to_thread(keys, settings, "rotate", first["id"])
        assert await becomes_status(host, rotated["text"], 200)
        assert await status_of(host, first["text"]) == 200  # for an hour more
        new = await opened(host, rotated["text"])
        revoked = await asyncio.to_thread(
            tickstream,
            "keys",
            "revoke",
            rotated["id"],
            values=naming(settings),
        )
        assert revoked.stdout == f"revoked {rotated['id']}\n"
        assert await code_of(new) == 4403
        assert await becomes_status(host, rotated["text"], 401)
        assert await status_of(host, first["text"]) == 200
        await stays.close()
    listed = await asyncio.to_thread(keys, settings, "list")
    assert {one["id"]: one["state"] for one in listed} == {
        first["id"]: "valid",
        rotated["id"]: "revoked",
    }
    assert first["text"].split("_")[2] not in json.dumps(listed)


def test_misuse_of_keys_is_one_line(settings: Settings) -> None:
    """A key that is not there and a role that is none end with code 2."""
    values = naming(settings)
    assert "no key has the id" in only_line(tickstream("keys", "revoke", "x", values=values), 2)
    done = tickstream("keys", "create", "bot", "--role", "root", values=values)
    assert done.returncode == 2
    assert "is not one of 'reader', 'operator', 'admin'" in done.stderr


def test_a_key_is_printed_alone(settings: Settings) -> None:
    """Standard output holds the key and nothing else, so that a script can take it."""
    values = naming(settings)
    done = tickstream("keys", "create", "bot", "--role", "admin", "--days", "30", values=values)
    assert done.stdout.startswith("tsk_")
    assert done.stdout.count("\n") == 1
    assert done.stdout.strip() not in done.stderr
    listed = tickstream("keys", "list", values=values).stdout
    assert "admin" in listed
    assert "bot, until " in listed


async def test_only_an_admin_sees_the_system(settings: Settings) -> None:
    """The checks behind readiness and `services` are for admins; probes get the status."""
    made = {
        role: await asyncio.to_thread(keys, settings, "create", "k", "--role", role)
        for role in ("reader", "operator", "admin")
    }
    api = settings.api.model_copy(update={"auth": True})
    async with served(settings.model_copy(update={"api": api})) as client:
        for role, sees in (("reader", 0), ("operator", 1), ("admin", 2)):
            headers = {"authorization": f"Bearer {made[role]['text']}"}
            assert ("checks" in (await client.get("/readyz", headers=headers)).json()) is (sees > 1)
            for field, needed in (("runs { service }", 1), ("services { name }", 2)):
                body = {"query": f"{{ {field} }}"}
                answer = (await client.post("/graphql", json=body, headers=headers)).json()
                assert ("errors" not in answer) is (sees >= needed), answer


async def test_with_keys_any_address_is_served(settings: Settings) -> None:
    """With auth a server may listen beyond loopback, and answers to any host name."""
    made = await asyncio.to_thread(keys, settings, "create", "bot", "--role", "reader")
    async with running(settings, *AUTH, "--host", "0.0.0.0") as (_, host):  # noqa: S104 - that is what it tests
        assert await becomes_status(host, made["text"], 200)
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://{host}/healthz", headers={"host": "api.example"})
            assert answer.status_code == 200


async def test_keys_stay_in_force_while_postgres_is_away(
    settings: Settings,
    feed: Feed,
    postgres_server: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The latest rows are served from the cache to who was known, and to nobody else."""
    monkeypatch.setattr(access, "READ_EVERY", 0.1)
    made = await asyncio.to_thread(keys, settings, "create", "bot", "--role", "reader")
    await feed.put({"ticks": make_rows("ticks", "A", 2)}, ["A"])
    api = settings.api.model_copy(update={"auth": True})
    headers = {"authorization": f"Bearer {made['text']}"}
    body = {"query": '{ symbol(name: "A") { price { price } } }'}
    wanted = {"data": {"symbol": {"price": {"price": 1.5}}}}
    async with served(settings.model_copy(update={"api": api})) as client:
        for _ in range(100):
            answer = await client.post("/graphql", json=body, headers=headers)
            if answer.status_code == 200:
                break
            await asyncio.sleep(0.05)
        assert answer.json() == wanted
        assert (await client.get("/readyz", headers=headers)).json() == {"status": "ready"}
        with capture_logs() as told:
            postgres_server.kill()
            while "keys_not_read" not in {one["event"] for one in told}:  # noqa: ASYNC110 -- only the server knows
                await asyncio.sleep(0.02)
        answer = await client.post("/graphql", json=body, headers=headers)
        assert answer.json() == wanted
        assert (await client.post("/graphql", json=body)).status_code == 401
        await asyncio.to_thread(postgres_server.start)
        assert await becomes(client, "ready")


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["api.auth=maybe"], "setting api.auth"),
        (["api.auth=true", 'api.jwt.secrets=["short"]'], "32 bytes or more"),
        (["api.auth=true", 'api.jwt.public_keys=["/nowhere"]'], "/nowhere cannot be read"),
    ],
)
def test_unfit_settings_end_the_start(settings: Settings, sets: list[str], words: str) -> None:
    """A server that could not verify does not start."""
    values = naming(settings)
    arguments = [part for one in sets for part in ("--set", one)]
    assert words in only_line(refusal(arguments, values), 2)
