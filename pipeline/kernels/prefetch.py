"""Asking the processor for rows that a loop will need soon: no bit of any result depends on it.

With thousands of symbols every tick meets a state that has left the caches, some seventy cache
lines of it. Fetched one after another on demand they cost more than the arithmetic; the loop knows
the symbols of the next ticks, so it asks for their lines while it works on this one.
"""

from collections.abc import Callable
from typing import Any, Final, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.kernels.hot import piece
from pipeline.kernels.layout import W_WAITING, WINDOWS
from schemas.blocks import Array

_LINE: Final = 8  # floats, or counters, of a cache line
HEAD_AHEAD: Final = 3
SLOTS_AHEAD: Final = 1


@intrinsic
def _asked(_typing: Any, array: Any, _at: Any) -> Any:
    """Ask for the cache line of array[_at] (one dimension, contiguous), to be written."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        found = context.make_array(kind)(context, builder, args[0])
        place = builder.gep(found.data, [args[1]])
        pointer = builder.bitcast(place, cgutils.voidptr_t)
        word = ir.IntType(32)
        shape = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, word, word, word])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [cgutils.voidptr_t], shape)
        builder.call(ask, [pointer, word(1), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


# numba's own type of an intrinsic counts the typing context among the arguments.
_prefetch: Final = cast("Callable[[Array, int], None]", _asked)


@piece
def prefetch_head(f: Array, k: Array, plan: Array) -> None:
    """Ask for the scalars, the aggregates and the counters of a row."""
    for j in range(0, plan[0, 3], _LINE):
        _prefetch(f, j)
    for j in range(0, k.shape[0], _LINE):
        _prefetch(k, j)


@piece
def prefetch_slots(f: Array, k: Array, plan: Array) -> None:
    """Ask for the next slot of every window of a row."""
    for w in range(WINDOWS):
        if w != W_WAITING:
            _prefetch(f, plan[w, 3] + plan[w, 4] * k[plan[w, 2]])
