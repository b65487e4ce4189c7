"""Compilation of the loops that run for every tick: no reference counting, pieces always inlined.

numba counts references to every array a function is handed and to every row it looks at, by atomic
operations; in the loop of the features they cost more than the arithmetic (840 ns a row with them,
390 without). The caller holds the arrays during the call and nothing is allocated inside, so there
is nothing to count: with `_nrt=False` numba refuses code that allocates. Otherwise the same as
`jit.kernel`.
"""

from collections.abc import Callable, Mapping
from typing import Final, ParamSpec, TypeVar, cast

from numba import njit

from pipeline.kernels import jit  # noqa: F401 -- it sets where compiled code is cached
from pipeline.kernels.indexing import FromStart

P = ParamSpec("P")
R = TypeVar("R")

# `_nrt` is an option that numba's own signature does not show.
_njit: Callable[..., Callable[[object], object]] = njit
_OPTIONS: Final[Mapping[str, object]] = {
    "cache": True,
    "fastmath": False,
    "error_model": "numpy",
    "_nrt": False,
    "pipeline_class": FromStart,
}
# A piece lives in the code of the loops that call it: there it is cached, and nobody else calls it.
_INNER: Final[Mapping[str, object]] = {
    **_OPTIONS,
    "cache": False,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}


def loop(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a loop over ticks that only reads and writes the arrays it was given."""
    return cast("Callable[P, R]", _njit(**_OPTIONS)(function))


def piece(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a piece of such a loop, inlined where it is called."""
    return cast("Callable[P, R]", _njit(**_INNER, forceinline=True)(function))


def rare(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a piece that runs seldom and is called from many places: once, never inlined."""
    return cast("Callable[P, R]", _njit(**_INNER, inline="never")(function))


def once(function: Callable[P, R]) -> Callable[P, R]:
    """Merge a piece that is called from one place into it before compilation: a step less."""
    return cast("Callable[P, R]", _njit(**_INNER, inline="always")(function))
