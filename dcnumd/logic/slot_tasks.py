"""Distribution of the frames of a file: chunks to slots, and batches of them to workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dcnumd.logic.tasks import FramesTask, Step
from dcnumd.shared_memory.slot import ChunkSlotData

SEGMENTING_WORKER = 0
"""Index of the worker that segments if only one does."""
AFTER = {"all": "w", "load": "s", "mask": "m", "extract": "w"}
"""State of a slot when a step is done for all of its frames."""


class Reserved(NamedTuple):
    """Frames of a slot that are reserved for a task."""

    slot_index: int
    start: int
    stop: int
    step: Step


class SlotTasks:
    """Reserves frames for workers, until all frames are processed.

    Usually a worker takes a batch through all steps while it is in the processor's cache. If only one worker segments,
    it gets the masks of whole chunks to compute; the others load the frames before, and extract events afterwards.

    Parameters
    ----------
    slots
        The slots of the file, in state ``d``.
    count
        Number of frames in the file.
    batch
        Number of frames in a batch.
    workers
        Number of workers.
    is_exclusive
        Whether only one worker segments.
    """

    def __init__(
        self, slots: Sequence[ChunkSlotData], count: int, batch: int, workers: int, *, is_exclusive: bool
    ) -> None:
        self._slots = slots
        self._count = count
        self._batch = batch
        self._is_shared = workers == 1
        self._is_exclusive = is_exclusive
        self._next_chunk = 0

    def next_for(self, worker: int) -> Reserved | None:
        """Reserve the next frames for a worker; None if there are none for it now."""
        if not self._is_exclusive:
            return self._reserve("i", self._batch, "all") or self._begin_chunk("all")
        if worker == SEGMENTING_WORKER:
            found = self._reserve("s", None, "mask")
            if found is not None or not self._is_shared:
                return found
        # loading comes first, so that the segmenting worker never waits
        return (
            self._reserve("i", self._batch, "load")
            or self._begin_chunk("load")
            or self._reserve("m", self._batch, "extract")
        )

    def is_for_packing(self, worker: int) -> bool:
        """Return whether a worker also packs chunks of the result."""
        return not self._is_exclusive or self._is_shared or worker != SEGMENTING_WORKER

    def finish(self, task: FramesTask) -> None:
        """Release frames for which a step is done, and move on the slot after the last of them."""
        slot = self._slots[task.slot_index]
        slot.release_task_lock(task.start, task.stop)
        if slot.get_progress() == 1:
            slot.state = AFTER[task.step]

    def take_back(self, task: FramesTask) -> None:
        """Release the frames of a task that was not done."""
        self._slots[task.slot_index].release_task_lock(task.start, task.stop, task_done=False)

    def _reserve(self, state: str, batch: int | None, step: Step) -> Reserved | None:
        """Reserve frames in the slot with the lowest chunk that is in a state and has frames left."""
        for slot_index, slot in sorted(enumerate(self._slots), key=lambda item: item[1].chunk):
            start, stop = slot.acquire_task_lock(state, batch)
            if stop > start:
                return Reserved(slot_index, start, stop, step)
        return None

    def _begin_chunk(self, step: Step) -> Reserved | None:
        """Assign the next chunk to a free slot, and reserve its first batch."""
        if self._next_chunk * self._slots[0].shape[0] >= self._count:
            return None
        for slot_index, slot in enumerate(self._slots):
            if slot.state == "d":
                slot.chunk = self._next_chunk
                slot.length = min(slot.shape[0], self._count - slot.chunk * slot.shape[0])
                slot.state = "i"
                self._next_chunk += 1
                return Reserved(slot_index, *slot.acquire_task_lock("i", self._batch), step)
        return None
