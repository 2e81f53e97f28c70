"""The process from which workers are forked, so that the kernels are loaded once for all of them.

This module imports no numerical code, so that the server can be started first and load while the caller does.

Why not the standard library's fork server as it is? It would survive its owner if that is killed, leave a named socket
behind, and ignore SIGINT only after it has loaded its modules.
"""

# The standard library has no public access to the server's process ID and socket.
# ruff: noqa: SLF001

from __future__ import annotations

import contextlib
import ctypes
import functools
import multiprocessing
import os
import select
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from multiprocessing import forkserver, resource_tracker
from typing import Any

context = multiprocessing.get_context("forkserver")

PRELOADED = "dcnumd.logic.preload"
"""Module that the server has imported when workers are forked."""

SINGLE_THREADED = {f"{library}_NUM_THREADS": "1" for library in ("MKL", "NUMBA", "NUMEXPR", "OMP", "OPENBLAS")}
SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""Environment variables that prevent the server from importing modules from the current folder."""
PARENT = "DCNUMD_FORK_SERVER_PARENT"
"""Name of the environment variable with the process ID whose end also ends the server; 0 for none."""
GONE_SECONDS = 1.0
"""Longest time that a killed process takes to end [s]."""
PR_SET_PDEATHSIG = 1
"""From prctl.h: option for the signal that a process receives when the thread ends that started it."""

_server: Any = forkserver._forkserver
_sockets: list[int] = []
"""File descriptor of the server's socket; empty if there is no server."""


def start_fork_server() -> None:
    """Start the server unless it is running; return before it has loaded its modules.

    The kernels should be compiled before; see `kernels.cache.ensure_compiled`. If the main thread calls this, the
    kernel kills the server as soon as this process ends for whatever reason, and the workers with the server.
    """
    if _is_running():
        return
    context.set_forkserver_preload([PRELOADED])
    in_main_thread = threading.current_thread() is threading.main_thread()
    parent = {PARENT: str(os.getpid() if in_main_thread else 0)}
    # Python unblocks SIGINT when it has started its resource tracker, which the server needs; so start that one first.
    resource_tracker.ensure_running()
    # The pipeline handles an interrupt from the terminal. The server would react to it, too, until it is loaded.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _environment(SINGLE_THREADED | SAFE_PATH | parent), _socket_without_name():
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def server_pid() -> int | None:
    """Return the process ID of the server; None if there is none."""
    pid: int | None = _server._forkserver_pid
    return pid


def _is_running() -> bool:
    pid = server_pid()
    # WNOWAIT leaves the exit status for the code that waits for the server.
    return pid is not None and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; end at once if the parent has ended already.

    Parameters
    ----------
    parent
        Process ID of the parent. The thread in which it started this process must run until the parent ends.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def die_with_starter() -> None:
    """Have the kernel kill this process, the server, when the process that started it ends.

    A worker that starts while that process is killed fails, since its shared memory is gone. Such failures are not
    reported: they would look like faults in the journal.
    """
    parent = int(os.environ.pop(PARENT, "0"))
    if parent:
        die_with(parent)
        sys.excepthook = functools.partial(_report_unless_gone, parent)


def _report_unless_gone(owner: int, *fault: Any) -> None:
    """Report an unhandled exception of this process, unless its owner has ended."""
    with contextlib.suppress(ProcessLookupError):
        # A process that is being killed closes its files some time before it ends.
        end = select.poll()
        end.register(os.pidfd_open(owner), select.POLLIN)
        if not end.poll(GONE_SECONDS * 1000):
            sys.__excepthook__(*fault)


@contextlib.contextmanager
def _socket_without_name() -> Iterator[None]:
    """Have a server that is started in this block listen at a socket whose name is removed when the block ends.

    A named socket would be left behind if this process is killed, and might be deleted while it is needed.
    """
    this_process: Any = multiprocessing.current_process()
    config = this_process._config
    tempdir = config.get("tempdir")
    folder = _make_folder()
    # The path of a socket may have at most 108 bytes, which a deep folder would exceed.
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    config["tempdir"] = f"/proc/self/fd/{place}"
    try:
        yield
        while _sockets:
            os.close(_sockets.pop())
        _sockets.append(os.open(_server._forkserver_address, os.O_PATH | os.O_CLOEXEC))
        _server._forkserver_address = f"/proc/self/fd/{_sockets[0]}"
    finally:
        config["tempdir"] = tempdir
        os.close(place)
        shutil.rmtree(folder, ignore_errors=True)


def _make_folder() -> str:
    try:
        return tempfile.mkdtemp(prefix="dcnumd-")
    except FileNotFoundError:
        # The folder for temporary files was deleted; use another one if there is one.
        tempfile.tempdir = None
        return tempfile.mkdtemp(prefix="dcnumd-")


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that are started in this block."""
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
