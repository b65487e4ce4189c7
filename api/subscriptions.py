"""The resolvers of what is pushed: the latest rows from the cache, fills and alerts from Kafka."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from ariadne import SubscriptionType
from graphql import GraphQLResolveInfo

from api.arguments import checked
from api.context import Context
from api.errors import ApiError, Code
from api.hub import Listener
from api.names import FOLLOWED
from api.topics import FILLS
from schemas.topics import ALERTS

NAMES_MAX: Final = 1000  # symbols that one subscription may name
Info = GraphQLResolveInfo[Context]
Row = dict[str, Any]
Source = Callable[..., AsyncGenerator[Row, None]]

subscription: Final = SubscriptionType()


def source_of(stage: str) -> Source:
    """The rows of a stage from now on, of these symbols or of all."""

    async def source(
        _: None, info: Info, symbols: list[str] | None = None
    ) -> AsyncGenerator[Row, None]:
        async with listening(info.context, stage, symbols) as listener:
            while True:
                yield await listener.take()

    return source


@asynccontextmanager
async def listening(
    context: Context, stage: str, symbols: Sequence[str] | None
) -> AsyncIterator[Listener]:
    """A listener to these symbols of what is followed; None: to all."""
    names = wanted(symbols)
    async with AsyncExitStack() as stack:
        listener = (
            await stack.enter_async_context(context.services.topics.subscribed(stage, names))
            if stage in {FILLS, ALERTS}
            else stack.enter_context(context.services.hubs.subscribed(stage, names))
        )
        context.listeners.append(listener)
        yield listener


@subscription.source("alerts")
async def source_alerts(
    _: None, info: Info, symbols: list[str] | None = None, kinds: list[str] | None = None
) -> AsyncGenerator[Row, None]:
    """Every alert from now on."""
    async with listening(info.context, ALERTS, symbols) as listener:
        while True:
            row = await listener.take()
            if kinds is None or row["kind"] in kinds:
                yield row


def wanted(symbols: Sequence[str] | None) -> set[str] | None:
    """The symbols that one who subscribes has named; None: all.

    Raises:
        ApiError: too many, or one cannot be a symbol.
    """
    if symbols is None:
        return None
    if len(symbols) > NAMES_MAX:
        message = f"{NAMES_MAX} symbols may be named; leave them out to follow all"
        raise ApiError(Code.BAD_INPUT, message)
    return {checked(name) for name in symbols}


def _published(row: Row, _: Info, **_arguments: Any) -> Row:
    """The row that was published."""
    return row


for _stage, _field in {**FOLLOWED, FILLS: "fills"}.items():
    subscription.set_source(_field, source_of(_stage))
for _field in (*FOLLOWED.values(), "fills", "alerts"):
    subscription.set_field(_field, _published)

BINDABLES: Final = [subscription]
