"""Validity of a dataset of frames, and the positions of its chunks in the file."""

from __future__ import annotations

import math

import h5py
import numpy as np
import numpy.typing as npt

from dcnumd.errors import MeasurementError
from dcnumd.read.chunk_layout import FLETCHER32, GZIP, SHUFFLE, ZSTANDARD, ChunkTable, Filter
from dcnumd.read.limits import check_frames_shape
from dcnumd.read.open_file import damage_named

Table = npt.NDArray[np.int64]


def dataset_filters(dataset: h5py.Dataset) -> tuple[Filter, ...]:
    """Return the filters of a dataset in writing order, each as its HDF5 number and parameters."""
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(number) for number in range(properties.get_nfilters())]
    return tuple((int(code), tuple(int(value) for value in values)) for code, _, values, _ in filters)


def check_dataset(dataset: h5py.Dataset, where: str) -> None:
    """Make sure that a dataset contains 8-bit grey images that can be decompressed on this computer.

    Raises
    ------
    MeasurementError
        Reason ``image_type``, ``too_large`` or ``unsupported_filter``.
    """
    with damage_named(where, dataset.name):
        dtype, axes = dataset.dtype, dataset.ndim
        filters = dataset_filters(dataset)
    if dtype != np.uint8 or axes != 3:
        raise MeasurementError(
            f"{where}: {dataset.name} is {dtype} with {axes} axes, expected uint8 images (frame, y, x)",
            reason="image_type",
        )
    check_frames_shape(dataset, where)
    for code, _ in filters:
        if not h5py.h5z.filter_avail(code):
            raise MeasurementError(
                f"{where}: {dataset.name} needs HDF5 filter {code}, which is not available here; rewrite the file with "
                f"Zstandard ({ZSTANDARD}) or gzip ({GZIP})",
                reason="unsupported_filter",
            )


def read_chunk_table(dataset: h5py.Dataset) -> ChunkTable | None:
    """Return the positions of the chunks of a 3-D dataset; None if a worker cannot read them without HDF5."""
    if dataset.file.mode != "r":
        dataset.file.flush()
    if dataset.is_virtual or dataset.external or dataset.file.userblock_size or not dataset.size:
        return None
    if dataset.chunks is None:
        return _contiguous_table(dataset)
    roles = filter_roles(dataset_filters(dataset))
    if roles is None:
        return None
    compressor, compressor_bit, checksum_bit = roles
    grid = tuple(-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    offsets = np.full(grid, -1, np.int64)
    sizes = np.zeros(grid, np.int64)
    filter_masks = np.zeros(grid, np.int64)

    def note(chunk: h5py.h5d.StoreInfo) -> None:
        cell = tuple(start // step for start, step in zip(chunk.chunk_offset, dataset.chunks, strict=True))
        offsets[cell], sizes[cell], filter_masks[cell] = chunk.byte_offset, chunk.size, chunk.filter_mask

    with damage_named(dataset.file.filename, dataset.name):
        dataset.id.chunk_iter(note)
    # chunks that were never written are left to HDF5, which returns the fill value for them
    if (offsets < 0).any():
        return None
    _check_places(dataset, offsets, sizes)
    return ChunkTable(dataset.chunks, offsets, sizes, filter_masks, compressor, compressor_bit, checksum_bit)


def _check_places(dataset: h5py.Dataset, offsets: Table, sizes: Table) -> None:
    """Make sure that the chunks of a dataset are inside the file and can be distinct.

    Raises
    ------
    MeasurementError
        Reason ``damaged``.
    """
    end = dataset.file.id.get_filesize()
    beyond = int((offsets + sizes).max()) > end
    # incompressible data become slightly larger by compression
    if beyond or int(sizes.sum()) > end or int(sizes.max()) > 2 * math.prod(dataset.chunks) + 4096:
        raise MeasurementError(
            f"{dataset.file.filename}: {dataset.name} is damaged: its chunks do not fit in the {end} bytes of the file",
            reason="damaged",
        )


def _contiguous_table(dataset: h5py.Dataset) -> ChunkTable | None:
    offset = dataset.id.get_offset()
    if offset is None:
        return None
    if offset + dataset.nbytes > dataset.file.id.get_filesize():
        raise MeasurementError(
            f"{dataset.file.filename}: {dataset.name} is damaged: its frames would end beyond the end of the file",
            reason="damaged",
        )
    cell = np.zeros((1, 1, 1), np.int64)
    return ChunkTable(dataset.shape, cell + offset, cell + dataset.nbytes, cell)


def filter_roles(filters: tuple[Filter, ...]) -> tuple[int | None, int, int | None] | None:
    """Return compressor, its position and that of the checksum; None for chains that only HDF5 can decode.

    Supported are, in writing order: shuffle of single bytes (which does not change them), one compressor, fletcher32;
    each optional.
    """
    compressor: int | None = None
    compressor_bit = 0
    checksum_bit: int | None = None
    for position, (code, values) in enumerate(filters):
        if checksum_bit is not None:
            return None
        if code == SHUFFLE and values == (1,):
            continue
        if code in {GZIP, ZSTANDARD} and compressor is None:
            compressor, compressor_bit = code, position
        elif code == FLETCHER32:
            checksum_bit = position
        else:
            return None
    return compressor, compressor_bit, checksum_bit
