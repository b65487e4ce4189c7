"""Which addresses are called: https, or this machine; never link-local ones."""

import socket
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver

from pipeline.calls.places import Resolver, place_of
from pipeline.errors import MisuseError

SECRET = "T0/B0/xyzzy"  # noqa: S105 -- stands for one


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        (f"https://hooks.example.com/{SECRET}?k={SECRET}#x", "https://hooks.example.com"),
        (f"https://user:{SECRET[:2]}@example.com:8443/", "https://example.com:8443"),
        (f"http://localhost:9000/{SECRET}", "http://localhost:9000"),
        ("http://127.0.0.1:1/", "http://127.0.0.1:1"),
        ("http://[::1]:1/", "http://[::1]:1"),
        ("https://10.0.0.7/", "https://10.0.0.7"),
    ],
)
def test_https_and_this_machine_are_called(text: str, origin: str) -> None:
    """What is told of an address has neither path nor user."""
    place = place_of(text)
    assert place.origin == origin
    assert place.url.raw_path == "/" or SECRET in str(place.url)
    assert not place.url.fragment


@pytest.mark.parametrize(
    "text",
    [
        f"http://example.com/{SECRET}",
        f"http://10.0.0.7/{SECRET}",
        f"http://localhost.example.com/{SECRET}",
        f"http://127.0.0.1.example.com/{SECRET}",
        f"ftp://localhost/{SECRET}",
        f"file:///{SECRET}",
        f"/{SECRET}",
        f"https:///{SECRET}",
        f"https://[::1/{SECRET}",
        f"https://example.com:99999/{SECRET}",
        f"https://example.com/\r\nX: {SECRET}",
        SECRET,
        "",
    ],
)
def test_others_are_refused(text: str) -> None:
    """In a line that does not repeat the address."""
    with pytest.raises(MisuseError) as caught:
        place_of(text)
    assert SECRET not in str(caught.value)
    assert str(caught.value).isprintable()


def test_plain_http_may_be_allowed() -> None:
    """For a network of one's own."""
    assert place_of("http://10.0.0.7/", plain=True).origin == "http://10.0.0.7"


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "[fe80::1%25eth0]"]
)
def test_link_local_addresses_are_never_called(host: str) -> None:
    """There a cloud tells its credentials."""
    with pytest.raises(MisuseError, match="not called"):
        place_of(f"https://{host}/", plain=True)


async def test_a_name_that_means_a_link_local_address_is_not_called() -> None:
    """Whatever it meant when it was set."""

    class Lying(AbstractResolver):
        async def resolve(self, host: str, *_: Any) -> Any:
            bad = {"host": "169.254.169.254", "hostname": host}
            return [bad, {"host": "127.0.0.1", "hostname": host}] if host == "half" else [bad]

        async def close(self) -> None:
            pass

    resolver = Resolver()
    await resolver._resolver.close()
    resolver._resolver = Lying()  # type: ignore[assignment]
    found = await resolver.resolve("half", 1, socket.AF_UNSPEC)
    assert [one["host"] for one in found] == ["127.0.0.1"]
    with pytest.raises(OSError, match="link-local"):
        await resolver.resolve("bad", 1, socket.AF_UNSPEC)
