"""JSON as all clients get it."""

import json
from typing import Any

import orjson


def encode(result: Any) -> bytes:
    """JSON; text that UTF-8 cannot carry, as a client may send in an escape, stays escaped."""
    try:
        return orjson.dumps(result)
    except TypeError:
        return json.dumps(result).encode()
