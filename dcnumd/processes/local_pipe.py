"""A pipe between two threads of one process, for objects of any kind."""

from __future__ import annotations

import collections
import socket
from typing import Any, Protocol, Self


class PipeEnd(Protocol):
    """Interface of one end of a pipe, either a `multiprocessing.connection.Connection` or a `LocalEnd`."""

    def fileno(self) -> int:
        """Return a file descriptor that is readable if an object can be received, or the other end is closed."""

    def send(self, obj: Any, /) -> None:
        """Send an object; raise `OSError` if the other end is closed."""

    def recv(self) -> Any:
        """Wait for an object and return it; raise `EOFError` if the other end is closed."""

    def close(self) -> None:
        """Close this end."""


class LocalEnd:
    """One end of a local pipe, which passes on the objects themselves rather than pickled copies.

    Why not `queue.Queue`? The parent waits for pipes of processes and of threads in the same call.

    Parameters
    ----------
    bell
        Socket that transmits one byte for each object, so that the receiver can wait for it.
    inbox, outbox
        Queues of objects for this end, and for the other end.
    """

    def __init__(self, bell: socket.socket, inbox: collections.deque[Any], outbox: collections.deque[Any]) -> None:
        self._bell = bell
        self._inbox = inbox
        self._outbox = outbox

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Return both ends of a new pipe."""
        bells = socket.socketpair()
        here: collections.deque[Any] = collections.deque()
        there: collections.deque[Any] = collections.deque()
        return cls(bells[0], here, there), cls(bells[1], there, here)

    def fileno(self) -> int:
        """Return a file descriptor that is readable if an object can be received, or the other end is closed."""
        return self._bell.fileno()

    def send(self, obj: Any, /) -> None:
        """Send an object."""
        self._outbox.append(obj)
        self._bell.sendall(b"1")

    def recv(self) -> Any:
        """Wait for an object and return it."""
        if not self._bell.recv(1):
            raise EOFError
        return self._inbox.popleft()

    def close(self) -> None:
        """Close this end."""
        self._bell.close()
