"""The one way in which numerical kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile `function` with numba: without the GIL, cached on disk, IEEE arithmetic kept."""
    return cast("Callable[P, R]", numba.njit(nogil=True, cache=True, error_model="numpy")(function))


def inline_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile like `kernel`, for a small function that belongs inside the loops of its callers."""
    return cast(
        "Callable[P, R]",
        numba.njit(nogil=True, cache=True, error_model="numpy", forceinline=True)(function),
    )
