"""Rows of Postgres' binary COPY from columns."""

from collections.abc import Callable
from typing import Any, Final, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pipeline.kernels.columns import FLOAT8, INT4, INT8, is_nan
from pipeline.kernels.hot import loop
from schemas.blocks import Array

_NULL: Final = -1


@intrinsic
def _stored(_typing: Any, out: Any, _at: Any, value: Any) -> Any:
    """Store all bytes of an integer at once; byte by byte takes three times as long."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        place = builder.gep(array.data, [args[1]])
        pointer = builder.bitcast(place, ir.PointerType(args[2].type))
        builder.store(builder.bswap(args[2]), pointer, align=1)
        return context.get_dummy_value()

    return types.void(out, types.intp, value), generate


# Write an integer of 4 or 8 bytes, the highest first, on a machine that has the lowest first.
# numba's own type of an intrinsic counts the typing context among the arguments.
_put: Final = cast("Callable[[Array, int, Any], None]", _stored)


@loop
def pack(
    n: int, doubles: Array, longs: Array, ints: Array, plan: Array, ends: Array, text: Array,
    day: int, piece: int, stops: Array, out: Array,
) -> int:  # fmt: skip
    """Write n rows, each a count of fields and fields of a length and bytes; the bytes written.

    Args:
        n: number of rows.
        doubles: int64, the bits of the float64 columns; see `columns.gathered`, also of the others.
        longs: int64 columns.
        ints: int32, integers and codes of texts.
        plan: int64 (columns, 4), see `columns.Plan`.
        ends: int64, see `columns.Words`.
        text: uint8.
        day: the last field of every row, an int4.
        piece: rows of a piece.
        stops: int64 (ceil(n / piece),), filled: where each piece ends.
        out: uint8, filled.

    Returns:
        The bytes written; -1 when a code has no word.
    """
    columns = plan.shape[0]
    at = 0
    for i in range(n):
        out[at] = ((columns + 1) >> 8) & 255
        out[at + 1] = (columns + 1) & 255
        at += 2
        for j in range(columns + 1):
            length, value, start = 4, day, -1
            if j < columns:
                kind = plan[j, 0]
                place = plan[j, 1] * n + i
                if kind == FLOAT8:
                    value = doubles[place]
                    length = _NULL if is_nan(value) else 8
                elif kind == INT8:
                    value = longs[place]
                    length = 8
                else:
                    value = ints[place]
                    if kind != INT4:
                        length = _NULL
                        if value >= 0:
                            word = plan[j, 2] + value
                            if word >= plan[j, 3] and (plan[j, 3] >= 0 or word >= len(ends) - 1):
                                return -1
                            start = ends[word]
                            length = ends[word + 1] - start
            _put(out, at, np.int32(length))
            at += 4
            if start >= 0:
                for b in range(start, start + length):
                    out[at] = text[b]
                    at += 1
            elif length == 8:
                _put(out, at, np.int64(value))
                at += 8
            elif length > 0:
                _put(out, at, np.int32(value))
                at += 4
        stops[i // piece] = at
    return at
