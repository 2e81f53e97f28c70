"""Compression of HDF5 chunks without HDF5.

A chunk is a Zstandard frame with its content size, followed by HDF5's fletcher32 of the compressed bytes, the same as
the output of HDF5's filters 32015 and 3.

Why not HDF5's own filters? HDF5 compresses while it writes, in one thread. Here the workers compress, and only one
process writes.
"""

from __future__ import annotations

import threading
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import zstandard

from dcnumd.read.kernels_checksum import fletcher32

CHECKSUM_SIZE = 4


class _Compressors(threading.local):
    """Compressors of a thread, by level; threads must not share a compressor."""

    def __init__(self) -> None:
        self.by_level: dict[int, zstandard.ZstdCompressor] = {}


_compressors = _Compressors()


def packed_size_bound(size: int) -> int:
    """Return the largest size of a packed chunk of `size` bytes [bytes]."""
    # ZSTD_COMPRESSBOUND of zstd.h
    return size + (size >> 8) + (((128 << 10) - size) >> 11 if size < 128 << 10 else 0) + CHECKSUM_SIZE


@overload
def pack_chunk(array: npt.NDArray[Any], level: int | None, out: None = None, *, items: int | None = None) -> bytes: ...


@overload
def pack_chunk(array: npt.NDArray[Any], level: int | None, out: memoryview, *, items: int | None = None) -> int: ...


def pack_chunk(
    array: npt.NDArray[Any], level: int | None, out: memoryview | None = None, *, items: int | None = None
) -> bytes | int:
    """Compress one chunk and append its checksum.

    Parameters
    ----------
    array
        Items of the chunk along the first axis, C-contiguous.
    level
        Zstandard level; None for no compression.
    out
        Writable buffer for the packed chunk, at least `packed_size_bound` bytes; None to return the bytes.
    items
        Number of items in a chunk, if `array` may have fewer as the last chunk of a dataset: the rest is zero.

    Returns
    -------
    bytes or int
        The packed chunk, or the number of bytes written to `out`.
    """
    if items is not None and array.shape[0] < items:
        padded = np.zeros((items, *array.shape[1:]), array.dtype)
        padded[: array.shape[0]] = array
        array = padded
    if not array.flags.c_contiguous:
        raise ValueError("a chunk must be C-contiguous")
    content = array.reshape(-1).view(np.uint8)
    payload = content.data if level is None else _compressor(level).compress(content.data)
    size = len(payload) + CHECKSUM_SIZE
    packed = memoryview(bytearray(size)) if out is None else out[:size]
    packed[:-CHECKSUM_SIZE] = payload
    checksum = int(fletcher32(np.frombuffer(packed, np.uint8, count=len(payload))))
    packed[-CHECKSUM_SIZE:] = checksum.to_bytes(CHECKSUM_SIZE, "little")
    return bytes(packed) if out is None else size


def _compressor(level: int) -> zstandard.ZstdCompressor:
    by_level = _compressors.by_level
    if level not in by_level:
        by_level[level] = zstandard.ZstdCompressor(level=level, write_content_size=True)
    return by_level[level]
