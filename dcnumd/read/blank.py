"""Detection of measurements with parts that were never written, such as a preallocated copy that is incomplete.

Such a file opens without an error and has the right shapes; only its bytes differ. Parts that were never written read
as zeros. No compressor produces long runs of zeros, and no camera does over thousands of pixels while there is light.

When the light goes off, the last frames of a recording are zero as well. In that case time and frame numbers continue,
and the file has data after the frames. An interrupted copy has no data after the place where it stopped.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import h5py

from dcnumd.read.chunk_layout import FLETCHER32, SHUFFLE
from dcnumd.read.chunk_table import dataset_filters
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.read.image_stack import ImageStack

RUN_FRAMES = 2
"""Number of consecutive zero frames that count as unwritten; one zero frame can be a frame that the camera lost."""
RUN_BYTES = (2**14, 2**20)
"""Smallest and largest number of bytes that are checked in one place, for any frame size."""
PACKED_BYTES = 1024
"""Number of zero bytes at either end of a compressed chunk that mark it as unwritten."""
SAMPLES = 6
"""Number of intervals between the places that are checked."""
BEHIND_BYTES = 2**20
"""Number of bytes after the frames that are checked."""
RISING = ("time", "frame")
"""Features that are not zero for the last of several frames."""

Span = tuple[int, int]
"""Offset in the file and length [bytes]."""


def is_blank(data: HDF5Data) -> bool:
    """Return whether parts of a measurement were never written.

    This checks both ends of the frames and a few places between them, not all bytes: it has to take milliseconds.

    Raises
    ------
    MeasurementError
        The measurement cannot be read.
    """
    if any(_ends_blank(data, name) for name in RISING):
        return True
    image = data.find("image", mapped=False)
    if image is None:
        return False
    # an interrupted recording may have further frames, which do not count
    places = _places(image.dataset, len(image) if image.indices is None else len(image.dataset))
    return places is None or (any(places) and not _light_went_off(places, image.dataset, data))


def _light_went_off(places: list[bool], dataset: h5py.Dataset, data: HDF5Data) -> bool:
    """Return whether all frames after some place are black, while other data continue."""
    first = places.index(True)
    return (
        first > 0
        and all(places[first:])
        and _is_plain(dataset)
        and any(data.find(name) is not None for name in RISING)
        and _goes_on_behind(dataset)
    )


def _is_plain(dataset: h5py.Dataset) -> bool:
    """Return whether the frames are stored uncompressed."""
    return all(code in {SHUFFLE, FLETCHER32} for code, _ in dataset_filters(dataset))


def _ends_blank(data: HDF5Data, feature: str) -> bool:
    values = data.find(feature)
    if not isinstance(values, ImageStack) or values.ndim != 1 or len(values) <= 2:
        return False
    # values that are zero from the start, as without a clock, do not show where the writing stopped
    return not values[len(values) - 1] and bool(values[len(values) // 2] or values[1])


def _places(dataset: h5py.Dataset, frames: int) -> list[bool] | None:
    """Return for some places in the first frames whether all bytes are zero; None if one is nowhere in the file."""
    if dataset.is_virtual or dataset.external or not dataset.size:
        return []
    if dataset.chunks is not None:
        shape = (frames, *dataset.shape[1:])
        chunks = math.prod(-(-length // chunk) for length, chunk in zip(shape, dataset.chunks, strict=True))
        if dataset.id.get_num_chunks() < chunks:
            return None
    elif dataset.id.get_offset() is None:
        return None
    shift = dataset.file.userblock_size
    descriptor = os.open(dataset.file.filename, os.O_RDONLY | os.O_CLOEXEC)
    try:
        spans = _frames_in_one(dataset) if dataset.chunks is None else _frames_in_chunks(dataset, frames)
        return [not any(os.pread(descriptor, size, shift + offset)) for offset, size in spans if size > 0]
    finally:
        os.close(descriptor)


def _goes_on_behind(dataset: h5py.Dataset) -> bool:
    """Return whether the file has data after the last frame of a dataset."""
    if dataset.chunks is None:
        end = dataset.id.get_offset() + dataset.nbytes
    else:
        ends: list[int] = []
        # why not get_chunk_info(n)? HDF5 counts from the first chunk in each call, which is quadratic
        dataset.id.chunk_iter(lambda chunk: ends.append(chunk.byte_offset + chunk.size))
        end = max(ends)
    descriptor = os.open(dataset.file.filename, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return any(os.pread(descriptor, BEHIND_BYTES, dataset.file.userblock_size + end))
    finally:
        os.close(descriptor)


def _frames_in_one(dataset: h5py.Dataset) -> Iterator[Span]:
    """Yield the places to check in a contiguous dataset."""
    offset, size = dataset.id.get_offset(), dataset.nbytes
    length = min(_run_length(dataset), size)
    for number in range(SAMPLES + 1):
        yield offset + (size - length) * number // SAMPLES, length


def _frames_in_chunks(dataset: h5py.Dataset, frames: int) -> Iterator[Span]:
    """Yield the places to check in the first chunk, the last chunk and some chunks between them."""
    step = dataset.chunks[0]
    last = (frames - 1) // step
    unpacked = math.prod(dataset.chunks)
    plain = _is_plain(dataset)
    for number in dict.fromkeys(last * sample // SAMPLES for sample in range(SAMPLES + 1)):
        chunk = dataset.id.get_chunk_info_by_coord((number * step, 0, 0))
        if chunk.byte_offset is None:
            continue
        if not plain and chunk.size < unpacked:
            length = min(PACKED_BYTES, chunk.size)
            yield chunk.byte_offset, length
            if chunk.size >= 2 * length:
                yield chunk.byte_offset + chunk.size - length, length
        elif dataset.chunks[1:] == dataset.shape[1:]:
            # the last chunk may extend beyond the last frame
            used = unpacked * min(frames - number * step, step) // step
            length = min(_run_length(dataset), used)
            yield chunk.byte_offset + used - length, length


def _run_length(dataset: h5py.Dataset) -> int:
    least, most = RUN_BYTES
    height, width = map(int, dataset.shape[1:])
    return min(max(RUN_FRAMES * height * width, least), most)
