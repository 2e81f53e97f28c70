"""The child's end of the pipe to its owner; it receives calls and requests to stop, and sends answers and notes."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import pickle
import signal
import threading
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from dcnumd.processes.courtesy import Courtesy
from dcnumd.processes.fork_server import die_with

MAX_SHOWN = 2000
"""Maximum length of the description of an answer that cannot be sent [characters]."""


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """Message from the owner: request to call a function; calls are numbered consecutively."""

    number: int
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Stop:
    """Message from the owner: request to stop the call with this number."""

    number: int


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """Message to the owner: return value or exception of a call."""

    number: int
    value: Any = None
    error: BaseException | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Note:
    """Message to the owner: note from a running call, for example its progress."""

    value: Any


class ChildLine:
    """The pipe as code in the child uses it; `tell` and `stop_wanted` may be called from any thread.

    Parameters
    ----------
    connection
        The child's end of the pipe.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending, self._receiving = threading.Lock(), threading.Lock()
        self._calls: collections.deque[Call | None] = collections.deque()
        self._stopped: set[int] = set()
        self._number = 0

    def tell(self, value: object) -> None:
        """Send a note to the owner; the value must be picklable.

        Raises
        ------
        OSError
            If the owner has ended.
        """
        with self._sending:
            self._connection.send(Note(value))

    def stop_wanted(self) -> bool:
        """Return whether the owner has asked the running call to stop, or has ended."""
        with self._receiving:
            try:
                while self._connection.poll():
                    self._take(self._connection.recv())
            except (OSError, EOFError):
                return True
            return self._number in self._stopped

    def answer_calls(self) -> None:
        """Execute the calls that the owner requests, until it closes the pipe or ends."""
        while (call := self._next_call()) is not None:
            try:
                answer = Answer(call.number, call.function(*call.args, **call.kwargs))
            except BaseException as error:  # noqa: BLE001 -- the caller handles it
                answer = Answer(call.number, error=error)
            with self._sending:
                self._connection.send(sendable(answer))

    def _next_call(self) -> Call | None:
        with self._receiving:
            while not self._calls:
                try:
                    self._take(self._connection.recv())
                except EOFError:
                    return None
            call = self._calls.popleft()
            self._number = 0 if call is None else call.number
            return call

    def _take(self, message: Call | Stop | None) -> None:
        if isinstance(message, Stop):
            self._stopped.add(message.number)
        else:
            self._calls.append(message)


def sendable(answer: Answer) -> Answer:
    """Return the answer, or an error that says why it cannot be sent, so that the caller does not wait forever."""
    try:
        # Some exceptions can be pickled but not unpickled.
        pickle.loads(pickle.dumps(answer))  # noqa: S301 -- written by this process
    except Exception as error:  # noqa: BLE001 -- pickling runs arbitrary code
        shown = repr(answer.error or answer.value)[:MAX_SHOWN]
        return Answer(answer.number, error=RuntimeError(f"the answer cannot be sent ({error!r}): {shown}"))
    return answer


_line: ChildLine | None = None


def current() -> ChildLine | None:
    """Return the pipe to the owner of this process; None if this process is not a child of the daemon."""
    return _line


def work(connection: Connection, prepare: Callable[[], object]) -> None:
    """Run a child process: call `prepare`, then answer calls."""
    global _line  # noqa: PLW0603 -- there is one pipe for each process
    _line = ChildLine(connection)
    prepare()
    _line.answer_calls()


def join_owner(configure_logs: Callable[[], object], courtesy: Courtesy) -> None:
    """Set up this process as a child of the daemon that ends when the daemon ends.

    Parameters
    ----------
    configure_logs
        Function that sets up logging, which a spawned process does not inherit.
    courtesy
        Priority of the process.
    """
    # With a process group of its own, Ctrl-C in the terminal reaches only the supervisor, and the group can be killed
    # as a whole.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Before any thread is started, since threads inherit the priority.
    courtesy.apply()
    owner = parent_process()
    if owner is not None and owner.pid is not None:
        # The thread also kills the other processes of the group. If the thread does not get to run, the kernel kills
        # this process; the fork server is killed in the same way when this process ends, and the workers with it.
        threading.Thread(target=_end_with, args=(owner,), name="end with owner", daemon=True).start()
        die_with(owner.pid)
    configure_logs()


def _end_with(owner: BaseProcess) -> None:
    """Kill this process and its workers when the owner has ended."""
    wait([owner.sentinel])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(0, signal.SIGKILL)
