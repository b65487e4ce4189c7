"""The one client of all outgoing HTTP calls: bounded in time, size and number, patient, private."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from random import SystemRandom
from typing import Final, Self

import aiohttp
from yarl import URL

from pipeline.calls.circuits import Circuits
from pipeline.calls.places import Place, Resolver, place_of
from pipeline.clock import now_ns
from pipeline.errors import MisuseError, UnavailableError
from pipeline.settings import CallsSettings

Headers = Mapping[str, str]
# What a later attempt may mend: a timeout, too early, too many, and all troubles of the server.
_LATER: Final = frozenset({408, 425, 429})
_SERVER_TROUBLE: Final = 500
_SAME_METHOD: Final = frozenset({307, 308})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HOPS: Final = 3
_LONGEST_ASKED: Final = 3600.0  # seconds that a `Retry-After` is heeded
_RANDOM: Final = SystemRandom()


class RestingError(UnavailableError):
    """The other side failed often or asked to be left alone: it is not called for a while."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that trying again would not change."""

    status: int
    body: bytes
    whole: bool
    """False when the body is longer than what is read, or broke off."""

    @property
    def ok(self) -> bool:
        """Whether the other side says that it did what was asked."""
        return 200 <= self.status < 300  # noqa: PLR2004 -- the class of success


@dataclass(frozen=True, slots=True)
class _Trouble:
    why: str
    whole_host: bool  # it cannot even be reached
    asked: float = 0.0  # seconds of `Retry-After`


class Client:
    """Makes calls; use as an async context manager.

    Each attempt ends after `calls.timeout` seconds with everything; of an answer at most
    `calls.answer_max` bytes are read. No cookies, no proxy of the environment, no
    decompression, and redirects only within the place that was called.
    """

    def __init__(self, settings: CallsSettings) -> None:
        self._settings = settings
        self._circuits = Circuits(settings.longest_rest, settings.timeout)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=settings.at_once,
                limit_per_host=settings.at_once_per_host,
                resolver=Resolver(),
                ssl=_trust(settings),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=settings.timeout),
            headers={
                "User-Agent": f"tickstream/{version('tickstream')}",
                "Accept-Encoding": "identity",
            },
            auto_decompress=False,
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, url: str) -> Answer:
        """Ask for a document. Raises what `post` raises."""
        return await self._call("GET", url, None, dict)

    async def post(self, url: str, body: bytes, headers: Callable[[], Headers]) -> Answer:
        """Post a document, again and again if it may come twice; `headers` are made each time.

        Raises:
            UnavailableError: the other side is away, too slow or in trouble after
                `calls.attempts`; told without the path of the address.
            RestingError: it was not called at all, as it failed often before.
            MisuseError: it is no address that is called.
        """
        return await self._call("POST", url, body, headers)

    def rest(self, url: str) -> float:
        """Seconds until a place is called again after failures; 0 if it may be called now.

        Raises:
            MisuseError: it is no address that is called.
        """
        return self._rest(place_of(url, plain=self._settings.plain))

    def _rest(self, place: Place) -> float:
        return max(self._circuits.rest(place.origin), self._circuits.rest(str(place.url)))

    async def _call(
        self, method: str, url: str, body: bytes | None, headers: Callable[[], Headers]
    ) -> Answer:
        place = place_of(url, plain=self._settings.plain)
        rest = self._rest(place)
        if rest:
            raise RestingError(f"{place.origin} is not called for {rest:.0f} s after failures")
        self._circuits.begin(place.origin)
        self._circuits.begin(str(place.url))
        attempt = 0
        while True:
            found = await self._attempt(method, place, body, headers())
            if isinstance(found, Answer):
                self._circuits.succeeded(place.origin)
                self._circuits.succeeded(str(place.url))
                return found
            self._failed(place, found)
            attempt += 1
            last = attempt == self._settings.attempts
            if last or found.asked > self._settings.longest_pause:
                raise UnavailableError(f"{place.origin} {found.why}")
            await asyncio.sleep(max(self._pause(attempt), found.asked))

    def _failed(self, place: Place, trouble: _Trouble) -> None:
        """One path in trouble is no reason to leave the whole host alone."""
        if trouble.whole_host:
            self._circuits.failed(place.origin)
        else:
            self._circuits.succeeded(place.origin)
            self._circuits.failed(str(place.url), trouble.asked)

    def _pause(self, attempt: int) -> float:
        """Seconds after an attempt, the first is 1: doubled, and drawn, so that none keep step."""
        settings = self._settings
        longest = min(settings.first_pause * 2.0 ** (attempt - 1), settings.longest_pause)
        return _RANDOM.uniform(longest / 2, longest)

    async def _attempt(
        self, method: str, place: Place, body: bytes | None, headers: Headers
    ) -> Answer | _Trouble:
        url = place.url
        try:
            for _ in range(_HOPS):
                answer, asked, url_behind = await self._exchange(method, url, body, headers)
                behind = _redirect(answer.status, method, url, url_behind)
                if behind is None:
                    break
                url = behind
        except aiohttp.ClientConnectorCertificateError as error:
            reason = " ".join(str(error.certificate_error).split())
            return _Trouble(f"has no certificate that is trusted: {reason}", whole_host=True)
        except aiohttp.ClientConnectorError as error:
            reason = error.os_error.strerror or str(error.os_error)
            return _Trouble(f"cannot be reached: {reason}", whole_host=True)
        except TimeoutError:
            why = f"does not answer within {self._settings.timeout:g} s"
            return _Trouble(why, whole_host=False)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            why = f"broke the connection ({type(error).__name__})"
            return _Trouble(why, whole_host=False)
        if answer.status in _LATER or answer.status >= _SERVER_TROUBLE:
            return _Trouble(f"answers {answer.status}", whole_host=False, asked=asked)
        return answer

    async def _exchange(
        self, method: str, url: URL, body: bytes | None, headers: Headers
    ) -> tuple[Answer, float, str | None]:
        """One request: its answer, the seconds of `Retry-After`, and where else it points to."""
        if self._session is None:
            raise MisuseError("a client is used as a context manager")
        async with self._session.request(
            method, url, data=body, headers=headers, allow_redirects=False
        ) as response:
            read, whole = await _read(response, self._settings.answer_max)
            if not whole:
                response.close()
            asked = retry_after(response.headers.get("Retry-After", ""))
            behind = response.headers.get("Location")
            return Answer(response.status, read, whole), asked, behind


async def _read(response: aiohttp.ClientResponse, limit: int) -> tuple[bytes, bool]:
    """The first bytes of a body, and whether they are all of it."""
    read = bytearray()
    try:
        async for part in response.content.iter_any():
            read += part
            if len(read) > limit:
                return bytes(read[:limit]), False
    except (aiohttp.ClientError, OSError, TimeoutError):
        return bytes(read), False  # the status is known, and is what counts
    return bytes(read), True


def _redirect(status: int, method: str, url: URL, location: str | None) -> URL | None:
    """Where to go on: only within the same place, and never with another method."""
    if location is None or status not in (_REDIRECTS if method == "GET" else _SAME_METHOD):
        return None
    behind = url.join(URL(location))
    same = behind.is_absolute() and behind.origin() == url.origin()
    return behind.with_user(url.user).with_password(url.password) if same else None


def retry_after(text: str) -> float:
    """Seconds of a `Retry-After`, a number or a date; 0 for none, at most an hour."""
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _LONGEST_ASKED)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    seconds = at.replace(tzinfo=at.tzinfo or UTC).timestamp() - now_ns() / 1e9
    return min(max(0.0, seconds), _LONGEST_ASKED)


def _trust(settings: CallsSettings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if settings.authorities is not None:
        try:
            context.load_verify_locations(settings.authorities)
        except (OSError, ssl.SSLError) as error:
            raise MisuseError(f"calls.authorities: {settings.authorities}: {error}") from error
    return context
