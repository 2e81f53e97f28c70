"""Room on the disk, made sure of before HDF5 writes: it crashes when it cannot write what it has in memory."""

from __future__ import annotations

import ctypes
import errno
import os

FALLOC_FL_KEEP_SIZE = 1
"""From falloc.h: the file does not become longer."""
NOT_KNOWN = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""The file system cannot tell; what HDF5 writes then may still fail."""


def make_room(descriptor: int, size: int) -> None:
    """Make sure that the first `size` bytes of an open file can be written.

    Raises
    ------
    OSError
        The disk is full, for example.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    while libc.fallocate(descriptor, FALLOC_FL_KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(size)):
        number = ctypes.get_errno()
        if number in NOT_KNOWN:
            return
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
