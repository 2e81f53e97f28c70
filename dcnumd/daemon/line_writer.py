"""Writing of log lines in a separate thread, so that a reader that stalls does not block the program."""

from __future__ import annotations

import collections
import contextlib
import os
import select
import threading
import time
from collections.abc import Callable

MAX_WAITING = 4 * 2**20
"""Largest total size of the queued lines [bytes]; further lines are dropped until the queue is empty."""
STALL_SECONDS = 1.0
"""Longest time that `flush` waits for a single line to be written [s]."""
FLUSH_SECONDS = 5.0
"""Longest time that `flush` waits in total [s]."""


class LineWriter:
    """Writes lines in order in a thread; `put` never blocks.

    Parameters
    ----------
    name
        Name of the thread.
    write
        Function that writes a line; it may block.
    loss_line
        Function that returns the line to write in place of a number of dropped lines.
    """

    def __init__(self, name: str, write: Callable[[bytes], None], loss_line: Callable[[int], bytes]) -> None:
        self.loss_line = loss_line
        self._name = name
        self._write = write
        self.begin()

    def begin(self) -> None:
        """Begin with an empty queue; called again in a forked process, which has a copy of the queue but no thread."""
        self._lines = collections.deque[bytes]()
        self._size = 0
        self._lost = 0
        self._written = 0
        self._busy = self._closed = False
        # Why not a plain lock? A finalizer may run at any moment in the thread that holds the lock, and log a line.
        self._changed = threading.Condition(threading.RLock())
        self._thread = threading.Thread(target=self._keep_writing, name=self._name, daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Queue a line; drop it if the queue is full."""
        with self._changed:
            # Once a line was dropped, so are all until the queue is empty: one line can then report the gap.
            if self._lost or self._size + len(line) > MAX_WAITING:
                self._lost += 1
            else:
                self._lines.append(line)
                self._size += len(line)
            self._changed.notify_all()

    def flush(self) -> bool:
        """Wait until all lines are written or a time limit is exceeded; return whether all are written."""
        deadline = time.monotonic() + FLUSH_SECONDS
        with self._changed:
            while self._busy or self._lines or self._lost:
                before = self._written
                self._changed.wait_for(lambda: self._written > before, STALL_SECONDS)  # noqa: B023 -- called here only
                if self._written == before or time.monotonic() > deadline:
                    return False
        return True

    def close(self) -> None:
        """End the thread when it has written the queued lines."""
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
    """Write a line to a descriptor; ignore errors, since a closed pipe or a full disk must not end the program."""
    with contextlib.suppress(OSError):
        while line:
            try:
                line = line[os.write(descriptor, line) :]
            except BlockingIOError:
                # Another program that shares the descriptor has made it non-blocking.
                select.select([], [descriptor], [])


def takes_more(descriptor: int) -> bool:
    """Return whether a descriptor becomes writable, or has failed, within `STALL_SECONDS`."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(STALL_SECONDS * 1000))


def append(path: str, line: bytes) -> None:
    """Append a line to a file; ignore errors."""
    # Why not keep the file open? Log rotation moves it away.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
