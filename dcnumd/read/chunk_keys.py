"""Keys of the chunks of a stack of frames: a chunk with the same key has the same frames.

For a chunk that ends in a sufficient checksum, the key covers its last bytes, as in `dcnumd.read.content`; otherwise it
covers the whole chunk.
"""

from __future__ import annotations

import hashlib
import os

import numpy as np
import numpy.typing as npt

from dcnumd.read.chunk_layout import ChunkTable, Filter
from dcnumd.read.content import TAIL_BYTES, ends_in_checksum
from dcnumd.read.open_file import unreadable

KEY_BYTES = 16
"""Length of a key [bytes]."""
Keys = npt.NDArray[np.uint8]
"""Keys of chunks along the axis of frames, uint8 (chunk, `KEY_BYTES`)."""


def chunk_keys(
    path: str, table: ChunkTable, filters: tuple[Filter, ...], start: int, stop: int, *, opened: str = ""
) -> Keys:
    """Return the keys of the chunks ``start … stop - 1`` along the axis of frames.

    Parameters
    ----------
    path
        The file.
    table
        Positions of the chunks; frames may be divided into several of them.
    filters
        Filters of the dataset.
    start, stop
        Range of chunks.
    opened
        As for `dcnumd.read.frame_reader.FrameSource`.

    Raises
    ------
    MeasurementError
        Reason ``unreadable``.
    """
    keys = np.empty((stop - start, KEY_BYTES), np.uint8)
    unpacked = int(np.prod(table.shape))
    try:
        descriptor = os.open(opened or path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for number in range(start, stop):
                digest = hashlib.blake2b(digest_size=KEY_BYTES)
                places = (table.offsets[number], table.sizes[number], table.filter_masks[number])
                for offset, size, mask in zip(*(place.ravel().tolist() for place in places), strict=True):
                    # a chunk that is not smaller than its values is a copy of them
                    tail = size < unpacked and ends_in_checksum(filters, mask)
                    length = min(size, TAIL_BYTES) if tail else size
                    digest.update(f"{size} {mask} ".encode())
                    digest.update(os.pread(descriptor, length, offset + size - length))
                keys[number - start] = np.frombuffer(digest.digest(), np.uint8)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unreadable(path, error) from error
    return keys
