"""What the text of a row's document tells without being read as a whole: identity and symbol."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from pipeline.cache.latest import IDENTITY, IDENTITY_WIDTH

_HEAD: Final = IDENTITY[: IDENTITY.index(b"%")]
_SYMBOL: Final = b'"symbol":"'


def refilled(text: bytes) -> bytes:
    """A row's document for who only puts back what is stored: just below itself in the order.

    So its own worker, who may not have come to it yet, still writes and publishes it.
    """
    return text[: IDENTITY_WIDTH - 1] + b" " + text[IDENTITY_WIDTH - 1 :]


def identity_of(document: bytes | Mapping[str, Any]) -> bytes:
    """The identity of a row, by its document or its text; their order is that of identities.

    Raises:
        ValueError: the text is no document of a row.
    """
    if isinstance(document, bytes):
        if not document.startswith(_HEAD):
            raise ValueError("no document of a row")
        return document[: IDENTITY_WIDTH - 1]
    place = (document["partition"], document["offset"], document["index"])
    return (IDENTITY % place)[: IDENTITY_WIDTH - 1]


def symbol_of(text: bytes) -> str:
    """The symbol in the text of a row's document, which is not read as a whole.

    Raises:
        ValueError: it is no document of a row.
    """
    begin = text.index(_SYMBOL, IDENTITY_WIDTH) + len(_SYMBOL)
    name = text[begin : text.index(b'"', begin)]
    return name.decode("ascii") if b"\\" not in name else str(orjson.loads(text)["symbol"])
