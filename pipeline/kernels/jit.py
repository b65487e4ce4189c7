"""The one door to numba: strict IEEE arithmetic, compiled code cached for the user."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import numba
from platformdirs import user_cache_path

P = ParamSpec("P")
R = TypeVar("R")


def _cache_directory() -> str:
    """A directory for compiled code of these very sources.

    Beside the sources would fail in a read-only install; and numba looks only at the file of the
    outermost function, so that a change in a piece that it calls would go unseen. Its cache knows
    a file by its path: another install of the same sources has a directory of its own.
    """
    home = Path(__file__).parent
    sources = sorted(home.glob("*.py"))
    text = str(home).encode() + b"".join(source.read_bytes() for source in sources)
    return str(user_cache_path("tickstream") / "numba" / sha256(text).hexdigest()[:16])


# numba makes its setting names at run time, so type checkers do not know them.
vars(numba.config)["CACHE_DIR"] = _cache_directory()


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a scalar loop; never fastmath, never parallel: the order of sums is the contract.

    It runs without the GIL: whoever gives it arrays keeps other threads away from them.
    """
    compiled = numba.njit(cache=True, nogil=True, fastmath=False, error_model="numpy")(function)
    return cast("Callable[P, R]", compiled)


# A small piece that kernels call: the same compilation, LLVM inlines it where that pays.
inline = kernel


def uncached(function: Callable[P, R]) -> Callable[P, R]:
    """The same for a user's function, whose module no other process can import."""
    compiled = numba.njit(cache=False, fastmath=False, error_model="numpy")(function)
    return cast("Callable[P, R]", compiled)
