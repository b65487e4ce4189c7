"""The one door to numba: strict IEEE arithmetic, compiled code cached for the user."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba
from platformdirs import user_cache_path

P = ParamSpec("P")
R = TypeVar("R")

# Beside the sources would fail in a read-only install.
# numba makes its setting names at run time, so type checkers do not know them.
vars(numba.config)["CACHE_DIR"] = str(user_cache_path("tickstream") / "numba")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a scalar loop; never fastmath, never parallel: the order of sums is the contract."""
    compiled = numba.njit(cache=True, fastmath=False, error_model="numpy")(function)
    return cast("Callable[P, R]", compiled)


# A small piece that kernels call: the same compilation, LLVM inlines it where that pays.
inline = kernel
