"""Reading frames of a file or an array in several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.errors import FramesError
from dcnumd.read.frame_reader import FrameReader, FrameSource
from dcnumd.read.image_stack import ImageStack

Frames = npt.NDArray[np.uint8]
ReadFrames = Callable[[int, int], Frames]
"""Returns frames start … stop - 1, uint8 of shape (stop - start, y, x).

Several threads call it at the same time. The returned array may be overwritten by the next call in the same thread.
"""


class FrameAccess:
    """A `ReadFrames` function for frames in a file or an array.

    Each thread has its own file descriptor, decompressor and buffer. The buffer is reused, because allocating memory
    for each window takes longer than the decompression.

    Parameters
    ----------
    frames
        Image stack of a measurement, or an array-like of numbers with the axes (frame, y, x). Dtypes other than uint8
        are converted as in C: decimals are truncated, and 256 becomes 0.

    Attributes
    ----------
    shape : tuple of int
        Number of frames, their height and width [px].

    Raises
    ------
    FramesError
        The frames are not images of numbers.
    """

    def __init__(self, frames: ImageStack | npt.ArrayLike) -> None:
        self._source: FrameSource | None = None
        self._frames: Any = frames
        if isinstance(frames, ImageStack):
            source = FrameSource.of(frames)
            self._source = source if source.table is not None else None
        else:
            self._frames = checked_array(frames)
        self.shape: tuple[int, ...] = tuple(self._frames.shape)
        self._local = threading.local()
        self._readers: list[FrameReader] = []

    def __call__(self, start: int, stop: int) -> Frames:
        """Return frames start … stop - 1; the next call in the same thread overwrites them."""
        if self._source is None:
            return np.ascontiguousarray(self.unconverted(start, stop), np.uint8)
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

    def unconverted(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return frames start … stop - 1 in the dtype of the input; the next call may overwrite them."""
        return self(start, stop) if self._source else np.asarray(self._frames[start:stop])

    def close(self) -> None:
        """Close the files of all threads."""
        for reader in self._readers:
            reader.close()
        self._readers.clear()


def checked_array(frames: npt.ArrayLike) -> Any:
    """Return frames as an object with the shape and the slices of an array.

    Raises
    ------
    FramesError
        The frames are not images of numbers.
    """
    array: Any = frames if hasattr(frames, "dtype") and hasattr(frames, "shape") else np.asarray(frames)
    if array.dtype.kind not in "biuf" or len(array.shape) != 3:
        raise FramesError(
            f"frames are {array.dtype} of shape {tuple(array.shape)}, expected numbers with the axes (frame, y, x)",
            reason="image_type",
        )
    return array
