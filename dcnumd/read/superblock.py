"""The superblock of an HDF5 file, read without HDF5."""

from __future__ import annotations

import dataclasses
import os
import struct

SIGNATURE = b"\x89HDF\r\n\x1a\n"
HEAD_BYTES = 96
"""Largest size of a superblock [bytes]."""
SWMR_FLAGS = 0b101
"""Flags of a file that is open for writing in SWMR mode."""


@dataclasses.dataclass(frozen=True, slots=True)
class Superblock:
    """The state of an HDF5 file according to its superblock."""

    open_for_writing: bool
    end_of_file: int
    open_in_swmr_mode: bool = False
    """Whether the program that writes it lets others read it meanwhile."""


def read_superblock(head: bytes) -> Superblock | None:
    """Read an HDF5 superblock of version 0 to 3.

    Why not open the file with h5py? The supervisor calls this, which does not load numerical libraries. In version 0,
    only newer writers set the flag for writing, so a file without it may be open for writing as well.

    Parameters
    ----------
    head
        The first 96 bytes of the file.

    Returns
    -------
    superblock
        None if the file does not begin with one; h5py then determines the kind of file.
    """
    if len(head) < 12 or not head.startswith(SIGNATURE):
        return None
    version = head[8]
    if version in {2, 3}:
        width, flags, end_at = head[9], head[11], 12 + 2 * head[9]
    elif version in {0, 1} and len(head) >= 24:
        width, flags = head[13], struct.unpack_from("<I", head, 20)[0]
        end_at = (24 if version == 0 else 28) + 2 * width
    else:
        return None
    if width not in {2, 4, 8} or len(head) < end_at + width:
        return None
    end_of_file = int.from_bytes(head[end_at : end_at + width], "little")
    return Superblock(bool(flags & 1), end_of_file, version == 3 and flags & SWMR_FLAGS == SWMR_FLAGS)


def superblock_at(path: str) -> Superblock | None:
    """Return the superblock of the file at a path, without a lock; None if it does not begin with one.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    # O_NONBLOCK: opening a named pipe would otherwise wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return read_superblock(os.pread(descriptor, HEAD_BYTES, 0))
    finally:
        os.close(descriptor)
