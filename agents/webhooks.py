"""Alerts to their receivers: each webhook follows the topic in a group of its own.

So none holds up another, each goes on where it was, and of several processes one tells it. An
alert comes at least once, always under the same id. One that its receiver refuses is given up at
once, one that cannot be delivered when it is `age_max` old; the next that is delivered tells how
many.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum, auto
from functools import partial
from typing import Any, Final

import structlog

from pipeline.bus.consumer import Follower, Record, follow
from pipeline.calls.client import Client, RestingError
from pipeline.calls.places import place_of
from pipeline.clock import monotonic, now_ns
from pipeline.errors import ConflictError, UnavailableError
from pipeline.settings import Webhook
from schemas.alerts import read_alert
from schemas.topics import ALERTS
from schemas.webhooks import alert_id, webhook_body, webhook_headers

LOG: Final = structlog.get_logger()
_GONE: Final = 410
# Of this one document; everything else is of the receiver, and may be mended there.
_REFUSALS: Final = frozenset({400, 413, 422})
_PORTION: Final = 4  # alerts taken at once, for each that may be on its way at once
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_QUIET: Final = 60.0  # seconds between two lines about alerts that were given up


class Ending(StrEnum):
    """What became of an alert."""

    DELIVERED = auto()
    UNWANTED = auto()
    UNREADABLE = auto()
    REFUSED = auto()
    TOO_OLD = auto()
    LOST = auto()
    """Another member has its partition, and tells it."""


_GIVEN_UP: Final = (Ending.UNREADABLE, Ending.REFUSED, Ending.TOO_OLD)


class GoneError(Exception):
    """The receiver wants nothing any more (410)."""


class Delivery:
    """Delivers what one webhook is to get, from one membership in its group."""

    def __init__(self, name: str, hook: Webhook, client: Client, follower: Follower) -> None:
        self._hook = hook
        self._url = hook.url.get_secret_value()
        self._keys = hook.keys
        self._client = client
        self._follower = follower
        self._turns = asyncio.Semaphore(hook.at_once)
        self._log = LOG.bind(webhook=name, to=place_of(self._url, plain=True).origin)
        self._trouble = ""
        self._given_up: Counter[str] = Counter()
        self._quiet_until = 0.0
        self._gone = False
        self.delivered = 0

    async def run(self) -> None:
        """Deliver until cancelled.

        Raises:
            GoneError: the receiver says so; what it was to get stays with the group.
            UnavailableError: the broker refuses, or takes no commit.
        """
        while True:
            portion = await self._follower.take(_PORTION * self._hook.at_once)
            if portion:
                await self._portion(portion)

    async def _portion(self, portion: Sequence[Record]) -> None:
        """Alerts of one partition; committed when something became of each."""
        partition = portion[0].partition
        missed = _missed(self._follower.note(partition))
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    # One of them tells what was missed.
                    group.create_task(self._one(record, 0 if place else missed))
                    for place, record in enumerate(portion)
                ]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        endings = [task.result() for task in tasks]
        if Ending.LOST in endings:
            return
        if endings[0] is Ending.DELIVERED:
            missed = 0
        given_up = Counter(str(one) for one in endings if one in _GIVEN_UP)
        missed += given_up.total()
        self.delivered += endings.count(Ending.DELIVERED)
        try:
            await self._follower.commit(portion[-1], str(missed))
        except ConflictError as error:
            self._log.warning("webhook_moved", error=str(error))
            return
        self._tell_given_up(given_up)

    async def _one(self, record: Record, missed: int) -> Ending:
        async with self._turns:
            try:
                alert = read_alert(record.value)
            except ValueError as error:
                self._log.warning("alert_unreadable", offset=record.offset, error=str(error))
                return Ending.UNREADABLE
            if self._hook.kinds and alert["kind"] not in self._hook.kinds:
                return Ending.UNWANTED
            return await self._insist(record, webhook_body(alert, record.published, missed))

    async def _insist(self, record: Record, body: bytes) -> Ending:
        """Post it until it is taken, refused or too old."""
        headers = partial(_headers, alert_id(record.value), body, self._keys)
        pause = _FIRST_PAUSE
        while self._follower.holds(record.partition):
            if self._gone:
                raise GoneError
            if now_ns() - record.published > self._hook.age_max * 1e9:
                return Ending.TOO_OLD
            try:
                answer = await self._client.post(self._url, body, headers)
            except RestingError:
                pass
            except UnavailableError as error:
                self._tell(str(error))
            else:
                if answer.ok:
                    self._tell("")
                    return Ending.DELIVERED
                if answer.status in _REFUSALS:
                    return Ending.REFUSED
                if answer.status == _GONE:
                    self._gone = True
                    continue
                self._tell(f"answers {answer.status}")
            await asyncio.sleep(max(pause, self._client.rest(self._url)))
            pause = min(2 * pause, _LONGEST_PAUSE)
        return Ending.LOST

    def _tell(self, trouble: str) -> None:
        """A line when it begins to fail, fails in another way, or takes alerts again."""
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble:
            self._log.warning("webhook_failing", error=trouble)
        else:
            self._log.info("webhook_recovered")

    def _tell_given_up(self, given_up: Counter[str]) -> None:
        """A line at once, then one a minute at most; all are counted."""
        self._given_up += given_up
        if self._given_up and monotonic() >= self._quiet_until:
            self._quiet_until = monotonic() + _QUIET
            self._log.warning("alerts_given_up", **self._given_up)
            self._given_up.clear()


def _headers(name: str, body: bytes, keys: Sequence[bytes]) -> dict[str, str]:
    return webhook_headers(name, body, now_ns() // 10**9, keys)


def _missed(note: str) -> int:
    """What was noted with the commit, also by another release."""
    return int(note) if note.isascii() and note.isdigit() else 0


async def deliver(name: str, hook: Webhook, client: Client, kafka: str, group: str) -> None:
    """Deliver to one webhook until it is gone; a broker that is away is waited for."""
    log: Any = LOG.bind(webhook=name)
    told = ""
    while True:
        try:
            async with follow(kafka, ALERTS, group) as follower:
                log.info("webhook_started", group=group)
                told = ""
                await Delivery(name, hook, client, follower).run()
        except GoneError:
            log.warning("webhook_gone", error="it answers 410: not called again until a restart")
            return
        except UnavailableError as error:
            if str(error) != told:
                log.warning("webhook_waits", error=str(error))
            told = str(error)
        await asyncio.sleep(_FIRST_PAUSE)
