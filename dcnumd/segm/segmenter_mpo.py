"""Segmentation with several persistent worker processes."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from dcnumd.errors import MethodError
from dcnumd.processes.processors import physical_cores
from dcnumd.processes.worker_pool import WorkerPool
from dcnumd.segm.batches import images_of, label_masks, mask_frames
from dcnumd.segm.segmenter import Segmenter
from dcnumd.segm.session import (
    Bind,
    Layouts,
    SegmenterWorker,
    SegmentProgram,
    SegmentTask,
    WorkerProgram,
    slot_layouts,
)
from dcnumd.segm.workers import (
    SHARED,
    MPOSegmenterWorker,
    MPOSegmenterWorkerProcess,
    MPOSegmenterWorkerThread,
    mp_spawn,
)
from dcnumd.shared_memory.block import SharedEvent, SharedNumber
from dcnumd.shared_memory.slot import ChunkSlotData

# The workers are implemented in `workers`, but are documented, as in dcnum, in this module.
__all__ = [
    "MPOSegmenter",
    "MPOSegmenterWorker",
    "MPOSegmenterWorkerProcess",
    "MPOSegmenterWorkerThread",
    "mp_spawn",
]


class MPOSegmenter(Segmenter, abc.ABC):
    """Segmenter with multiprocessing operation.

    The workers are started once. `reinitialize_workers` binds living workers to other slots and to the parameters of
    this segmenter, and starts only missing ones.

    Parameters
    ----------
    num_workers
        Number of workers (processes) to start; None means one for each physical core.
    kwargs_mask
        Keyword arguments for mask post-processing (see `process_labels`).
    debug
        Use one thread of this process instead of worker processes; the segmenter need not be picklable then.
    kwargs
        Keyword arguments for `segment_algorithm`, defined in the subclass.

    Attributes
    ----------
    num_workers : int
        Number of workers; in debugging mode, 1 after they are started.
    slot_list : sequence of ChunkSlotData or None
        Slots that the workers share; None before they are started.
    mp_slot_index : SharedNumber
        Index in `slot_list` of the slot that is being processed.
    mp_active : SharedEvent
        Set while the workers are allowed to do work.
    mp_num_workers_done : SharedNumber
        Number of workers that have finished the slot.
    mp_shutdown : SharedEvent
        Set to stop the workers.

    Raises
    ------
    MethodError
        A keyword does not exist, or the number of workers is negative.
    """

    hardware_processor: ClassVar[str] = "cpu"
    is_exclusive: bool = False
    """Whether only one of the workers of a pipeline segments."""

    def __init__(
        self,
        *,
        num_workers: int | None = None,
        kwargs_mask: Mapping[str, Any] | None = None,
        debug: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(kwargs_mask=kwargs_mask, debug=debug, **kwargs)
        self.num_workers = num_workers or physical_cores()
        if self.num_workers < 0:
            raise MethodError(f"num_workers is {num_workers}, expected at least 1, or 0 or None for all physical cores")
        self._begin()

    def _begin(self) -> None:
        """Initialize the attributes that a pickled copy does not share with the original."""
        self.slot_list: Sequence[ChunkSlotData] | None = None
        self.program: WorkerProgram = SegmentProgram()
        self.mp_slot_index = SharedNumber()
        self.mp_active = SharedEvent()
        self.mp_num_workers_done = SharedNumber()
        self.mp_shutdown = SharedEvent()
        self._bound_layouts: Layouts = []
        self._worker_starter: type[MPOSegmenterWorker] | None = None
        self.pool = WorkerPool(self._start_worker)

    @property
    def _workers(self) -> list[SegmenterWorker]:
        return self.pool.workers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.join_workers()
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        # workers receive only the parameters; slots, program and pool belong to the parent
        own = {*SHARED, "pool", "slot_list", "program", "_bound_layouts", "_worker_starter"}
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def _start_worker(self, index: int) -> SegmenterWorker:
        kind = MPOSegmenterWorkerThread if self.debug else MPOSegmenterWorkerProcess
        self._worker_starter = kind
        worker = kind(self, *self._worker_slice(index, 0))
        worker.connect()
        worker.start()
        return worker

    def _worker_slice(self, index: int, length: int) -> tuple[int, int]:
        return index * length // self.num_workers, (index + 1) * length // self.num_workers

    def take_workers(self, other: MPOSegmenter) -> None:
        """Exchange workers with another segmenter, so that this one has its living workers."""
        self.pool, other.pool = other.pool, self.pool
        self.pool.set_starter(self._start_worker)
        other.pool.set_starter(other._start_worker)
        for name in SHARED:
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, theirs)
            setattr(other, name, mine)

    def reinitialize_workers(self, slot_list: Sequence[ChunkSlotData]) -> None:
        """Bind the workers to new slots and to this segmenter's parameters.

        Living workers stay; dead ones are replaced and missing ones are started.

        Parameters
        ----------
        slot_list
            The slots that the workers share from now on.
        """
        if self.debug:
            self.num_workers = 1
        self.slot_list = slot_list
        self._bound_layouts = slot_layouts(slot_list)
        self.mp_shutdown.clear()
        self.pool.bind(Bind(self, slot_list, self.program), self.num_workers)
        for worker in self._workers:
            worker.segmenter, worker.slot_list = self, slot_list

    def join_workers(self) -> None:
        """Ask all workers to stop and join them."""
        self.mp_active.clear()
        self.mp_shutdown.set()
        self.pool.stop()

    def close(self) -> None:
        """Stop the workers; subclasses can implement clean-up code here."""
        self.join_workers()

    def segment_batch(
        self, images: npt.NDArray[Any], bg_off: npt.NDArray[np.float64] | None = None
    ) -> npt.NDArray[np.bool_]:
        """Perform batch segmentation of images.

        Parameters
        ----------
        images
            The time-series image data (frame, y, x), background-corrected if the algorithm requires that.
        bg_off
            Background offset (frame,), which is subtracted from the images first.

        Returns
        -------
        mask
            bool (frame, y, x), after mask post-processing.

        Raises
        ------
        MethodError
            `bg_off` is given, but the segmenter works on raw images.
        ValueError
            An array has another shape.
        """
        if images.ndim != 3:
            raise ValueError(f"images have the shape {images.shape}, expected (frame, y, x)")
        if bg_off is not None and bg_off.shape != (len(images),):
            raise ValueError(f"bg_off has the shape {bg_off.shape}, expected {(len(images),)}, as there are images")
        if bg_off is not None and not self.requires_background_correction:
            raise MethodError(
                f"segmenter {self.get_ppid_code()!r} does not employ background correction, but got bg_off"
            )
        mask = np.empty(images.shape, np.bool_)
        labels = np.empty(images.shape, np.uint16)
        self._segment_images(images, bg_off, mask)
        label_masks(self, mask, labels)
        return np.asarray(labels > 0) if self.mask_postprocessing else mask

    def segment_single(self, image: npt.NDArray[Any], bg_off: float | None = None) -> npt.NDArray[np.bool_]:
        """Return the boolean mask image (y, x) for one input image; see `segment_batch`."""
        offsets = None if bg_off is None else np.array([bg_off], np.float64)
        mask: npt.NDArray[np.bool_] = self.segment_batch(image[np.newaxis], offsets)[0]
        return mask

    def _segment_images(
        self,
        images: npt.NDArray[Any],
        bg_off: npt.NDArray[np.float64] | None,
        mask: npt.NDArray[np.bool_],
    ) -> None:
        """Fill `mask` with the output of the algorithm, which gets one frame at a time."""
        mask_frames(self, images, bg_off, mask)

    def label_batch(
        self,
        slot: ChunkSlotData,
        start: int,
        stop: int,
        backgrounds: npt.NDArray[np.uint8],
        background_index: npt.NDArray[np.int64],
    ) -> None:
        """Fill a slot's labels from its images, for the frames `start` to `stop`.

        Parameters
        ----------
        slot
            The slot, whose image and, if it has one, bg_off are filled for the batch.
        start, stop
            Range of frames of the batch.
        backgrounds
            Background images, uint8 (image, y, x).
        background_index
            Index of the background image of each frame of the batch.
        """
        self.mask_batch(slot, start, stop, backgrounds, background_index)
        self.label_masks(slot, start, stop)

    def mask_batch(
        self,
        slot: ChunkSlotData,
        start: int,
        stop: int,
        backgrounds: npt.NDArray[np.uint8],
        background_index: npt.NDArray[np.int64],
    ) -> None:
        """Fill a slot's mask from its images; the parameters are those of `label_batch`."""
        images, bg_off = images_of(self, slot, slice(start, stop), backgrounds, background_index)
        self._segment_images(images, bg_off, slot.mask[start:stop])

    def label_masks(self, slot: ChunkSlotData, start: int, stop: int) -> None:
        """Fill a slot's labels from its mask, for the frames `start` to `stop`."""
        label_masks(self, slot.mask[start:stop], slot.labels[start:stop])

    def segment_chunk(self, chunk: int, slot_list: Sequence[ChunkSlotData]) -> npt.NDArray[np.bool_]:
        """Segment the image data of one slot.

        Parameters
        ----------
        chunk
            Index of the data chunk.
        slot_list
            The slots, one of which holds the chunk.

        Returns
        -------
        mask
            The slot's view of the shared boolean mask array, filled by the workers.

        Raises
        ------
        ValueError
            No slot holds the chunk.
        """
        slot_index = next((i for i, slot in enumerate(slot_list) if slot.chunk == chunk), None)
        if slot_index is None:
            held = ", ".join(str(slot.chunk) for slot in slot_list)
            raise ValueError(f"no slot holds chunk {chunk}, they hold {held}")
        if not self._workers or self.slot_list is not slot_list or self._bound_layouts != slot_layouts(slot_list):
            self.reinitialize_workers(slot_list)
        slot = slot_list[slot_index]
        self.mp_slot_index.value = slot_index
        self.mp_num_workers_done.value = 0
        self.mp_active.set()
        for index, worker in enumerate(self._workers):
            worker.sl_start, worker.sl_stop = self._worker_slice(index, slot.length)
            self.pool.submit(index, SegmentTask(slot_index, worker.sl_start, worker.sl_stop))
        lost: list[SegmentTask] = []
        try:
            for _ in self.pool.work(lambda _: lost.pop() if lost else None, lost.append):
                self.mp_num_workers_done.value += 1
        finally:
            self.pool.drain()
            self.mp_active.clear()
        return slot.mask
