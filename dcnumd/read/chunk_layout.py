"""How chunks are stored in an HDF5 file, in words that need no HDF5."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

GZIP = 1
SHUFFLE = 2
FLETCHER32 = 3
ZSTANDARD = 32015
"""Numbers by which HDF5 knows its filters."""

Filter = tuple[int, tuple[int, ...]]
"""Number and parameters of a filter."""


@dataclasses.dataclass(frozen=True, eq=False)
class ChunkTable:
    """Where the chunks of a dataset are in the file.

    Attributes
    ----------
    shape
        Chunk shape (frames, y, x). A contiguous dataset is one chunk of the shape of the dataset.
    offsets, sizes, filter_masks
        Byte offset in the file, stored size in bytes and filters left out (bit i: filter i) of every chunk; int64 of
        shape (chunks along frames, along y, along x).
    compressor, compressor_bit
        HDF5 number of the compression filter (None, gzip or Zstandard) and its position among the filters.
    checksum_bit
        Position of fletcher32 among the filters; None without checksums.
    """

    shape: tuple[int, int, int]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    filter_masks: npt.NDArray[np.int64]
    compressor: int | None = None
    compressor_bit: int = 0
    checksum_bit: int | None = None
