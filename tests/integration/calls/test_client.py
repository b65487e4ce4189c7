"""The client of outgoing calls against real servers, well-behaved and not."""

import asyncio
import datetime as dt
import gzip
import ipaddress
import ssl
from collections.abc import AsyncIterator
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline.calls import circuits
from pipeline.calls.client import Answer, Client, RestingError, retry_after
from pipeline.clock import monotonic
from pipeline.errors import MisuseError, UnavailableError
from pipeline.settings import CallsSettings
from tests.fixtures.receivers import Receiver, raw, receiver

SECRET = "/T0/B0/xyzzy"  # noqa: S105 -- stands for one in a path
BODY = b'{"a": 1}'


def settings(**given: Any) -> CallsSettings:
    """Settings that lose no time."""
    return CallsSettings(**{"first_pause": 0.01, "longest_pause": 2.0, **given})


@pytest.fixture
async def server() -> AsyncIterator[Receiver]:
    """A receiver that does what it is told."""
    async with receiver() as found:
        yield found


async def post(client: Client, url: str, **headers: str) -> Answer:
    """One call."""
    return await client.post(url, BODY, lambda: headers)


async def trouble(url: str, **given: Any) -> str:
    """What is told of a call that fails; the path is never in it."""
    async with Client(settings(**given)) as client:
        with pytest.raises(UnavailableError) as caught:
            await post(client, url)
    told = str(caught.value)
    assert "xyzzy" not in told
    assert told.isprintable()
    return told


async def test_a_document_is_posted(server: Receiver) -> None:
    """Its bytes and headers; the answer comes back."""
    async with Client(settings()) as client:
        answer = await post(client, server.url(), **{"webhook-id": "7"})
        got = await client.get(server.url("/x?y=1"))
    assert (answer.status, answer.body, answer.whole, answer.ok) == (200, b"done", True, True)
    assert got.ok
    first, second = server.requests
    assert (first.method, first.headers["webhook-id"], server.bodies[0]) == ("POST", "7", BODY)
    assert first.headers["user-agent"].startswith("tickstream/")
    assert (second.method, str(second.rel_url)) == ("GET", "/x?y=1")


async def test_what_may_be_mended_is_tried_again(server: Receiver) -> None:
    """With headers of its own each time."""
    made: list[int] = []

    def headers() -> dict[str, str]:
        made.append(1)
        return {"n": str(len(made))}

    for status in (408, 425, 429, 500, 502, 503):
        server.statuses = [status, status]
        async with Client(settings()) as client:
            assert (await client.post(server.url(), BODY, headers)).ok
    assert [one.headers["n"] for one in server.requests] == [str(n) for n in range(1, 19)]


@pytest.mark.parametrize("status", [204, 301, 302, 400, 401, 404, 410, 413, 422])
async def test_what_nothing_mends_is_an_answer(server: Receiver, status: int) -> None:
    """At once, without another attempt."""
    server.statuses = [status]
    async with Client(settings()) as client:
        answer = await post(client, server.url())
    assert (answer.status, answer.ok, len(server.requests)) == (status, status == 204, 1)


async def test_a_server_in_trouble_is_told_after_all_attempts(server: Receiver) -> None:
    """In a line with its place and its status."""
    server.statuses = [500, 503, 502]
    assert await trouble(server.url(SECRET)) == f"http://127.0.0.1:{server.port} answers 502"
    assert len(server.requests) == 3


async def test_who_is_away_is_told() -> None:
    """Nobody listens there."""
    async with receiver() as gone:
        pass
    assert "cannot be reached" in await trouble(gone.url(SECRET))
    assert "cannot be reached" in await trouble(f"https://nobody.invalid{SECRET}")


async def test_a_server_that_is_silent_is_left() -> None:
    """After `calls.timeout`, also in the middle of its headers."""
    for start in (b"", b"HTTP/1.1 200 OK\r\nContent-Ty"):
        async with raw(start, hang=True) as port:
            told = await trouble(f"http://127.0.0.1:{port}{SECRET}", timeout=0.2, attempts=2)
            assert "does not answer within 0.2 s" in told


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 ", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000]
)
async def test_what_is_no_http_is_told(answer: bytes) -> None:
    """A connection that breaks, another protocol, a header without an end."""
    async with raw(answer) as port:
        told = await trouble(f"http://127.0.0.1:{port}{SECRET}")
    assert "broke the connection" in told


async def test_of_a_large_answer_only_the_beginning_is_read(server: Receiver) -> None:
    """10 MB, and a stream without an end; the next call is answered."""
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(65_536))
            sent += 65_536

    async def large(_: web.Request) -> web.StreamResponse:
        return web.Response(body=bytes(10_000_000))

    async with Client(settings(answer_max=1000)) as client:
        for answering in (large, endless):
            server.answering = answering
            answer = await post(client, server.url())
            assert (answer.status, len(answer.body), answer.whole) == (200, 1000, False)
        server.answering = None
        assert (await post(client, server.url())).whole
    assert sent < 100_000_000


async def test_a_body_that_drips_does_not_undo_the_status() -> None:
    """It says that it was done; nobody waits for the rest."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"
    for hang in (True, False):
        async with raw(head, hang=hang) as port, Client(settings(timeout=0.3)) as client:
            answer = await post(client, f"http://127.0.0.1:{port}/")
        assert (answer.status, answer.body, answer.whole) == (200, b"abc", False)


async def test_nothing_is_unpacked(server: Receiver) -> None:
    """A small answer cannot become a large one."""
    packed = gzip.compress(bytes(1_000_000))

    async def bomb(_: web.Request) -> web.StreamResponse:
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    server.answering = bomb
    async with Client(settings()) as client:
        assert (await client.get(server.url())).body == packed
    assert server.requests[0].headers["accept-encoding"] == "identity"


async def test_no_cookie_is_kept_and_no_proxy_asked(
    server: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one answer or the environment says changes no other call."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    async def setting(_: web.Request) -> web.StreamResponse:
        return web.Response(headers={"Set-Cookie": "a=b"})

    server.answering = setting
    async with Client(settings()) as client:
        for _ in range(2):
            assert (await post(client, server.url())).ok
    assert all("cookie" not in one.headers for one in server.requests)


async def test_a_redirect_is_followed_within_the_place_only(server: Receiver) -> None:
    """With the same method; never to another host, port or scheme, never for ever."""
    async with receiver() as other:
        behind = {
            "/same": "/end",
            "/port": other.url(),
            "/host": f"http://localhost:{server.port}/end",
            "/scheme": f"https://127.0.0.1:{server.port}/end",
            "/loop": "/loop",
            "/bad": "http://[",
        }

        async def moving(request: web.Request) -> web.StreamResponse:
            where = behind.get(request.path)
            if where is None:
                return web.Response()
            return web.Response(status=307, headers={"Location": where})

        server.answering = moving
        async with Client(settings(attempts=1)) as client:
            assert (await post(client, server.url("/same"))).status == 200
            assert server.bodies == [BODY, BODY]
            for path in ("/port", "/host", "/scheme", "/loop"):
                assert (await post(client, server.url(path))).status == 307
            with pytest.raises(UnavailableError):
                await post(client, server.url("/bad"))
        assert not other.requests
        assert [one.path for one in server.requests].count("/loop") == 3


async def test_who_fails_again_and_again_is_left_alone(
    server: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other paths of the host are called; after the rest one call decides."""
    late = [0.0]
    monkeypatch.setattr(circuits, "monotonic", lambda: monotonic() + late[0])
    server.statuses = [500] * 6
    async with Client(settings()) as client:
        for _ in range(2):
            with pytest.raises(UnavailableError):
                await post(client, server.url(SECRET))
        with pytest.raises(RestingError) as caught:
            await post(client, server.url(SECRET))
        assert "xyzzy" not in str(caught.value)
        assert len(server.requests) == 6
        assert client.rest(server.url(SECRET)) > 0
        assert (await post(client, server.url("/other"))).ok
        late[0] += 61.0
        assert (await post(client, server.url(SECRET))).ok
        assert client.rest(server.url(SECRET)) == 0


async def test_who_asks_for_time_gets_it(server: Receiver) -> None:
    """A short one is waited for; a long one ends the call, and rests the place."""
    moments: list[float] = []

    async def busy(_: web.Request) -> web.StreamResponse:
        moments.append(asyncio.get_running_loop().time())
        if len(moments) == 2:
            return web.Response()
        after = "1" if len(moments) == 1 else "1000"
        return web.Response(status=429, headers={"Retry-After": after})

    server.answering = busy
    async with Client(settings()) as client:
        assert (await post(client, server.url())).ok
        assert moments[1] - moments[0] > 0.99
        with pytest.raises(UnavailableError, match="answers 429"):
            await post(client, server.url())
        assert len(moments) == 3
        assert 990 < client.rest(server.url()) <= 1000
        with pytest.raises(RestingError):
            await post(client, server.url())


def test_times_to_come_back_are_read() -> None:
    """Seconds or a date, at most an hour; anything else is nothing."""
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=100)  # noqa: TID251
    assert 90 < retry_after(format_datetime(later, usegmt=True)) <= 100
    assert [retry_after(text) for text in ("7", "0", "99999999999999", "")] == [7, 0, 3600, 0]
    bad = ["-1", "x", "1.5", "²", "Mon, 99 Foo 2026", "Wed, 21 Oct 2015 07:28:00 GMT", "9" * 9999]
    assert [retry_after(text) for text in bad] == [0, 0, 0, 0, 0, 0, 3600]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate of 127.0.0.1, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver")])
    now = dt.datetime.now(dt.UTC)  # noqa: TID251
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "receiver.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


async def test_a_stranger_is_not_told_anything(certificate: Path) -> None:
    """A certificate must be trusted; one's own authority can be named."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with receiver(context) as found:
        assert "no certificate that is trusted" in await trouble(found.url(SECRET))
        assert not found.requests
        async with Client(settings(authorities=certificate)) as client:
            assert (await post(client, found.url())).ok
    with pytest.raises(MisuseError, match=r"calls\.authorities"):
        async with Client(settings(authorities=Path("/nowhere.pem"))):
            pass


async def test_calls_at_once_are_bounded(server: Receiver) -> None:
    """More wait for their turn."""
    now = most = 0

    async def counting(_: web.Request) -> web.StreamResponse:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return web.Response()

    server.answering = counting
    async with Client(settings(at_once_per_host=3)) as client:
        found = await asyncio.gather(*(post(client, server.url()) for _ in range(20)))
    assert all(one.ok for one in found)
    assert most == 3


async def test_an_address_that_is_not_called_is_a_mistake() -> None:
    """It is told, not tried."""
    async with Client(settings()) as client:
        with pytest.raises(MisuseError, match="use https"):
            await post(client, f"http://example.com{SECRET}")
