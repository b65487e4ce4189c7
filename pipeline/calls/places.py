"""Which addresses are called at all.

By https any machine, by http this machine only, unless plain http is allowed. Link-local
addresses are never called: there a cloud tells its credentials to whoever asks.
"""

import ipaddress
import socket
from dataclasses import dataclass
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from yarl import URL

from pipeline.errors import MisuseError

_SCHEMES: Final = ("http", "https")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call goes. The path and the user may be secrets: only `origin` is ever told."""

    url: URL
    origin: str


def place_of(text: str, *, plain: bool = False) -> Place:
    """What an address means.

    Raises:
        MisuseError: it is none, or one that is not called; the message does not repeat it.
    """
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError:
        host = port = None
    if host is None or port is None or url.scheme not in _SCHEMES or not text.isprintable():
        raise MisuseError("an address to call is https://HOST/..., or http://localhost/...")
    origin = str(url.origin())
    if is_link_local(host):
        raise MisuseError(f"{origin} is link-local: such addresses are not called")
    if url.scheme == "http" and not plain and not _is_loopback(host):
        raise MisuseError(f"{origin} is beyond this machine: use https, or set calls.plain=true")
    return Place(url.with_fragment(None), origin)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def is_link_local(host: str) -> bool:
    """Whether it is an address of 169.254.0.0/16 or fe80::/10."""
    found = _address(host)
    return found is not None and found.is_link_local


def _is_loopback(host: str) -> bool:
    found = _address(host)
    return host == "localhost" if found is None else found.is_loopback


class Resolver(AbstractResolver):
    """Names to addresses, link-local ones left out: a name may mean anything, and change."""

    def __init__(self) -> None:
        self._resolver = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name.

        Raises:
            OSError: it has none that is called.
        """
        found: list[Any] = await self._resolver.resolve(host, port, family)
        kept = [one for one in found if not is_link_local(one["host"])]
        if not kept:
            raise OSError(None, "its address is link-local")
        return kept

    async def close(self) -> None:
        """Free what the resolver holds."""
        await self._resolver.close()
