"""The statements of `queries.sql` by name."""

import re
from functools import cache
from importlib.resources import files
from typing import Final

from schemas.blocks import STAGES, names_of

_NAMED: Final = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@cache
def _statements() -> dict[str, str]:
    parts = _NAMED.split((files("pipeline.store") / "queries.sql").read_text())
    return dict(zip(parts[1::2], (text.strip() for text in parts[2::2]), strict=True))


def statement(name: str) -> str:
    """The text of a statement."""
    return _statements()[name]


def stage_statement(name: str, stage: str, columns: tuple[str, ...] = ()) -> str:
    """A statement over a stage's table: {stage} and {columns} are filled from closed lists.

    Raises:
        ValueError: there is no such stage, or it has not all of these columns.
    """
    if stage not in STAGES:
        raise ValueError(f"no stage is called {stage!r}")
    known = names_of(stage)
    if not set(columns) <= set(known):
        raise ValueError(f"{stage} has no columns {sorted(set(columns) - set(known))}")
    return _filled(name, stage, columns or known)


def leaf_statement(name: str, stage: str, leaf: str) -> str:
    """A statement over the table of one day: {leaf} is from the catalogue."""
    return stage_statement(name, stage).replace("{leaf}", leaf)


@cache
def _filled(name: str, stage: str, columns: tuple[str, ...]) -> str:
    listed = ", ".join(f'"{column}"' for column in columns)
    return statement(name).replace("{stage}", stage).replace("{columns}", listed)
