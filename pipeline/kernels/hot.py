"""Compilation of the loops that run for every tick: no reference counting, pieces always inlined.

numba counts references to every array a function is handed and to every row it looks at, by atomic
operations; in the loop of the features they cost more than the arithmetic (840 ns a row with them, 390
without). The caller holds the arrays during the call and nothing is allocated inside, so there is nothing
to count: with `_nrt=False` numba refuses code that allocates. Otherwise the same as `jit.kernel`.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

from pipeline.kernels import jit  # noqa: F401 -- it sets where compiled code is cached

P = ParamSpec("P")
R = TypeVar("R")


def loop(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a loop over ticks that only reads and writes the arrays it was given."""
    compiled = numba.njit(cache=True, fastmath=False, error_model="numpy", _nrt=False)(function)
    return cast("Callable[P, R]", compiled)


def piece(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a piece of such a loop, inlined where it is called."""
    options = {"cache": True, "fastmath": False, "error_model": "numpy", "_nrt": False}
    compiled = numba.njit(**options, forceinline=True)(function)
    return cast("Callable[P, R]", compiled)
