"""Settings of the chain that a client may give a replay of its own; none of them names a file."""

from collections.abc import Sequence
from typing import Any, Final

from pydantic import ValidationError

from api.errors import ApiError, Code
from pipeline.errors import MisuseError
from pipeline.settings import nested, told
from pipeline.stages.bars import parse_clock
from pipeline.stages.chain import ChainSettings

MOST: Final = 64
_LONGEST: Final = 500  # characters
# `user` is code of one's own: who may ask for a replay may not run that on the server.
_ALLOWED: Final = frozenset(ChainSettings.model_fields) - {"user"}


def overridden(chain: ChainSettings, settings: Sequence[str], bar: str | None) -> ChainSettings:
    """The settings of a chain with `KEY=VALUE` assignments and a clock in their place.

    It is checked without the readers of files in `Settings`, so what would be the path of a file
    there is a value of the wrong type here.

    Raises:
        ApiError: an assignment is none, is not allowed or does not fit, or the clock is none.
    """
    if len(settings) > MOST:
        raise ApiError(Code.BAD_INPUT, f"at most {MOST} settings are taken")
    if any(len(one) > _LONGEST or not one.isprintable() for one in (*settings, bar or "")):
        raise ApiError(Code.BAD_INPUT, f"a setting has at most {_LONGEST} printable characters")
    try:
        tree = nested(settings)
    except (MisuseError, RecursionError) as error:
        raise ApiError(
            Code.BAD_INPUT, "settings are given as KEY=VALUE: fills.taker_bp=5"
        ) from error
    for group in tree:
        if group not in _ALLOWED:
            allowed = ", ".join(sorted(_ALLOWED))
            raise ApiError(Code.BAD_INPUT, f"setting {group}: only those of {allowed} can be set")
    if bar is not None:
        tree = _merged(tree, {"bars": {"clock": _clock(bar)}})
    try:
        return ChainSettings.model_validate(_merged(chain.model_dump(), tree))
    except ValidationError as error:
        raise ApiError(Code.BAD_INPUT, told(error)) from error


def _clock(bar: str) -> str:
    try:
        parse_clock(bar)
    except ValueError as error:
        raise ApiError(Code.BAD_INPUT, f"bar: {error}") from error
    return bar


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two trees as one; where both have a value the upper one's counts."""
    found = dict(below)
    for name, value in above.items():
        former = found.get(name)
        if isinstance(former, dict) and isinstance(value, dict):
            value = _merged(former, value)  # noqa: PLW2901 - both are groups
        found[name] = value
    return found
