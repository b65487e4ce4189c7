"""gRPC as a client uses it: the answers of GraphQL, the same keys, and statuses when it fails."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncpg
import grpc
import jwt
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pydantic import SecretStr

from api.backing import create_backing
from api.names import ENUMS, HISTORY, LATEST, TYPES, camel
from api.rpc import methods, server
from api.rpc.methods import ROLES, SERVICE
from api.rpc.server import serving
from pipeline.errors import MisuseError, UnavailableError
from pipeline.servers.postgres import PostgresServer
from pipeline.servers.valkey import ValkeyServer
from pipeline.settings import JwtSettings, Settings, StoreSettings
from pipeline.store.keys import Role, create_key, revoke_key
from pipeline.store.pool import pooled
from schemas.blocks import COLUMNS, STAGES
from schemas.proto import tickstream_pb2 as pb
from schemas.proto.tickstream_pb2_grpc import TickstreamStub
from schemas.times import parse_rfc3339
from tests.integration.api.conftest import SECOND, START, Feed, ask, make_rows, served

SECRET = "s" * 32
Status = grpc.StatusCode


def changed(settings: Settings, **given: Any) -> Settings:
    """The same settings but for some: `api_auth=True` is `api.auth`."""
    groups: dict[str, dict[str, Any]] = {"api": {}, "rpc": {"port": 0}}
    for name, value in given.items():
        group, _, key = name.partition("_")
        groups[group][key] = value
    return settings.model_copy(
        update={
            name: getattr(settings, name).model_copy(update=values)
            for name, values in groups.items()
        }
    )


@asynccontextmanager
async def calling(settings: Settings, service: str = "all") -> AsyncIterator[Any]:
    """A channel to a server that has all it needs."""
    backing = create_backing(settings)
    async with (
        backing.running(),
        serving(backing, service) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        assert await health_becomes(channel, "SERVING")
        yield channel


async def health_becomes(channel: Any, status: str) -> bool:
    """Wait until the standard health service says so."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    wanted = health_pb2.HealthCheckResponse.ServingStatus.Value(status)
    for _ in range(600):
        found = [
            (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status
            for name in ("", SERVICE)
        ]
        if found == [wanted, wanted]:
            return True
        await asyncio.sleep(0.05)
    return False


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    """The status of a call that fails, and what it says."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


def stub_of(channel: Any) -> Any:
    """The methods of the service; what is generated has no types."""
    return TickstreamStub(channel)  # type: ignore[no-untyped-call]


def bearing(text: str) -> tuple[tuple[str, str], ...]:
    """Metadata with a key or a token."""
    return (("authorization", f"Bearer {text}"),)


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test waits until the health service has been told that all is there."""
    monkeypatch.setattr(server, "_LOOK", 0.05)


@pytest.fixture
async def channel(settings: Settings) -> AsyncIterator[Any]:
    """A client of a server that asks nobody for a key."""
    async with calling(changed(settings)) as found:
        yield found


def plain(stage: str, message: Any) -> dict[str, Any]:
    """A row of gRPC by its columns, as GraphQL writes values."""
    found: dict[str, Any] = {}
    for column in COLUMNS[stage]:
        field = message.DESCRIPTOR.fields_by_name[column.name]
        value = getattr(message, column.name)
        if field.enum_type is not None:
            name = field.enum_type.values_by_number[value].name
            prefix = field.enum_type.values[0].name.removesuffix("UNSPECIFIED")
            value = None if value == 0 else name.removeprefix(prefix)
        elif field.has_presence and not message.HasField(column.name):
            value = None
        found[column.name] = value
    return found


def of_graphql(stage: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """A row of GraphQL by its columns, times in ns."""
    found = {}
    for column in COLUMNS[stage]:
        value = node[camel(column.name)]
        if column.unit == "ns" and isinstance(value, str):
            value = parse_rfc3339(value)
        elif column.kind in {"int64", "int32"} and value is not None:
            value = int(value)
        found[column.name] = value
    return found


def fields(stage: str) -> str:
    """All fields of a stage in a query."""
    return " ".join(camel(column.name) for column in COLUMNS[stage])


async def test_the_latest_state_is_that_of_graphql(
    settings: Settings, feed: Feed, channel: Any
) -> None:
    """Every column of every stage; what is null is not set, what is unknown left out."""
    for symbol in ("A", "B"):
        for stage in STAGES:
            nulls: dict[str, Any] = {"rsi_14": float("nan")} if stage == "features" else {}
            rows = {stage: make_rows(stage, symbol, 3, **nulls)}
            await feed.put(rows, [symbol])
    latest = " ".join(f"{LATEST[stage]} {{ {fields(stage)} }}" for stage in STAGES)
    async with served(settings) as client:
        answer = await ask(client, f'{{ symbols(names: ["A", "B"]) {{ name {latest} }} }}')
    assert "errors" not in answer
    request = pb.GetLatestRequest(symbols=["B", "A", "nobody", "A"])
    found = await stub_of(channel).GetLatest(request)
    assert [one.name for one in found.symbols] == ["B", "A"]
    assert not found.cache_unavailable
    expected = {one["name"]: one for one in answer["data"]["symbols"]}
    for one in found.symbols:
        for stage in STAGES:
            row = plain(stage, getattr(one, LATEST[stage]))
            assert row == of_graphql(stage, expected[one.name][LATEST[stage]]), stage
        assert not one.features.HasField("rsi_14")
    some = pb.GetLatestRequest(symbols=["A"], stages=[pb.STAGE_SIGNALS, pb.STAGE_SIGNALS])
    (only,) = (await stub_of(channel).GetLatest(some)).symbols
    assert {field.name for field, _ in only.ListFields()} - {"staleness"} == {"name", "signal"}


async def test_symbols_come_by_pages(feed: Feed, channel: Any) -> None:
    """In the order of their names, behind the last of the page before."""
    names = ["A", "B", "C", "D", "E"]
    for name in names:
        await feed.put({"ticks": make_rows("ticks", name, 1)}, [name])
    stub = stub_of(channel)
    assert list((await stub.ListSymbols(pb.ListSymbolsRequest())).symbols) == names
    first = (await stub.ListSymbols(pb.ListSymbolsRequest(first=2))).symbols
    rest = (await stub.ListSymbols(pb.ListSymbolsRequest(after=first[-1], first=9))).symbols
    assert [*first, *rest] == names
    assert not (await stub.ListSymbols(pb.ListSymbolsRequest(first=0))).symbols


@pytest.mark.parametrize("stage", STAGES)
async def test_history_is_that_of_graphql(
    settings: Settings, feed: Feed, channel: Any, stage: str
) -> None:
    """All rows by pages, forwards and backwards, and a range as of a moment."""
    await feed.commit({stage: make_rows(stage, "A", 25)}, ["A"])
    async with served(settings) as client:
        query = f'{{ {HISTORY[stage]}(symbol: "A") {{ edges {{ node {{ {fields(stage)} }} }} }} }}'
        edges = (await ask(client, query))["data"][HISTORY[stage]]["edges"]
    expected = [of_graphql(stage, edge["node"]) for edge in edges]
    assert len(expected) == 25
    stub = stub_of(channel)
    number: Any = pb.Stage.Value(f"STAGE_{stage.upper()}")

    async def page(**given: Any) -> tuple[list[dict[str, Any]], pb.ListRowsResponse]:
        answer = await stub.ListRows(pb.ListRowsRequest(stage=number, symbol="A", **given))
        return [plain(stage, getattr(row, LATEST[stage])) for row in answer.rows], answer

    forwards: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    more = True
    while more:
        rows, answer = await page(first=10, **cursor)
        assert answer.has_previous_page is bool(forwards)
        forwards += rows
        cursor, more = {"after": answer.end_cursor}, answer.has_next_page
    assert forwards == expected
    backwards: list[dict[str, Any]] = []
    cursor, more = {}, True
    while more:
        rows, answer = await page(last=10, **cursor)
        backwards = rows + backwards
        cursor, more = {"before": answer.start_cursor}, answer.has_previous_page
    assert backwards == expected
    bounds = {"from_ts": START + 5 * SECOND, "to_ts": START + 20 * SECOND}
    rows, _ = await page(**bounds, as_of=pb.AsOf(known_at=START + 10 * SECOND + 1))
    assert rows == expected[5:11]
    rows, _ = await page(from_ts=-(2**63), to_ts=2**63 - 1, first=500)
    assert rows == expected
    rows, answer = await page(from_ts=2**63 - 1, to_ts=-(2**63))
    assert (rows, answer.start_cursor, answer.has_next_page) == ([], "", False)


async def test_signals_are_followed(feed: Feed, channel: Any) -> None:
    """Each as it is published, of the symbols that were named; others of all."""
    stub = stub_of(channel)
    named = stub.Follow(pb.FollowRequest(stage=pb.STAGE_SIGNALS, symbols=["B"]))
    every = stub.Follow(pb.FollowRequest(stage=pb.STAGE_SIGNALS))
    reading = [asyncio.create_task(anext(aiter(call))) for call in (named, every)]
    offset = 0
    while not all(task.done() for task in reading):  # it begins when the server has taken it
        for symbol in ("A", "B"):
            await feed.put({"signals": make_rows("signals", symbol, 1, offset)}, [symbol])
        offset += 1
        await asyncio.sleep(0.05)
    first = await reading[0]
    assert first.row.signal.symbol == "B"
    assert first.row.signal.price == first.row.signal.offset + 0.5
    assert first.row.signal.ts == START + first.row.signal.offset * SECOND
    assert first.dropped == 0
    assert (await named.read()).row.signal.symbol == "B" if offset > 1 else True
    for call in (named, every):
        call.cancel()


@pytest.mark.parametrize(
    ("method", "request_", "words"),
    [
        ("GetLatest", pb.GetLatestRequest(), "1 to 500"),
        ("GetLatest", pb.GetLatestRequest(symbols=["A"] * 501), "1 to 500"),
        ("GetLatest", pb.GetLatestRequest(symbols=["\x00"]), "a symbol is"),
        (
            "GetLatest",
            pb.GetLatestRequest(symbols=["A"], stages=["STAGE_UNSPECIFIED"]),
            "give a stage",
        ),
        ("GetLatest", pb.GetLatestRequest(symbols=["A"], stages=cast("Any", [99])), "give a stage"),
        ("ListRows", pb.ListRowsRequest(symbol="A"), "give a stage"),
        ("ListRows", pb.ListRowsRequest(stage=pb.STAGE_BARS), "a symbol is"),
        ("ListRows", pb.ListRowsRequest(stage=pb.STAGE_BARS, symbol="A", first=-1), "0 to 500"),
        ("ListRows", pb.ListRowsRequest(stage=pb.STAGE_BARS, symbol="A", last=501), "0 to 500"),
        (
            "ListRows",
            pb.ListRowsRequest(stage=pb.STAGE_BARS, symbol="A", first=1, last=1),
            "not both",
        ),
        ("ListRows", pb.ListRowsRequest(stage=pb.STAGE_BARS, symbol="A", after="x"), "no cursor"),
        ("ListSymbols", pb.ListSymbolsRequest(first=-1), "0 to 500"),
        ("Follow", pb.FollowRequest(), "give a stage"),
        ("Follow", pb.FollowRequest(stage=pb.STAGE_FEATURES), "cannot be followed"),
        ("Follow", pb.FollowRequest(stage=pb.STAGE_BARS, symbols=["A"] * 1001), "1000 symbols"),
        ("Follow", pb.FollowRequest(stage=pb.STAGE_BARS, symbols=[""]), "a symbol is"),
    ],
)
async def test_what_makes_no_sense_is_told(
    channel: Any, method: str, request_: Any, words: str
) -> None:
    """INVALID_ARGUMENT, and what to give."""
    call = getattr(stub_of(channel), method)(request_)
    status, details = await refused(call if method != "Follow" else call.read())
    assert status is Status.INVALID_ARGUMENT
    assert words in details


async def test_bytes_that_are_no_message_are_refused(channel: Any) -> None:
    """And one that is too large, unread; the server goes on."""
    raw = channel.unary_unary(f"/{SERVICE}/GetLatest")
    status, details = await refused(raw(b"\xff\xff\xff"))
    assert (status, "no GetLatestRequest" in details) == (Status.INVALID_ARGUMENT, True)
    status, _ = await refused(raw(bytes(1_000_000)))
    assert status is Status.RESOURCE_EXHAUSTED
    status, _ = await refused(channel.unary_unary(f"/{SERVICE}/Nothing")(b""))
    assert status is Status.UNIMPLEMENTED
    await stub_of(channel).ListSymbols(pb.ListSymbolsRequest())


def token(role: str = "reader", expires: float = 600, **given: Any) -> str:
    """A token of an identity provider that shares a secret with us."""
    claims = {"sub": "somebody", "role": role, "exp": int(time.time() + expires)}  # noqa: TID251
    return jwt.encode({**claims, **given}, SECRET, "HS256")


def guarded(settings: Settings, **given: Any) -> Settings:
    """Settings that demand a key or a token."""
    tokens = JwtSettings(secrets=(SecretStr(SECRET),))
    return changed(settings, api_auth=True, api_jwt=tokens, **given)


async def test_who_is_not_known_is_not_let_in(settings: Settings) -> None:
    """No key, a wrong one, two of them, and tokens that nobody may trust: the same everywhere."""
    strangers: list[Any] = [
        (),
        bearing("tsk_nobody_x"),
        bearing("x"),
        (("authorization", token()),),
        (("authorization", f"Basic {token()}"),),
        (*bearing(token()), *bearing(token())),
        bearing(token(expires=-10)),
        bearing(token("root")),
        bearing(jwt.encode({"sub": "a", "role": "admin", "exp": 2**33}, cast("Any", None), "none")),
        bearing(jwt.encode({"sub": "a", "role": "admin", "exp": 2**33}, "t" * 32, "HS256")),
    ]
    async with calling(guarded(settings)) as channel:
        raw = {name: f"/{SERVICE}/{name}" for name in ROLES}
        for metadata in strangers:
            for name, path in raw.items():
                if name == "Follow":
                    call: Any = channel.unary_stream(path)(b"", metadata=metadata).read()
                else:
                    call = channel.unary_unary(path)(b"", metadata=metadata)
                status, details = await refused(call)
                assert status is Status.UNAUTHENTICATED, (name, metadata)
                assert "key or" in details
        stub = stub_of(channel)
        assert await stub.ListSymbols(pb.ListSymbolsRequest(), metadata=bearing(token()))


async def test_each_method_takes_its_role(settings: Settings) -> None:
    """A lower one is denied, also on a method whose request makes no sense."""
    assert set(ROLES) == {one.name for one in pb.DESCRIPTOR.services_by_name["Tickstream"].methods}
    roles = list(Role)
    async with calling(guarded(settings)) as channel:
        for name, needed in ROLES.items():
            for role in roles:
                if role.covers(needed):
                    continue
                path = f"/{SERVICE}/{name}"
                status, details = await refused(
                    channel.unary_unary(path)(b"", metadata=bearing(token(role.value)))
                )
                assert status is Status.PERMISSION_DENIED
                assert str(needed) in details
        found = await stub_of(channel).ListServices(
            pb.ListServicesRequest(), metadata=bearing(token("admin"))
        )
    assert {one.name: one.ok for one in found.services} == {"postgres": True, "redis": True}


async def test_a_revoked_key_ends_its_streams(settings: Settings) -> None:
    """And lets nobody in any more."""
    assert settings.postgres is not None
    async with pooled(settings.postgres, StoreSettings()) as pool:
        key = await create_key(pool, "bot", Role.READER, None)
        async with calling(guarded(settings)) as channel:
            stub = stub_of(channel)
            request = pb.FollowRequest(stage=pb.STAGE_SIGNALS)
            stream = stub.Follow(request, metadata=bearing(key.text))
            reading = asyncio.create_task(refused(stream.read()))
            assert await stub.ListSymbols(pb.ListSymbolsRequest(), metadata=bearing(key.text))
            assert not reading.done()
            await revoke_key(pool, key.id)
            status, _ = await reading
            assert status is Status.UNAUTHENTICATED
            call = stub.ListSymbols(pb.ListSymbolsRequest(), metadata=bearing(key.text))
            assert (await refused(call))[0] is Status.UNAUTHENTICATED


async def test_a_token_that_ends_ends_its_streams(settings: Settings) -> None:
    """Within the seconds in which keys are read again."""
    async with calling(guarded(settings)) as channel:
        request = pb.FollowRequest(stage=pb.STAGE_SIGNALS)
        stream = stub_of(channel).Follow(request, metadata=bearing(token(expires=2)))
        assert (await refused(stream.read()))[0] is Status.UNAUTHENTICATED


async def test_rates_are_those_of_the_api(settings: Settings) -> None:
    """RESOURCE_EXHAUSTED with the seconds to wait; streams of one subject are bounded, too."""
    limits = guarded(settings, api_rate=0.01, api_burst=2, api_sockets_max=1)
    async with calling(limits) as channel:
        stub = stub_of(channel)
        request = pb.FollowRequest(stage=pb.STAGE_SIGNALS)
        mine = bearing(token())
        first = stub.Follow(request, metadata=mine)
        waiting = asyncio.create_task(first.read())
        second = stub.Follow(request, metadata=mine)
        done, _ = await asyncio.wait(
            [waiting, other := asyncio.create_task(second.read())],
            return_when=asyncio.FIRST_COMPLETED,
        )
        (ended,) = done  # whichever came second
        status, details = await refused(ended)
        assert (status, "sockets of one" in details) == (Status.RESOURCE_EXHAUSTED, True)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListSymbols(pb.ListSymbolsRequest(), metadata=mine)
        assert caught.value.code() is Status.RESOURCE_EXHAUSTED
        after = dict(caught.value.trailing_metadata() or ())["retry-after"]
        assert 0 < float(after) <= 100
        others = bearing(token(sub="another"))
        assert await stub.ListSymbols(pb.ListSymbolsRequest(), metadata=others)
        for call in (first, second):
            call.cancel()
        await asyncio.gather(waiting, other, return_exceptions=True)


async def test_redis_away_postgres_answers(
    feed: Feed, valkey_server: ValkeyServer, channel: Any
) -> None:
    """The same rows, and it says so; afterwards it does not."""
    await feed.put({stage: make_rows(stage, "A", 1) for stage in ("ticks", "bars")}, ["A"])
    stub = stub_of(channel)
    request = pb.GetLatestRequest(symbols=["A"], stages=[pb.STAGE_BARS])
    valkey_server.kill()
    try:
        while True:
            found = await stub.GetLatest(request)
            assert found.symbols[0].bar.close == 0.5
            if found.cache_unavailable:
                break
            await asyncio.sleep(0.05)
        assert await health_becomes(channel, "SERVING")  # the cache can be missed
    finally:
        await asyncio.to_thread(valkey_server.start)
    while True:
        if not (await stub.GetLatest(request)).cache_unavailable:
            break
        await asyncio.sleep(0.05)


async def test_postgres_away_is_unavailable(
    feed: Feed, postgres_server: PostgresServer, channel: Any
) -> None:
    """Masked; what the cache has is answered; it comes back without a restart."""
    await feed.put({"ticks": make_rows("ticks", "A", 1)}, ["A"])
    stub = stub_of(channel)
    latest = pb.GetLatestRequest(symbols=["A"], stages=[pb.STAGE_TICKS])
    history = pb.ListRowsRequest(stage=pb.STAGE_TICKS, symbol="A")
    assert (await stub.GetLatest(latest)).symbols
    postgres_server.kill()
    try:
        status, details = await refused(stub.ListRows(history))
        assert status is Status.UNAVAILABLE
        assert details == "Postgres is away; try again in a moment"
        assert (await stub.GetLatest(latest)).symbols[0].price.price == 0.5
        assert await health_becomes(channel, "NOT_SERVING")
    finally:
        await asyncio.to_thread(postgres_server.start)
    assert await health_becomes(channel, "SERVING")
    assert len((await stub.ListRows(history)).rows) == 1


async def test_a_call_ends_in_time(settings: Settings, feed: Feed) -> None:
    """By the server's limit, or the client's if that is shorter; then it is answered again."""
    assert settings.postgres is not None
    await feed.commit({"bars": make_rows("bars", "A", 1)}, ["A"])
    request = pb.ListRowsRequest(stage=pb.STAGE_BARS, symbol="A")
    async with calling(changed(settings, api_query_seconds=0.5)) as channel:
        stub = stub_of(channel)
        assert (await stub.ListRows(request)).rows
        locking = await asyncpg.connect(settings.postgres)
        try:
            async with locking.transaction():
                await locking.execute("LOCK TABLE bars IN ACCESS EXCLUSIVE MODE")
                status, details = await refused(stub.ListRows(request))
                assert (status, "too long" in details) == (Status.DEADLINE_EXCEEDED, True)
                status, _ = await refused(stub.ListRows(request, timeout=0.1))
                assert status is Status.DEADLINE_EXCEEDED
        finally:
            await locking.close()
        assert (await stub.ListRows(request)).rows


async def test_faults_of_ours_are_masked(channel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client gets a name by which the log has it, and no text of an exception."""

    async def broken(*_: Any) -> None:
        raise RuntimeError("postgresql://me:xyzzy@db")

    monkeypatch.setattr(methods, "page_of_names", broken)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub_of(channel).ListSymbols(pb.ListSymbolsRequest())
    assert (caught.value.code(), caught.value.details()) == (Status.INTERNAL, "Internal error")
    assert len(str(dict(caught.value.trailing_metadata() or ())["error-id"])) == 32
    assert "xyzzy" not in str(caught.value)


async def described(channel: Any) -> list[str]:
    """The services that the server describes."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = cast("Any", reflection_pb2).ServerReflectionRequest(list_services="")
    answer = await stub.ServerReflectionInfo(iter([request])).read()
    return [one.name for one in answer.list_services_response.service]


async def test_the_service_is_described_in_development_only(settings: Settings) -> None:
    """As the schema of GraphQL is."""
    async with calling(changed(settings)) as channel:
        assert SERVICE in await described(channel)
    async with calling(changed(settings, api_development=False)) as channel:
        assert (await refused(described(channel)))[0] is Status.UNIMPLEMENTED


async def test_a_service_has_its_stages_only(settings: Settings, feed: Feed) -> None:
    """`--service trading` has fills and equity."""
    await feed.put({stage: make_rows(stage, "A", 1) for stage in STAGES}, ["A"])
    async with calling(changed(settings), "trading") as channel:
        stub = stub_of(channel)
        (found,) = (await stub.GetLatest(pb.GetLatestRequest(symbols=["A"]))).symbols
        rows = {field.name for field, _ in found.ListFields()} & set(LATEST.values())
        assert rows == {"fill", "equity"}
        call = stub.ListRows(pb.ListRowsRequest(stage=pb.STAGE_BARS, symbol="A"))
        status, details = await refused(call)
        assert (status, "only fills, equity" in details) == (Status.INVALID_ARGUMENT, True)


async def test_strangers_are_not_served_without_keys(settings: Settings) -> None:
    """As GraphQL is not; and a port that is taken is told, not shared."""
    backing = create_backing(changed(settings, rpc_host="0.0.0.0"))  # noqa: S104
    with pytest.raises(MisuseError, match=r"api\.auth=true"):
        async with serving(backing):
            pass
    backing = create_backing(changed(settings))
    async with serving(backing) as port:
        again = create_backing(changed(settings, rpc_port=port))
        with pytest.raises(UnavailableError, match="cannot be had for gRPC"):
            async with serving(again):
                pass


def test_types_have_the_names_of_graphql() -> None:
    """One word for one thing."""
    for stage, name in TYPES.items():
        assert pb.DESCRIPTOR.message_types_by_name[name].full_name == f"tickstream.v1.{name}"
        kind = pb.Row.DESCRIPTOR.fields_by_name[LATEST[stage]].message_type
        assert kind is pb.DESCRIPTOR.message_types_by_name[name]
    assert set(ENUMS.values()) <= set(pb.DESCRIPTOR.enum_types_by_name)
