"""The process that workers are forked from: it loads the kernels once, for all of them.

This module loads nothing, so that the server can be started first and load its part while the caller loads its own.
"""

# The standard library has no other way to the server's process id and to its socket.
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
from multiprocessing import forkserver
from typing import Any

context = multiprocessing.get_context("forkserver")

PRELOADED = "dcnumd.logic.preload"
"""What the server has loaded when workers are forked."""

SINGLE_THREADED = {f"{library}_NUM_THREADS": "1" for library in ("MKL", "NUMBA", "NUMEXPR", "OMP", "OPENBLAS")}
SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""What lies in the current folder must not take the place of what this process has loaded."""
PARENT = "DCNUMD_FORK_SERVER_PARENT"
"""Tells the server with whom it ends: a process id, which is 0 if it does not."""
GONE_SECONDS = 1.0
"""Who is killed is gone after this time."""
PR_SET_PDEATHSIG = 1
"""From prctl.h: the signal that a process gets when the thread ends that has started it."""

_server: Any = forkserver._forkserver
_sockets: list[int] = []
"""Descriptor of the server's socket."""


def start_fork_server() -> None:
    """Start the server unless it runs; it goes on loading while this function returns.

    The kernels should be compiled before, see `kernels.cache.ensure_compiled`. If the main thread calls this, the
    server is killed as soon as this process ends, in whatever way, and its workers are killed with it.
    """
    if _is_running():
        return
    context.set_forkserver_preload([PRELOADED])
    in_main_thread = threading.current_thread() is threading.main_thread()
    parent = {PARENT: str(os.getpid() if in_main_thread else 0)}
    # an interrupt from the terminal is for the pipeline to answer; the server heeds it until everything is loaded
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _environment(SINGLE_THREADED | SAFE_PATH | parent), _socket_without_name():
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def server_pid() -> int | None:
    """Return the process id of the server, None if there is none."""
    pid: int | None = _server._forkserver_pid
    return pid


def _is_running() -> bool:
    pid = server_pid()
    # its end is left for others to see
    return pid is not None and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def die_with(parent: int) -> None:
    """Have the system kill this process when its parent ends, and end now if it has ended already.

    Parameters
    ----------
    parent
        Process id of the parent, which must have started this process from a thread that does not end before.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def die_with_starter() -> None:
    """In the server: have the system kill it when the process ends that has started it.

    Workers begin with what that process hands to them, and do not find it if it is killed meanwhile. That is nobody's
    fault, and not to be read in a journal as if it were one.
    """
    parent = int(os.environ.pop(PARENT, "0"))
    if parent:
        die_with(parent)
        sys.excepthook = functools.partial(_report_unless_gone, parent)


def _report_unless_gone(owner: int, *fault: Any) -> None:
    """Report what ends this process, as usual, unless its owner ends."""
    with contextlib.suppress(ProcessLookupError):
        # A process that is being killed has let go of its files a moment before it is gone.
        end = select.poll()
        end.register(os.pidfd_open(owner), select.POLLIN)
        if not end.poll(GONE_SECONDS * 1000):
            sys.__excepthook__(*fault)


@contextlib.contextmanager
def _socket_without_name() -> Iterator[None]:
    """Have a server that is started now listen at a socket that has no name any more when this block ends.

    What has a name is left behind when this process is killed, and is missing when somebody cleans up.
    """
    this_process: Any = multiprocessing.current_process()
    config = this_process._config
    tempdir = config.get("tempdir")
    folder = _make_folder()
    # the address of a socket has at most 108 bytes, however deep the folder is
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
        # somebody has removed the folder for temporary files; there may be another one
        tempfile.tempdir = None
        return tempfile.mkdtemp(prefix="dcnumd-")


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
