"""Whether a measurement has places that are still empty, as in a copy that took its whole size at once.

Such a file opens without complaint, with the right shape: only its bytes can tell. What was never written reads as
zeros, which no compression produces, and no camera over thousands of pixels while there is light.

When the light goes off, the last frames of a recording are zero, too. Then time and frame numbers go on, and what lies
behind the frames in the file is there; a copy that broke off has nothing behind the place where it did.
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
"""Number of frames of zeros in a row that nobody wrote; a single frame that a camera lost may be zero, too."""
RUN_BYTES = (2**14, 2**20)
"""Least and largest size that is looked at in one place, whatever the size of frames [bytes]."""
PACKED_BYTES = 1024
"""Number of zeros at either end of a packed chunk that nobody wrote [bytes]."""
SAMPLES = 6
"""Places that are looked at, besides the ends."""
BEHIND_BYTES = 2**20
"""Size of the part of a file behind its frames that is looked at [bytes]."""
RISING = ("time", "frame")
"""Features that are not zero for the last of several frames."""

Span = tuple[int, int]
"""Offset in the file and length [bytes]."""


def is_blank(data: HDF5Data) -> bool:
    """Return whether something was never written, by a look at the ends of the frames and at a few places between.

    Raises
    ------
    MeasurementError
        The measurement cannot be read.
    """
    if any(_ends_blank(data, name) for name in RISING):
        return True
    image = data.image
    if image is None:
        return False
    places = _places(image.dataset)
    return places is None or (any(places) and not _light_went_off(places, image.dataset, data))


def _light_went_off(places: list[bool], dataset: h5py.Dataset, data: HDF5Data) -> bool:
    """Return whether frames are black from some place on, while everything else goes on."""
    first = places.index(True)
    return (
        first > 0
        and all(places[first:])
        and _is_plain(dataset)
        and any(data.find(name) is not None for name in RISING)
        and _goes_on_behind(dataset)
    )


def _is_plain(dataset: h5py.Dataset) -> bool:
    """Return whether the bytes in the file are those of the frames."""
    return all(code in {SHUFFLE, FLETCHER32} for code, _ in dataset_filters(dataset))


def _ends_blank(data: HDF5Data, feature: str) -> bool:
    values = data.find(feature)
    if not isinstance(values, ImageStack) or values.ndim != 1 or len(values) <= 2:
        return False
    # what never rises does not end too early
    return not values[len(values) - 1] and bool(values[len(values) // 2] or values[1])


def _places(dataset: h5py.Dataset) -> list[bool] | None:
    """Return for some places in the frames, in their order, whether all is zero; None if some have no room yet."""
    if dataset.is_virtual or dataset.external or not dataset.size:
        return []
    if dataset.chunks is not None:
        chunks = math.prod(-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        if dataset.id.get_num_chunks() < chunks:
            return None
    elif dataset.id.get_offset() is None:
        return None
    shift = dataset.file.userblock_size
    descriptor = os.open(dataset.file.filename, os.O_RDONLY | os.O_CLOEXEC)
    try:
        spans = _frames_in_one(dataset) if dataset.chunks is None else _frames_in_chunks(dataset)
        return [not any(os.pread(descriptor, size, shift + offset)) for offset, size in spans if size > 0]
    finally:
        os.close(descriptor)


def _goes_on_behind(dataset: h5py.Dataset) -> bool:
    """Return whether there is something behind all frames of a dataset in its file."""
    if dataset.chunks is None:
        end = dataset.id.get_offset() + dataset.nbytes
    else:
        ends: list[int] = []
        # each chunk by its number would make HDF5 count from the first one again
        dataset.id.chunk_iter(lambda chunk: ends.append(chunk.byte_offset + chunk.size))
        end = max(ends)
    descriptor = os.open(dataset.file.filename, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return any(os.pread(descriptor, BEHIND_BYTES, dataset.file.userblock_size + end))
    finally:
        os.close(descriptor)


def _frames_in_one(dataset: h5py.Dataset) -> Iterator[Span]:
    """Return where to look in frames that lie one after the other."""
    offset, size = dataset.id.get_offset(), dataset.nbytes
    length = min(_run_length(dataset), size)
    for number in range(SAMPLES + 1):
        yield offset + (size - length) * number // SAMPLES, length


def _frames_in_chunks(dataset: h5py.Dataset) -> Iterator[Span]:
    """Return where to look in the first, some, and the last of the chunks."""
    frames, step = dataset.shape[0], dataset.chunks[0]
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
            # the rest of the last chunk belongs to no frame
            used = unpacked * min(frames - number * step, step) // step
            length = min(_run_length(dataset), used)
            yield chunk.byte_offset + used - length, length


def _run_length(dataset: h5py.Dataset) -> int:
    least, most = RUN_BYTES
    height, width = map(int, dataset.shape[1:])
    return min(max(RUN_FRAMES * height * width, least), most)
