"""A pipe between two threads of one process, through which anything goes."""

from __future__ import annotations

import collections
import socket
from typing import Any, Protocol, Self


class PipeEnd(Protocol):
    """One end of a pipe, be it a `multiprocessing.connection.Connection` or local."""

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is something to receive, or the other end is closed."""

    def send(self, obj: Any, /) -> None:
        """Send an object; an `OSError` if the other end is closed."""

    def recv(self) -> Any:
        """Wait for an object and return it; an `EOFError` if the other end is closed."""

    def close(self) -> None:
        """Close this end."""


class LocalEnd:
    """One end of a local pipe: objects arrive as they are, not as copies, and need not be picklable.

    Parameters
    ----------
    bell
        Carries one byte for each object.
    inbox, outbox
        The objects for this end, and those for the other.
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
        """Return a descriptor that is readable when there is something to receive, or the other end is closed."""
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
