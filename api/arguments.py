"""Arguments that several fields take, as the stores want them."""

import re
from typing import Final

from api.context import Context
from api.errors import ApiError, Code
from api.pagination import read_limit
from pipeline.stages.equity import parse_period
from schemas.ticks import SYMBOL_PATTERN

_SYMBOL: Final = re.compile(SYMBOL_PATTERN, re.ASCII)


def checked(name: str) -> str:
    """A name that can be a symbol; others would only trouble the stores.

    Raises:
        ApiError: it cannot be one.
    """
    if _SYMBOL.fullmatch(name) is None:
        raise ApiError(Code.BAD_INPUT, "a symbol is 1 to 32 printable ASCII characters")
    return name


def read_period(name: str, text: str) -> int:
    """A length of time as `30s`, `5m`, `1h`, `1d`, in ns.

    Raises:
        ApiError: it is none.
    """
    try:
        return parse_period(text)
    except ValueError as error:
        message = f"{name} must be like 30s, 5m, 1h or 1d, and at most a year"
        raise ApiError(Code.BAD_INPUT, message) from error


async def page_of_names(
    context: Context,
    names: list[str] | None = None,
    first: int | None = None,
    after: str | None = None,
) -> list[str]:
    """The known symbols that a page is of, sorted.

    Raises:
        ApiError: it asks for too many.
    """
    return _page(context, await context.services.symbols(names), first, after)


def page_at_once(
    context: Context, names: list[str] | None, first: int | None, after: str | None
) -> list[str] | None:
    """The same where no server has to be asked for it, else None.

    Raises:
        ApiError: it asks for too many.
    """
    known = context.services.known_symbols(names)
    return None if known is None else _page(context, known, first, after)


def _page(context: Context, known: list[str], first: int | None, after: str | None) -> list[str]:
    page_max = context.services.settings.api.page_max
    limit = read_limit("first", page_max if first is None else first, None, page_max)
    return [name for name in known if after is None or name > after][:limit]
