"""Recordings that were interrupted: they have the frames that all features have.

Their files are still marked as open for writing, and the features may differ in length. Only recordings in SWMR mode
can be read then: HDF5 writes their parts in an order that leaves the file consistent at any moment.
"""

from __future__ import annotations

import math

import h5py

from dcnumd.read.frame_features import COMPUTED_WITH, FRAME_SCALARS, IMAGES
from dcnumd.read.measurement_file import MeasurementFile
from dcnumd.read.open_file import damage_named

COUNTED = (*IMAGES, *FRAME_SCALARS)
"""Features whose frames are counted."""
NEEDED = ("image", *COMPUTED_WITH)
"""Features that count even if they are empty; others may be empty in complete measurements as well."""


def common_frames(file: MeasurementFile) -> int | None:
    """Return the number of frames that all features in a file have; None if it has no such features.

    Raises
    ------
    MeasurementError
        A feature cannot be opened.
    """
    found = {name: item for name in COUNTED if (item := file.feature(name)) is not None}
    return min((_written(item) for name, item in found.items() if len(item) or name in NEEDED), default=None)


def _written(dataset: h5py.Dataset) -> int:
    """Return the number of frames before the first chunk that was not written."""
    length = len(dataset)
    if dataset.chunks is None or not length:
        return length
    step = dataset.chunks[0]
    parts = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape[1:], dataset.chunks[1:], strict=True))
    missing = [parts] * -(-length // step)

    def note(chunk: h5py.h5d.StoreInfo) -> None:
        number = chunk.chunk_offset[0] // step
        if number < len(missing):
            missing[number] -= 1

    with damage_named(dataset.file.filename, dataset.name):
        dataset.id.chunk_iter(note)
    return next((number * step for number, left in enumerate(missing) if left > 0), length)
