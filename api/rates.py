"""How many operations a principal may begin a second, over all processes of the API.

Tokens come from a bucket in Redis, leased by the dozen for a moment, so that a request seldom waits
for Redis. A local bucket of the same rate stands before it: when Redis is away it is the limit.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from api.errors import LimitedError
from api.principals import LOCAL, Principal
from pipeline.cache.buckets import Grant
from pipeline.clock import monotonic
from pipeline.errors import UnavailableError
from pipeline.settings import ApiSettings
from pipeline.waiting import ended

Lease = Callable[[str, float, int, int], Awaitable[Grant]]
_LEASED: Final = 0.1  # seconds of the rate that a lease holds
_KEPT: Final = 1.0  # seconds until a lease is void
_PATIENCE: Final = 0.25  # seconds that a request waits for Redis
_LEFT_ALONE: Final = 1.0  # seconds that a Redis which failed is not asked again
_ACCOUNTS: Final = 10_000  # principals


class _Account:
    """One principal in this process."""

    def __init__(self, burst: float) -> None:
        self.own = burst  # the local bucket
        self.at = monotonic()
        self.leased = 0
        self.void_at = 0.0
        self.empty_until = 0.0
        self.waiting = 0
        self.renewal: asyncio.Task[None] | None = None


class Rates:
    """Counts what principals begin."""

    def __init__(self, settings: ApiSettings, lease: Lease) -> None:
        self._rate = settings.rate
        self._burst = settings.burst
        self._lease = lease
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._again = 0.0

    async def spend(self, principal: Principal) -> None:
        """Count one operation.

        Raises:
            LimitedError: it is one too many.
        """
        rate = self._rate
        if rate is None or principal is LOCAL:
            return
        account = self._account(principal.id)
        self._spend_own(account, rate)
        while not self._spend_leased(account, principal.id, rate):
            now = monotonic()
            if now < account.empty_until:
                raise _limited(account.empty_until - now)
            if now < self._again:
                return  # Redis is away: the local bucket has been asked
            await self._renewed(account, principal.id, rate)

    def _account(self, name: str) -> _Account:
        account = self._accounts.get(name)
        if account is None:
            account = self._accounts[name] = _Account(self._burst)
        self._accounts.move_to_end(name)
        if len(self._accounts) > _ACCOUNTS:
            self._accounts.popitem(last=False)
        return account

    def _spend_own(self, account: _Account, rate: float) -> None:
        now = monotonic()
        account.own = min(self._burst, account.own + (now - account.at) * rate)
        account.at = now
        if account.own < 1:
            raise _limited((1 - account.own) / rate)
        account.own -= 1

    def _spend_leased(self, account: _Account, name: str, rate: float) -> bool:
        now = monotonic()
        if account.leased < 1 or now >= account.void_at:
            return False
        account.leased -= 1
        low = account.leased < rate * _LEASED / 2 and rate * _LEASED >= 1
        if low and account.renewal is None and now >= max(account.empty_until, self._again):
            self._renew(account, name, rate)  # in time, so that nobody has to wait
        return True

    async def _renewed(self, account: _Account, name: str, rate: float) -> None:
        renewal = account.renewal or self._renew(account, name, rate)
        account.waiting += 1
        try:
            async with asyncio.timeout(_PATIENCE):
                await asyncio.shield(renewal)
        except TimeoutError:
            self._again = monotonic() + _LEFT_ALONE
        finally:
            account.waiting -= 1

    def _renew(self, account: _Account, name: str, rate: float) -> "asyncio.Task[None]":
        account.renewal = asyncio.create_task(self._ask(account, name, rate))
        return account.renewal

    async def _ask(self, account: _Account, name: str, rate: float) -> None:
        await asyncio.sleep(0)  # all who come in this turn of the loop are asked for
        wanted = min(self._burst, max(int(rate * _LEASED), account.waiting, 1))
        try:
            grant = await self._lease(name, rate, self._burst, wanted)
        except UnavailableError:
            self._again = monotonic() + _LEFT_ALONE
        else:
            now = monotonic()
            left = account.leased if now < account.void_at else 0
            account.leased = left + grant.tokens
            account.void_at = now + _KEPT
            if grant.tokens < wanted:
                account.empty_until = now + grant.wait
        finally:
            account.renewal = None

    async def close(self) -> None:
        """Wait for what is under way."""
        for account in self._accounts.values():
            if account.renewal is not None:
                await ended(account.renewal)


def _limited(seconds: float) -> LimitedError:
    return LimitedError("too many operations; try again later", seconds)
