"""Distribution of the frames of a file: chunks to slots, and batches of them to workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dcnumd.logic.background import PreparedBackground
from dcnumd.logic.tasks import FramesTask, Step
from dcnumd.shared_memory.slot import ChunkSlotData

SEGMENTING_WORKER = 0
"""Index of the worker that segments if only one does."""
AFTER = {"all": "w", "load": "s", "mask": "m", "extract": "w", "fetch": "w"}
"""State of a slot when a step is done for all of its frames."""


class Piece(NamedTuple):
    """Consecutive frames that are processed in one slot."""

    first: int
    stop: int
    known: bool = False
    """Whether their events are known, so that the frames are only loaded."""


def pieces_of(count: int, length: int) -> list[Piece]:
    """Return the pieces of a file of `count` frames, each of `length` frames but the last."""
    return [Piece(first, min(first + length, count)) for first in range(0, count, length)]


class Reserved(NamedTuple):
    """Frames of a slot that are reserved for a task."""

    slot_index: int
    start: int
    stop: int
    step: Step


class SlotTasks:
    """Reserves frames for workers, until all pieces are processed.

    Usually a worker takes a batch through all steps while it is in the processor's cache. If only one worker segments,
    it gets the masks of whole chunks to compute; the others load the frames before, and extract events afterwards.

    Parameters
    ----------
    slots
        The slots of the file, in state ``d``.
    pieces
        The frames to process, in ascending order; the chunk of a slot is the number of its piece.
    batch
        Number of frames in a batch.
    workers
        Number of workers.
    is_exclusive
        Whether only one worker segments.
    """

    def __init__(
        self, slots: Sequence[ChunkSlotData], pieces: Sequence[Piece], batch: int, workers: int, *, is_exclusive: bool
    ) -> None:
        self._slots = slots
        self._pieces = pieces
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

    def task_of(self, reserved: Reserved, background: PreparedBackground) -> FramesTask:
        """Return the task for reserved frames."""
        slot_index, start, stop, step = reserved
        first = self._pieces[self._slots[slot_index].chunk].first + start
        return FramesTask(
            slot_index, start, stop, first, *background.of_frames(slice(first, first + stop - start)), step=step
        )

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
                return Reserved(slot_index, start, stop, self._step(slot, step))
        return None

    def _step(self, slot: ChunkSlotData, step: Step) -> Step:
        return "fetch" if self._pieces[slot.chunk].known else step

    def _begin_chunk(self, step: Step) -> Reserved | None:
        """Assign the next piece to a free slot, and reserve its first batch."""
        if self._next_chunk == len(self._pieces):
            return None
        for slot_index, slot in enumerate(self._slots):
            if slot.state == "d":
                slot.chunk = self._next_chunk
                first, stop, _ = self._pieces[slot.chunk]
                slot.length = stop - first
                slot.state = "i"
                self._next_chunk += 1
                return Reserved(slot_index, *slot.acquire_task_lock("i", self._batch), self._step(slot, step))
        return None
