"""The tick contract: what a publisher may send on `prices`, and why a tick may be turned away."""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

SYMBOL_PATTERN: Final = r"^[\x21-\x7e]{1,32}$"
ID_LENGTH: Final = 64

Symbol = Annotated[str, StringConstraints(pattern=SYMBOL_PATTERN)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Reason(StrEnum):
    """Why a message or a tick was rejected; the order is the code kept in state, append only."""

    UNDECODABLE = "undecodable"
    MALFORMED = "malformed"
    BAD_SYMBOL = "bad_symbol"
    BAD_TIME = "bad_time"
    NON_FINITE = "non_finite"
    NON_POSITIVE = "non_positive"
    NEGATIVE_SIZE = "negative_size"
    DUPLICATE = "duplicate"
    LATE = "late"
    TOO_MANY_SYMBOLS = "too_many_symbols"


REASONS: Final[tuple[Reason, ...]] = tuple(Reason)


class Note(StrEnum):
    """What the guard noticed about a tick that it took; append only, like the reasons."""

    QUARANTINED = "quarantined"
    LEVEL_SHIFT = "level_shift"
    CROSSED = "crossed"
    LOCKED = "locked"
    SESSION_BREAK = "session_break"
    NEW_INSTRUMENT = "new_instrument"
    RESCALED = "rescaled"
    RENAMED = "renamed"
    ID_GAP = "id_gap"
    STALE = "stale"
    ONE_SIDED = "one_sided"
    FROZEN_BID = "frozen_bid"
    FROZEN_ASK = "frozen_ask"


NOTES: Final[tuple[Note, ...]] = tuple(Note)
# Columns of the guard's counts: rejected by reason, then noticed, then accepted.
COUNTED: Final[tuple[str, ...]] = (*REASONS, *NOTES, "accepted")

DETAILS: Final[dict[Reason, str]] = {
    Reason.UNDECODABLE: "the bytes are neither JSON nor an Arrow IPC stream of ticks",
    Reason.MALFORMED: "a field is missing or has the wrong type",
    Reason.BAD_SYMBOL: "the symbol is not 1 to 32 printable ASCII characters without spaces",
    Reason.BAD_TIME: "the time lies outside 1971 to one day after its receipt, or has no zone",
    Reason.NON_FINITE: "a number is not finite",
    Reason.NON_POSITIVE: "the price is zero or negative",
    Reason.NEGATIVE_SIZE: "a size is negative",
    Reason.DUPLICATE: "the trade id was seen before for this symbol",
    Reason.LATE: "the tick is older than the last accepted tick of its symbol",
    Reason.TOO_MANY_SYMBOLS: "the partition holds as many symbols as guard.max_symbols allows",
}


class Tick(BaseModel):
    """One price event; `symbol`, `ts` and `price` are required, unknown fields are ignored.

    This model is the contract and writes the JSON Schema; `schemas.codec` decodes the same
    documents with msgspec on the hot path, and a test holds both to the same verdicts.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", title="Tick")

    symbol: Symbol = Field(
        description="instrument, 1 to 32 printable ASCII characters without spaces"
    )
    ts: int | str = Field(
        description="event time: RFC 3339 with zone, or an integer whose unit (s, ms, us, ns) is "
        "told by its size; refused outside 1971 to now + 1 day"
    )
    price: Finite = Field(description="last trade price, or the mid of a quote; must be positive")
    size: Finite | None = Field(None, description="traded quantity, not negative")
    side: str | None = Field(
        None, description="aggressor, buy or sell", pattern="^(buy|sell)$", max_length=4
    )
    bid: Finite | None = Field(None, description="best bid price")
    ask: Finite | None = Field(None, description="best ask price")
    bid_size: Finite | None = Field(None, description="quantity at the best bid")
    ask_size: Finite | None = Field(None, description="quantity at the best ask")
    open: Finite | None = Field(None, description="open of the bar, when rows are bars already")
    high: Finite | None = Field(None, description="high of the bar, when rows are bars already")
    low: Finite | None = Field(None, description="low of the bar, when rows are bars already")
    id: (
        Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
        | Annotated[str, StringConstraints(min_length=1, max_length=ID_LENGTH)]
        | None
    ) = Field(
        None, description="trade id or sequence of the source; duplicates are dropped by it only"
    )
    recv_ts: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = Field(
        None, description="receive time at the recorder, an integer like ts"
    )
    factor: Finite | None = Field(
        None,
        description="corporate action that takes effect with this tick: earlier prices times "
        "factor are comparable with it (0.5 for a 2:1 split); must be positive",
    )
    volume_factor: Finite | None = Field(
        None, description="the same for earlier sizes (2 for a 2:1 split); must be positive"
    )
    was: Symbol | None = Field(
        None, description="former symbol of this instrument: its state moves here with this tick"
    )


def tick_json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of one tick."""
    schema = Tick.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema
