"""The process that workers are forked from: it loads the kernels once, for all of them.

This module loads nothing, so that the server can be started first and load its part while the caller loads its own.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing import forkserver

context = multiprocessing.get_context("forkserver")

PRELOADED = "dcnumd.logic.preload"
"""What the server has loaded when workers are forked."""

SINGLE_THREADED = {
    f"{library}_NUM_THREADS": "1" for library in ("MKL", "NUMBA", "NUMEXPR", "OMP", "OPENBLAS", "VECLIB_MAXIMUM")
} | {"VECLIB_MAXIMUM_THREADS": "1"}


def start_fork_server() -> None:
    """Start the server unless it runs; it goes on loading while this function returns.

    The kernels should be compiled before, see `kernel_cache.ensure_compiled`.
    """
    context.set_forkserver_preload([PRELOADED])
    with single_threaded_environment():
        forkserver.ensure_running()


@contextlib.contextmanager
def single_threaded_environment() -> Iterator[None]:
    """Make numerical libraries of processes that are started now use one thread each."""
    before = {name: os.environ.get(name) for name in SINGLE_THREADED}
    os.environ.update(SINGLE_THREADED)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
