"""Storage of chunks in an HDF5 file; this module does not import h5py."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

GZIP = 1
SHUFFLE = 2
FLETCHER32 = 3
ZSTANDARD = 32015
"""Numbers of filters in HDF5."""

Filter = tuple[int, tuple[int, ...]]
"""Number and parameters of a filter."""


@dataclasses.dataclass(frozen=True, eq=False)
class ChunkTable:
    """Positions of the chunks of a dataset in the file.

    Attributes
    ----------
    shape
        Chunk shape (frames, y, x). A contiguous dataset is one chunk with the shape of the dataset.
    offsets
        Offset of each chunk in the file [bytes], int64 (chunks along frames, along y, along x).
    sizes
        Stored size of each chunk [bytes], with the same shape.
    filter_masks
        Skipped filters of each chunk (bit i: filter i), with the same shape.
    compressor
        HDF5 number of the compression filter, gzip or Zstandard; None without compression.
    compressor_bit
        Position of the compression filter among the filters.
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
