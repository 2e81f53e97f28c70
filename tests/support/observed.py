"""A folder of which a test learns whether anybody opens its files."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import struct

IN_ACCESS, IN_OPEN, IN_NONBLOCK = 0x1, 0x20, 0x800


class Observed:
    """Tells which files in a folder were opened or read.

    Parameters
    ----------
    folder
        The folder.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(IN_NONBLOCK)
        assert self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), IN_OPEN | IN_ACCESS) > 0

    def names(self) -> list[str]:
        """Return the names of the files that were opened or read since the last call."""
        found: list[str] = []
        with contextlib.suppress(BlockingIOError):
            events = os.read(self._descriptor, 65536)
            while events:
                _, _, _, length = struct.unpack_from("iIII", events)
                found.append(events[16 : 16 + length].rstrip(b"\0").decode())
                events = events[16 + length :]
        return [name for name in found if name]

    def close(self) -> None:
        """Stop to observe."""
        os.close(self._descriptor)
