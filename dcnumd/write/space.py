"""Reserving disk space before HDF5 writes, because HDF5 can crash when it cannot flush its caches."""

from __future__ import annotations

import ctypes
import errno
import os

FALLOC_FL_KEEP_SIZE = 1
"""From falloc.h: reserve space without changing the size of the file."""
NOT_KNOWN = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""Error numbers of file systems that cannot reserve space; writing may still fail there."""


def make_room(descriptor: int, size: int) -> None:
    """Reserve disk space for the first `size` bytes of an open file.

    Why not `os.posix_fallocate`? It would change the size of the file, and writes zeros where the file system cannot
    reserve space.

    Raises
    ------
    OSError
        The space cannot be reserved, for example because the disk is full.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    while libc.fallocate(descriptor, FALLOC_FL_KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(size)):
        number = ctypes.get_errno()
        if number in NOT_KNOWN:
            return
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
