"""Writes the lines of a log in a thread of its own: a reader that stalls keeps nobody from working."""

from __future__ import annotations

import collections
import contextlib
import os
import select
import threading
import time
from collections.abc import Callable

MAX_WAITING = 4 * 2**20
"""Largest size of the lines that wait to be written [bytes]; further ones are lost until all of these are written."""
STALL_SECONDS = 1.0
"""Largest time for which a reader that takes no line is waited for at the end [s]."""
FLUSH_SECONDS = 5.0
"""Largest time for which a reader that takes lines slowly is waited for at the end [s]."""


class LineWriter:
    """Writes lines in the order in which they come, and never keeps waiting who has one to say.

    Parameters
    ----------
    name
        Name of the thread.
    write
        Writes a whole line; it may take as long as it likes.
    loss_line
        Returns the line that takes the place of so many lost ones.
    """

    def __init__(self, name: str, write: Callable[[bytes], None], loss_line: Callable[[int], bytes]) -> None:
        self.loss_line = loss_line
        self._write = write
        self._lines = collections.deque[bytes]()
        self._size = 0
        self._lost = 0
        self._written = 0
        self._busy = self._closed = False
        # What Python cleans up may have something to say at any moment, also in here: the lock can be taken twice.
        self._changed = threading.Condition(threading.RLock())
        self._thread = threading.Thread(target=self._keep_writing, name=name, daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Have a line written, unless too much waits already."""
        with self._changed:
            # Lines are lost in one piece, so that one line can stand in their place.
            if self._lost or self._size + len(line) > MAX_WAITING:
                self._lost += 1
            else:
                self._lines.append(line)
                self._size += len(line)
            self._changed.notify_all()

    def flush(self) -> bool:
        """Wait until everything is written, but not for ever; return whether it is."""
        deadline = time.monotonic() + FLUSH_SECONDS
        with self._changed:
            while self._busy or self._lines or self._lost:
                before = self._written
                self._changed.wait_for(lambda: self._written > before, STALL_SECONDS)  # noqa: B023 -- called here only
                if self._written == before or time.monotonic() > deadline:
                    return False
        return True

    def close(self) -> None:
        """End the thread when it has written what waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _keep_writing(self) -> None:
        while (line := self._next_line()) is not None:
            self._write(line)
            with self._changed:
                self._busy = False
                self._written += 1
                self._changed.notify_all()

    def _next_line(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._lost or self._closed)
            self._busy = True
            if self._lines:
                line = self._lines.popleft()
                self._size -= len(line)
                return line
            if self._lost:
                lost, self._lost = self._lost, 0
                return self.loss_line(lost)
            self._busy = False
            return None


def write_all(descriptor: int, line: bytes) -> None:
    """Write a line, as far as that is possible: a closed pipe or a full disk must not end the work."""
    with contextlib.suppress(OSError):
        while line:
            try:
                line = line[os.write(descriptor, line) :]
            except BlockingIOError:
                # Another program that writes there wants never to wait.
                select.select([], [descriptor], [])


def takes_more(descriptor: int) -> bool:
    """Return whether somebody reads there, or nobody needs to."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(STALL_SECONDS * 1000))


def append(path: str, line: bytes) -> None:
    """Append a line to a file, as far as that is possible."""
    # The file is opened each time: log rotation moves it away, and a full disk may get room again.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
