"""Calls that a child process runs aside: in a forked copy of itself, while it continues to answer other calls.

Why not a second child process? A copy shares the memory of the child, with all that is loaded there, and takes a few
milliseconds to start. Why not a thread? It would need the interpreter, for which the other calls would have to wait
although a thread in the idle class rarely runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from dcnumd.processes.child import Child
from dcnumd.processes.child_line import Answer, sendable
from dcnumd.processes.courtesy import schedule
from dcnumd.processes.fork_server import die_with
from dcnumd.processes.pipe_executor import ProcessDied

P = ParamSpec("P")
R = TypeVar("R")


class Aside:
    """Runs calls in copies of a child process, one call at a time.

    A copy belongs to the process group of the child: it is suspended, resumed and killed with it.

    Parameters
    ----------
    child
        The child process.
    finish
        Function that is called in a copy at its end, for example to write what is buffered; it must be picklable.
    """

    def __init__(self, child: Child, finish: Callable[[], object]) -> None:
        self._child = child
        self._finish = finish
        self.pid: int | None = None
        """Process ID of the running copy; None while there is none."""
        self._idle = False
        self._handle: int | None = None
        """File descriptor of the copy; in contrast to its process ID, it cannot come to mean another process."""

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `function` in a copy of the child and return what it returns; if cancelled, kill the copy.

        Raises
        ------
        WorkerError
            With the reason ``worker_killed`` if the copy or the child died.
        """
        pid = await self._child.call(begin, self._idle, self._finish, function, args, kwargs)
        try:
            self._handle = os.pidfd_open(pid)
        except ProcessLookupError:
            # The child died meanwhile, and the copy with it.
            pass
        else:
            await self._wait_for_end(pid)
        code, content = await self._child.call(collect, pid)
        if not content:
            raise self._child.explain(ProcessDied(code))
        answer: Answer = pickle.loads(content)  # noqa: S301 -- written by the copy
        if answer.error is not None:
            raise answer.error
        value: R = answer.value
        return value

    def give_way(self, *, idle: bool) -> None:
        """Have copies run only while a processor is idle, or normally; without effect at normal priority.

        A running copy always enters the idle class, but leaves it only if this process is permitted to do that.
        """
        if self._child.courtesy.nice and self._idle != idle:
            self._idle = idle
            if self.pid is not None:
                schedule(self.pid, idle=idle)

    def kill(self) -> None:
        """Kill the running copy."""
        if self._handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    async def _wait_for_end(self, pid: int) -> None:
        """Wait until the copy has ended; if cancelled, kill it."""
        handle, loop, ended = self._handle, asyncio.get_running_loop(), asyncio.Event()
        assert handle is not None
        self.pid = pid
        if self._child.courtesy.nice:
            # The class may have changed while the copy was made.
            schedule(pid, idle=self._idle)
        loop.add_reader(handle, ended.set)
        try:
            await ended.wait()
        finally:
            if not ended.is_set():
                self.kill()
            loop.remove_reader(handle)
            self.pid = self._handle = None
            os.close(handle)


_answers: dict[int, int] = {}
"""Copies of this process whose answers are not collected: process ID → file descriptor of the answer."""


def begin(
    idle: bool,
    finish: Callable[[], object],
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> int:
    """Fork a copy of this process that calls `function`; return its process ID.

    Parameters
    ----------
    idle
        Whether the copy runs only while a processor is idle.
    finish
        Function that the copy calls at its end.
    function, args, kwargs
        The function to call, and its arguments.
    """
    for former in list(_answers):
        # Its caller was cancelled.
        with contextlib.suppress(ProcessLookupError):
            os.kill(former, signal.SIGKILL)
        collect(former)
    parent = os.getpid()
    # In memory rather than a pipe, in which a long answer would not fit.
    descriptor = os.memfd_create("answer")
    with warnings.catch_warnings():
        # Python warns of other threads, which might hold a lock that the copy needs. Those of a child wait for the end
        # of its owner, or for log lines, for which `dcnumd.daemon.logs` has the copy begin anew.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        _answers[pid] = descriptor
        return pid
    code = 1
    try:
        die_with(parent)
        if idle:
            schedule(0, idle=True)
        _write_answer(descriptor, function, args, kwargs)
        finish()
        code = 0
    finally:
        # What this process has registered for its own end is not for the copy to do.
        os._exit(code)


def collect(pid: int) -> tuple[int, bytes]:
    """Wait for the end of a copy; return its exit code and its answer, which is empty if it died."""
    descriptor = _answers.pop(pid, None)
    if descriptor is None:
        # The process of which it was a copy has died, and this one has taken its place.
        return -signal.SIGKILL, b""
    with os.fdopen(descriptor, "rb") as file:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        file.seek(0)
        return code, file.read() if code == 0 else b""


def _write_answer(descriptor: int, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        answer = Answer(0, function(*args, **kwargs))
    except Exception as error:  # noqa: BLE001 -- the caller handles it
        answer = Answer(0, error=error)
    with os.fdopen(descriptor, "wb") as file:
        pickle.dump(sendable(answer), file)
