"""Running kernels in threads; kernels release the GIL."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_in_threads(
    pool: concurrent.futures.ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T]
) -> Iterator[R]:
    """Yield ``function(item)`` in the order of `items`; if a call fails, calls that have not begun are cancelled."""
    futures = [pool.submit(function, item) for item in items]
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


def split_range(length: int, parts: int, step: int = 1) -> list[tuple[int, int]]:
    """Split ``0 … length`` into at most `parts` ranges that begin at multiples of `step`."""
    size = -(-length // max(parts, 1))
    size = -(-size // step) * step
    return [(start, min(start + size, length)) for start in range(0, length, size)] if length else []
