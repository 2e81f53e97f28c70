"""What the first bytes of an HDF5 file say, read without HDF5."""

from __future__ import annotations

import dataclasses
import struct

SIGNATURE = b"\x89HDF\r\n\x1a\n"
HEAD_BYTES = 96
"""A superblock is no longer than that."""


@dataclasses.dataclass(frozen=True, slots=True)
class Superblock:
    """What the first bytes of an HDF5 file say about its state."""

    open_for_writing: bool
    end_of_file: int


def read_superblock(head: bytes) -> Superblock | None:
    """Read an HDF5 superblock of version 0 to 3 by hand: no library, no lock.

    The flag of version 0 is set by newer writers only; a clear one proves nothing.

    Parameters
    ----------
    head
        The first 96 bytes of the file.

    Returns
    -------
    superblock
        None if there is none at the beginning; h5py then decides what the file is.
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
    return Superblock(bool(flags & 1), int.from_bytes(head[end_at : end_at + width], "little"))
