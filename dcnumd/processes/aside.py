"""Calls that a child process runs aside: in a forked copy of itself, while it continues to answer other calls.

Why not a second child process? A copy shares the memory of the child, with all that is loaded there, and takes a few
milliseconds to start. Why not a thread? It would need the interpreter, for which the other calls would have to wait
although a thread in the idle class rarely runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from dcnumd.processes import child_line
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
        self._ended = 0
        """Process ID of the copy that ended last."""
        self._heard = asyncio.Event()
        child.on_note = self._hear

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `function` in a copy of the child and return what it returns; if cancelled, kill the copy.

        Raises
        ------
        WorkerError
            With the reason ``worker_killed`` if the copy or the child died.
        """
        pid = await self._child.call(begin, self._idle, self._finish, function, args, kwargs)
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
        # As long as the child lives and has not collected the answer, the process ID means no other process.
        if self.pid is not None and self._child.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def _wait_for_end(self, pid: int) -> None:
        """Wait until the copy or the child has ended; if cancelled, kill the copy."""
        gone = asyncio.create_task(self._child.gone.wait(), name="child gone")
        self.pid = pid
        if self._child.courtesy.nice:
            # The class may have changed while the copy was made.
            schedule(pid, idle=self._idle)
        try:
            while self._ended != pid and not gone.done():
                self._heard.clear()
                heard = asyncio.create_task(self._heard.wait(), name="copy ended")
                try:
                    await asyncio.wait([gone, heard], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    heard.cancel()
        finally:
            if self._ended != pid:
                self.kill()
            gone.cancel()
            self.pid = None

    def _hear(self, note: CopyEnded) -> None:
        self._ended = note.pid
        self._heard.set()


@dataclasses.dataclass(frozen=True, slots=True)
class CopyEnded:
    """Note to the owner of the child: a copy has ended, and its answer can be collected."""

    pid: int


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
        # of its owner or of a copy, or for log lines, for which `dcnumd.daemon.logs` has the copy begin anew.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        _answers[pid] = descriptor
        threading.Thread(target=_tell_end, args=(pid,), name="end of copy", daemon=True).start()
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


def _tell_end(pid: int) -> None:
    """Wait for the end of a copy, and tell the owner; it stays a zombie, so that its process ID is not used again."""
    with contextlib.suppress(OSError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        if (line := child_line.current()) is not None:
            line.tell(CopyEnded(pid))


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
