"""The process that workers are forked from: it loads the kernels once, for all of them.

This module loads nothing, so that the server can be started first and load its part while the caller loads its own.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping
from multiprocessing import forkserver

context = multiprocessing.get_context("forkserver")

PRELOADED = "dcnumd.logic.preload"
"""What the server has loaded when workers are forked."""

SINGLE_THREADED = {f"{library}_NUM_THREADS": "1" for library in ("MKL", "NUMBA", "NUMEXPR", "OMP", "OPENBLAS")}
SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""What lies in the current folder must not take the place of what this process has loaded."""


def start_fork_server() -> None:
    """Start the server unless it runs; it goes on loading while this function returns.

    The kernels should be compiled before, see `kernel_cache.ensure_compiled`.
    """
    context.set_forkserver_preload([PRELOADED])
    # an interrupt from the terminal is for the pipeline to answer; the server heeds it until everything is loaded
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _environment(SINGLE_THREADED | SAFE_PATH):
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Give processes that are started now some variables; numerical libraries use one thread each by them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
