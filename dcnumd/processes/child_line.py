"""A child's end of the pipe to its owner: calls and wishes to stop come in, answers and notes go out."""

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
"""Longest description of an answer that cannot be sent [characters]."""


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """From the owner: call this function; numbers count up."""

    number: int
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Stop:
    """From the owner: the call of this number is not wanted any more."""

    number: int


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """To the owner: what a call has returned, or raised."""

    number: int
    value: Any = None
    error: BaseException | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Note:
    """To the owner: something that a running call tells."""

    value: Any


class ChildLine:
    """The pipe, as code in the child uses it; any thread may tell something or ask whether to stop.

    Parameters
    ----------
    connection
        The child's end.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending, self._receiving = threading.Lock(), threading.Lock()
        self._calls: collections.deque[Call | None] = collections.deque()
        self._stopped: set[int] = set()
        self._number = 0

    def tell(self, value: object) -> None:
        """Tell the owner something, which must pickle.

        Raises
        ------
        OSError
            The owner is gone.
        """
        with self._sending:
            self._connection.send(Note(value))

    def stop_wanted(self) -> bool:
        """Return whether the owner wants the running call to stop, or is gone."""
        with self._receiving:
            try:
                while self._connection.poll():
                    self._take(self._connection.recv())
            except (OSError, EOFError):
                return True
            return self._number in self._stopped

    def answer_calls(self) -> None:
        """Call what the owner asks for, until it wants nothing more or is gone."""
        while (call := self._next_call()) is not None:
            try:
                answer = Answer(call.number, call.function(*call.args, **call.kwargs))
            except BaseException as error:  # noqa: BLE001 -- it belongs to whoever asked
                answer = Answer(call.number, error=error)
            with self._sending:
                self._connection.send(_sendable(answer))

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


def _sendable(answer: Answer) -> Answer:
    """Return the answer, or what tells why it cannot be sent: the caller must not wait for ever."""
    try:
        # Some errors can be written, but not read again.
        pickle.loads(pickle.dumps(answer))  # noqa: S301 -- our own
    except Exception as error:  # noqa: BLE001 -- whatever it is
        shown = repr(answer.error or answer.value)[:MAX_SHOWN]
        return Answer(answer.number, error=RuntimeError(f"the answer cannot be sent ({error!r}): {shown}"))
    return answer


_line: ChildLine | None = None


def current() -> ChildLine | None:
    """Return the pipe to the owner of this process; None if this process is nobody's child."""
    return _line


def work(connection: Connection, prepare: Callable[[], object]) -> None:
    """Run a child: get it ready, then answer calls."""
    global _line  # noqa: PLW0603 -- one for each process, as its name is
    _line = ChildLine(connection)
    prepare()
    _line.answer_calls()


def join_owner(configure_logs: Callable[[], object], courtesy: Courtesy) -> None:
    """Prepare this process to be a child of the daemon, and to end with it.

    Parameters
    ----------
    configure_logs
        Sets up logging, which a spawned process does not inherit.
    courtesy
        How much the process steps back behind others.
    """
    # A group of its own: the terminal's Ctrl-C is for the supervisor, and the group can be ended as a whole.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Threads have this from the one that starts them.
    courtesy.apply()
    owner = parent_process()
    if owner is not None and owner.pid is not None:
        # The thread takes along whoever else is in the group. Where it does not come to that, the system ends this
        # process; the fork server ends with it in the same way, and the workers with the server.
        threading.Thread(target=_end_with, args=(owner,), name="end with owner", daemon=True).start()
        die_with(owner.pid)
    configure_logs()


def _end_with(owner: BaseProcess) -> None:
    """End this process and its workers when the owner is killed: nobody else would."""
    wait([owner.sentinel])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(0, signal.SIGKILL)
