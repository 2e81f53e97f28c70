"""A slot: the data of one chunk of frames in shared memory, and the progress of the work on it.

Of dcnumd, this module imports `dcnumd.shared_memory` only.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.shared_memory.block import BlockHandle, SharedBlock

mp_spawn = multiprocessing.get_context("spawn")

VALID_STATES = "0ismlewdn"
"""All states of a slot in the order of the workflow; see `ChunkSlotData.state`."""

ARRAYS: dict[str, tuple[type[np.generic], bool]] = {
    # name: (dtype, whether there is an image for each frame rather than a number)
    "reserved": (np.bool_, False),
    "done": (np.bool_, False),
    "bg_off": (np.float64, False),
    "image": (np.uint8, True),
    "image_bg": (np.uint8, True),
    "image_corr": (np.int16, True),
    "mask": (np.bool_, True),
    "labels": (np.uint16, True),
}
HEADER = np.dtype([("state", "S1"), ("chunk", "<i8"), ("length", "<i8")])
ALIGNMENT = 64


class HeaderField:
    """Field of a slot's header, whose value is shared by all processes.

    Parameters
    ----------
    header
        Header of the slot, `HEADER` (1,).
    name
        Name of the field.
    """

    def __init__(self, header: npt.NDArray[Any], name: str) -> None:
        self._header = header
        self._name = name

    @property
    def value(self) -> Any:
        """Value of the field: an integer, or a text."""
        value = self._header[self._name][0]
        return value.decode("ascii") if isinstance(value, bytes) else int(value)

    @value.setter
    def value(self, value: Any) -> None:
        self._header[self._name] = value.encode("ascii") if isinstance(value, str) else value


def layout(shape: tuple[int, int, int], names: Iterable[str]) -> tuple[dict[str, int], int]:
    """Return the offset of each named array in a slot's block [bytes], and the size of the block [bytes]."""
    offsets = {}
    position = ALIGNMENT * math.ceil(HEADER.itemsize / ALIGNMENT)
    for name in names:
        dtype, per_pixel = ARRAYS[name]
        items = math.prod(shape) if per_pixel else shape[0]
        offsets[name] = position
        position += ALIGNMENT * math.ceil(items * np.dtype(dtype).itemsize / ALIGNMENT)
    return offsets, position


def included_arrays(available_features: Iterable[str] | None) -> tuple[str, ...]:
    """Return the names of the arrays of a slot whose input has the given features."""
    features = set(available_features or ())
    names = ["reserved", "done"]
    if "bg_off" in features:
        names.append("bg_off")
    names.append("image")
    if "image_bg" in features:
        names += ["image_bg", "image_corr"]
    return (*names, "mask", "labels")


class ChunkSlotData:
    """Data of one chunk of frames in memory that is shared by all workers.

    Parameters
    ----------
    shape
        (frames, height, width) of the largest chunk in this slot [px].
    available_features
        Features of the input besides ``image``: with ``image_bg`` the slot has the arrays `image_bg` and
        `image_corr`, with ``bg_off`` it has `bg_off`; otherwise they are None.
    """

    def __init__(self, shape: tuple[int, int, int], available_features: Iterable[str] | None = None) -> None:
        names = included_arrays(available_features)
        _, size = layout(shape, names)
        self._block = SharedBlock(size)
        self._bind(shape, names)
        self.length = shape[0]
        self.chunk = -1
        self.state = "0"
        self.state = "i"

    def _bind(self, shape: tuple[int, int, int], names: tuple[str, ...]) -> None:
        self.shape = shape
        self._names = names
        offsets, _ = layout(shape, names)
        self._header = self._block.array(0, (1,), HEADER)
        self._state = HeaderField(self._header, "state")
        self._chunk = HeaderField(self._header, "chunk")
        self._arrays = {
            name: self._block.array(offset, shape if ARRAYS[name][1] else shape[:1], ARRAYS[name][0])
            for name, offset in offsets.items()
        }
        self._task_reserve_lock = self._block.lock
        self._task_reserve_array = self._arrays["reserved"]
        self._task_progress_array = self._arrays["done"]

    def __getstate__(self) -> dict[str, Any]:
        return {"block": self._block, "shape": self.shape, "names": self._names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._block = state["block"]
        self._bind(state["shape"], state["names"])

    def reshape(self, shape: tuple[int, int, int], available_features: Iterable[str] | None = None) -> None:
        """Use the same memory for chunks of another shape; it grows only if necessary.

        Another process uses the new shape only after it has received the slot again.
        """
        names = included_arrays(available_features)
        _, size = layout(shape, names)
        self._block.grow(size)
        self._bind(shape, names)
        self._task_reserve_array[:] = self._task_progress_array[:] = False
        self.length = shape[0]
        self.chunk = -1
        self.state = "i"

    def trim(self) -> None:
        """Free memory that only an earlier shape needed."""
        self._block.trim(layout(self.shape, self._names)[1])

    @property
    def handle(self) -> BlockHandle:
        """Handle of this slot's memory, which other processes need to map it."""
        return self._block.handle

    @property
    def length(self) -> int:
        """Number of frames in the current chunk, at most ``shape[0]``."""
        return int(self._header["length"][0])

    @length.setter
    def length(self, value: int) -> None:
        if not 0 <= value <= self.shape[0]:
            raise ValueError(f"length of a chunk is {value}, must be from 0 to {self.shape[0]}")
        self._header["length"] = value

    @property
    def chunk(self) -> int:
        """Number of the current chunk; -1 before the first."""
        return int(self._chunk.value)

    @chunk.setter
    def chunk(self, value: int) -> None:
        self._chunk.value = value

    @property
    def state(self) -> str:
        """State of the slot; setting another one starts a new task without progress, but keeps reservations.

        Valid values, in the order of the workflow:

        - "0": construction of instance
        - "i": image loading (populates image, image_bg, image_corr, bg_off)
        - "s": segmentation (populates mask or labels)
        - "m": mask labeling (takes mask and populates labels)
        - "l": label processing (modifies labels in-place)
        - "e": feature extraction (requires labels)
        - "w": writing
        - "d": done (slot can be repurposed for next chunk)
        - "n": not specified
        """
        return str(self._state.value)

    @state.setter
    def state(self, value: str) -> None:
        if len(value) != 1 or value not in VALID_STATES:
            raise ValueError(f"state of a slot is {value!r}, must be one of {', '.join(VALID_STATES)}")
        with self._task_reserve_lock:
            if self._state.value != value:
                self._state.value = value
                self._task_progress_array[:] = False

    def _view(self, name: str) -> npt.NDArray[Any] | None:
        array = self._arrays.get(name)
        return None if array is None else array[: self.length]

    @property
    def bg_off(self) -> npt.NDArray[np.float64] | None:
        """Brightness offset correction for the current chunk, float64 (frame,)."""
        return self._view("bg_off")

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        """Image data, uint8 (frame, y, x)."""
        return self._arrays["image"][: self.length]

    @property
    def image_bg(self) -> npt.NDArray[np.uint8] | None:
        """Background image data, uint8 (frame, y, x)."""
        return self._view("image_bg")

    @property
    def image_corr(self) -> npt.NDArray[np.int16] | None:
        """Background-corrected image data, int16 (frame, y, x)."""
        return self._view("image_corr")

    @property
    def labels(self) -> npt.NDArray[np.uint16]:
        """Labeling data, uint16 (frame, y, x); 0 is background."""
        return self._arrays["labels"][: self.length]

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Boolean, unlabeled mask data (frame, y, x)."""
        return self._arrays["mask"][: self.length]

    def acquire_task_lock(self, req_state: str, batch_size: int | None = None) -> tuple[int, int]:
        """Reserve a batch of frames for a task.

        Parameters
        ----------
        req_state
            Required state of the slot.
        batch_size
            Largest number of frames; None reserves all contiguous free frames.

        Returns
        -------
        start, stop
            Range of contiguous frames that were not reserved or done, possibly fewer than `batch_size`;
            (0, 0) if there are none or the slot is in another state.
        """
        with self._task_reserve_lock:
            if self._state.value != req_state:
                return 0, 0
            taken = (self._task_reserve_array | self._task_progress_array)[: self.length]
            if taken.all():
                return 0, 0
            start = int(np.argmin(taken))
            limit = self.length if batch_size is None else min(start + batch_size, self.length)
            if limit <= start:
                return 0, 0
            following = np.flatnonzero(taken[start:limit])
            stop = start + int(following[0]) if following.size else limit
            self._task_reserve_array[start:stop] = True
            return start, stop

    def release_task_lock(self, start: int, stop: int, task_done: bool = True) -> None:
        """Release a batch that was reserved with `acquire_task_lock`.

        Parameters
        ----------
        start, stop
            Range of frames of the batch.
        task_done
            Whether the task was completed; if not, the batch can be reserved again.
        """
        with self._task_reserve_lock:
            self._task_reserve_array[start:stop] = False
            if task_done:
                self._task_progress_array[start:stop] = True

    def get_progress(self) -> float:
        """Return the fraction of frames for which the current task is done, from 0 to 1."""
        if self.length == 0:
            return 1.0
        return float(np.count_nonzero(self._task_progress_array[: self.length]) / self.length)
