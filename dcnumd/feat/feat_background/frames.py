"""Frames of a file or an array, read from several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.errors import MeasurementError
from dcnumd.read.frame_reader import FrameReader
from dcnumd.read.frame_source import FrameSource
from dcnumd.read.image_stack import ImageStack

Frames = npt.NDArray[np.uint8]
ReadFrames = Callable[[int, int], Frames]
"""Returns frames start … stop - 1, uint8 of shape (stop - start, y, x).

It is called from several threads at once. What it returns may be overwritten by the next call of the same thread.
"""


class FrameAccess:
    """A `ReadFrames` function for frames in a file or an array.

    Every thread reads with its own descriptor, decompressor and buffer: fresh memory for each window costs more
    than the decompression.

    Parameters
    ----------
    frames
        Image stack of a measurement, or an array-like of uint8 with the axes (frame, y, x).

    Raises
    ------
    MeasurementError
        The frames are not uint8 images.
    """

    def __init__(self, frames: ImageStack | npt.ArrayLike) -> None:
        self._frames: Any = frames
        self._source: FrameSource | None = None
        if isinstance(frames, ImageStack):
            source = FrameSource.of(frames)
            self._source = source if source.table is not None else None
        elif getattr(frames, "dtype", None) != np.uint8 or len(getattr(frames, "shape", ())) != 3:
            raise MeasurementError(
                f"frames are {getattr(frames, 'dtype', type(frames).__name__)} of shape "
                f"{getattr(frames, 'shape', None)}, expected uint8 with the axes (frame, y, x)",
                reason="image_type",
            )
        self._local = threading.local()
        self._readers: list[FrameReader] = []

    def __call__(self, start: int, stop: int) -> Frames:
        """Return frames start … stop - 1; the memory is used again by this thread's next call."""
        if self._source is None:
            return np.ascontiguousarray(self._frames[start:stop])
        local = self._local
        if not hasattr(local, "reader"):
            local.reader = FrameReader(self._source)
            local.buffer = np.empty(0, np.uint8)
            self._readers.append(local.reader)
        shape = (stop - start, *self._source.frame_shape)
        size = int(np.prod(shape))
        if local.buffer.size < size:
            local.buffer = np.empty(size, np.uint8)
        out: Frames = local.buffer[:size].reshape(shape)
        local.reader.read_into(start, stop, out)
        return out

    def close(self) -> None:
        """Close the files of all threads."""
        for reader in self._readers:
            reader.close()
        self._readers.clear()
