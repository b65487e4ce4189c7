"""Local times without a zone, made UTC by a named zone and a rule for the hour that comes twice."""

from datetime import UTC, datetime
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipeline.errors import MisuseError
from schemas.times import NO_TIME, parse_time

Fold = Literal["first", "second", "refuse"]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NANO_DIGITS: Final = 9


class LocalTimes:
    """Reads times of one zone; counts the ambiguous and the ones that no clock ever showed."""

    def __init__(self, zone: str, fold: Fold) -> None:
        try:
            self._zone = ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise MisuseError(f"--zone {zone!r} is no zone, as America/Chicago is") from error
        self._fold = fold
        self.ambiguous = 0
        self.nonexistent = 0

    def to_ns(self, text: str | int | None) -> int:
        """Nanoseconds since 1970 UTC; NO_TIME where the rule refuses or the text is no time."""
        if not isinstance(text, str):
            return parse_time(text)
        known = parse_time(text)
        if known != NO_TIME:
            return known  # it names its zone
        whole, _, fraction = text.strip().partition(".")
        try:
            naive = datetime.fromisoformat(whole)
            nanos = int(fraction[:_NANO_DIGITS].ljust(_NANO_DIGITS, "0")) if fraction else 0
        except ValueError:
            return NO_TIME
        return self._resolved(naive, nanos)

    def _resolved(self, naive: datetime, nanos: int) -> int:
        first = naive.replace(tzinfo=self._zone, fold=0)
        second = naive.replace(tzinfo=self._zone, fold=1)
        if first.utcoffset() != second.utcoffset():
            if first.astimezone(UTC).astimezone(self._zone).replace(tzinfo=None) != naive:
                self.nonexistent += 1
                return NO_TIME
            self.ambiguous += 1
            if self._fold == "refuse":
                return NO_TIME
        chosen = second if self._fold == "second" else first
        delta = chosen.astimezone(UTC) - _EPOCH
        return (delta.days * 86_400 + delta.seconds) * 10**9 + nanos
