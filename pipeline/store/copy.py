"""Binary COPY of a stage's rows, written by one kernel from the columns as they stand."""

from datetime import date
from itertools import pairwise
from typing import Final

import numpy as np

from pipeline.kernels.columns import gathered, plan_of, words_of
from pipeline.kernels.packing import pack
from pipeline.store.parameters import days
from schemas.blocks import COLUMNS, Kind, Rows, per_stage

HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER: Final = b"\xff\xff"
_WIDTHS: Final[dict[Kind, int]] = {  # with the length, without the text
    "float64": 12, "int64": 12, "int32": 8, "symbol": 4, "label": 4
}  # fmt: skip
_DAY: Final = "written_on"


def copy_columns(stage: str) -> list[str]:
    """The columns of the table that COPY fills, in order."""
    return [*(column.name for column in COLUMNS[stage]), _DAY]


@per_stage
def _widths(stage: str) -> tuple[int, int]:
    """Bytes that a row takes at most without its texts, and how many those are."""
    columns = COLUMNS[stage]
    texts = sum(column.kind in {"symbol", "label"} for column in columns)
    return 2 + 8 + sum(_WIDTHS[column.kind] for column in columns), texts


def copy_pieces(rows: Rows, written_on: date, piece: int) -> list[bytes]:
    """Rows as binary COPY for `copy_columns(rows.stage)`, each piece of at most so many rows.

    One or more of them stand between HEADER and TRAILER.

    Raises:
        IndexError: a code has no symbol or label.
    """
    n = len(rows)
    if not n:
        return []
    plan, words = plan_of(rows.stage), words_of(rows)
    width, texts = _widths(rows.stage)
    out = np.empty(n * (width + texts * words.longest), np.uint8)
    stops = np.empty(-(-n // piece), np.int64)
    day = days(written_on)
    used = pack(n, *gathered(rows), plan.table, words.ends, words.text, day, piece, stops, out)
    if used < 0:
        raise IndexError(f"{rows.stage}: a code has no symbol or label")
    return [out[start:stop].tobytes() for start, stop in pairwise([0, *stops.tolist()])]
