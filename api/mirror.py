"""The latest state in this process, so that asking for it touches no network.

What is asked for is kept: rows, and that there is none. It is served while the feed has brought
everything that was published since, and has proven so within the last second (`STALE`). After a
gap - the connection broke, a stage was not followed, the proof is late - nothing is served until it
has been read again. A row replaces another by its identity only, so nobody sees a symbol go back:
where the cache has less than was known here, which happens when it was away, Postgres decides.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any, Final, Protocol

import orjson

from pipeline.cache.documents import identity_of, symbol_of
from pipeline.cache.kinds import STAGE_OF

STALE: Final = 1.0  # seconds since the last proof
MISSING: Final = object()
"""Nothing that could be served."""
Row = dict[str, Any]
Ticket = tuple[int, int]  # the life of the stage, and how often something was dropped
_NO_ROW: Final = b""  # the identity of a known absence: below any other
_GAP: Final = -1  # the life of what is to be read again


class Lives(Protocol):
    """What the mirror asks of its feed."""

    def want(self, stage: str) -> None:
        """Follow a stage from soon on."""

    def life(self, stage: str) -> int:
        """While it stays the same, no row of the stage has been missed; 0: it is not followed."""

    def age(self) -> float:
        """Since so many seconds it is not proven that nothing is missing."""


class _Held:
    """A row, as its text until somebody asks for it, and since when nothing was missed."""

    __slots__ = ("identity", "life", "row", "text")

    def __init__(self, identity: bytes, life: int, row: Row | None, text: bytes | None) -> None:
        self.identity = identity
        self.life = life
        self.row = row
        self.text = text

    def read(self) -> Any:
        """The row, None where there is none, or MISSING when its text cannot be read."""
        if self.text is not None:
            try:
                self.row, self.text = orjson.loads(self.text), None
            except ValueError:
                self.identity, self.life = _NO_ROW, _GAP
                return MISSING
        return self.row


class Mirror:
    """The latest rows of the symbols that were asked for, at most so many; the longest unasked go.

    A symbol takes about 16 KB when every stage of it was asked for.
    """

    def __init__(self, feed: Lives, symbols: int) -> None:
        self._feed = feed
        self._most = symbols
        self._held: OrderedDict[str, dict[str, _Held]] = OrderedDict()
        self._drops = 0

    def __len__(self) -> int:
        """How many symbols are kept."""
        return len(self._held)

    def get(self, stage: str, symbol: str) -> Any:
        """The latest row, None where there is none, or MISSING: it is to be read, then kept."""
        held = self._held.get(symbol, {}).get(stage)
        if held is None or held.life != self._feed.life(stage) or self._feed.age() > STALE:
            return MISSING
        self._held.move_to_end(symbol)
        return held.read()

    def staleness(self) -> float:
        """The age of what is served, in seconds; 0 where everything is read when it is asked."""
        age = self._feed.age()
        return age if age <= STALE else 0.0

    def begin(self, stage: str) -> Ticket:
        """Before a read; to be given with what was read."""
        if self._most:
            self._feed.want(stage)
        return self._feed.life(stage) or _GAP, self._drops

    def behind(self, stage: str, found: Mapping[str, Row | None]) -> dict[str, bytes]:
        """The symbols of which more was known here than the cache gave, with its identity."""
        known = {symbol: self._held.get(symbol, {}).get(stage) for symbol in found}
        return {
            symbol: held.identity
            for symbol, held in known.items()
            if held is not None and _identity(found[symbol]) < held.identity
        }

    def known(self, stage: str, symbol: str) -> Row | None:
        """The newest row that was known here, however long ago."""
        held = self._held.get(symbol, {}).get(stage)
        found: Any = None if held is None else held.read()
        return None if found is MISSING else found

    def keep(
        self,
        stage: str,
        found: Mapping[str, Row | None],
        ticket: Ticket,
        overruled: Mapping[str, bytes],
    ) -> dict[str, Row | None]:
        """Keep what was read, by symbol; returns it, or what the feed has brought since if newer.

        `overruled` are identities that were known here and that Postgres does not have any more.
        """
        life, drops = ticket
        if drops != self._drops:
            life = _GAP  # it may have been read before it was dropped
        served = dict(found)
        for symbol, row in found.items() if self._most else ():
            rows = self._held.setdefault(symbol, {})
            self._held.move_to_end(symbol)
            held, identity = rows.get(stage), _identity(row)
            if held is None or identity >= held.identity or held.identity == overruled.get(symbol):
                rows[stage] = _Held(identity, life, row, None)
            elif (newer := held.read()) is not MISSING:
                served[symbol] = newer
        while len(self._held) > self._most:
            self._held.popitem(last=False)
        return served

    def take(self, stage: str, text: bytes) -> None:
        """A row that was published.

        Raises:
            ValueError: it is none.
        """
        held = self._held.get(symbol_of(text), {}).get(stage)
        if held is None:
            return  # nobody has asked for it
        identity = identity_of(text)
        if identity < held.identity:
            held.life = _GAP  # the cache has begun anew, or is behind
            return
        if identity > held.identity:
            held.identity, held.text = identity, text
        held.life = self._feed.life(stage)

    def forget(self, keys: Collection[str]) -> None:
        """Keys of the cache that were dropped: they are read again."""
        self._drops += 1
        for key in keys:
            kind, _, symbol = key.partition(":")
            stage = STAGE_OF.get(kind)
            if stage == "predictions":
                symbol = symbol.rpartition(":")[0]
            if stage is not None:
                self._held.get(symbol, {}).pop(stage, None)


def newest(*rows: Row | None) -> Row | None:
    """Of rows of a symbol the one of the highest identity."""
    return max(rows, key=_identity)


def _identity(row: Row | None) -> bytes:
    return _NO_ROW if row is None else identity_of(row)
