"""The part of a segmenter that runs in its workers: receiving messages, running tasks, sending replies."""

from __future__ import annotations

import contextlib
import dataclasses
import select
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from dcnumd.errors import DcnumdError, WorkerError
from dcnumd.processes.local_pipe import PipeEnd
from dcnumd.processes.worker_pool import WorkerHandle
from dcnumd.shared_memory.block import BlockHandle, SharedEvent, SharedNumber
from dcnumd.shared_memory.slot import ChunkSlotData

Layouts = list[tuple[BlockHandle, tuple[int, int, int]]]
"""Shared memory and shape of each slot."""


class SharedSegmenter(Protocol):
    """The part of `MPOSegmenter` that workers use, see there.

    Why not the class itself? It starts the workers, so its module imports theirs, which import this one.
    """

    requires_background_correction: ClassVar[bool]
    slot_list: Sequence[ChunkSlotData] | None
    mp_slot_index: SharedNumber
    mp_active: SharedEvent
    mp_num_workers_done: SharedNumber
    mp_shutdown: SharedEvent

    def warm_up(self) -> None:
        """Load what the first frame needs, see `Segmenter.warm_up`."""

    def segment_batch(
        self, images: npt.NDArray[Any], bg_off: npt.NDArray[np.float64] | None = None
    ) -> npt.NDArray[np.bool_]:
        """Return the masks of images, see `MPOSegmenter.segment_batch`."""

    def label_batch(
        self,
        slot: ChunkSlotData,
        start: int,
        stop: int,
        backgrounds: npt.NDArray[np.uint8],
        background_index: npt.NDArray[np.int64],
    ) -> None:
        """Fill a slot's labels from its images, see `MPOSegmenter.label_batch`."""

    def mask_batch(
        self,
        slot: ChunkSlotData,
        start: int,
        stop: int,
        backgrounds: npt.NDArray[np.uint8],
        background_index: npt.NDArray[np.int64],
    ) -> None:
        """Fill a slot's mask from its images, see `MPOSegmenter.mask_batch`."""

    def label_masks(self, slot: ChunkSlotData, start: int, stop: int) -> None:
        """Fill a slot's labels from its mask, see `MPOSegmenter.label_masks`."""


class WorkerSession(Protocol):
    """Runs the tasks of one file in a worker."""

    def run(self, task: Any) -> object:
        """Run one task and return the reply for the parent."""

    def close(self) -> None:
        """Release the resources of the session."""


class SegmenterWorker(WorkerHandle, Protocol):
    """The parent's view of a worker: its segmenter, its slots, and the part of a slot that it processes."""

    segmenter: SharedSegmenter
    slot_list: Sequence[ChunkSlotData] | None
    sl_start: int
    sl_stop: int


class WorkerProgram(Protocol):
    """Picklable recipe for a session, sent to all workers when they are bound to a file."""

    def open(self, segmenter: SharedSegmenter, slot_list: Sequence[ChunkSlotData]) -> WorkerSession:
        """Start a session in the worker."""


@dataclasses.dataclass(frozen=True, slots=True)
class Bind:
    """Message to a worker: the following tasks belong to this file."""

    segmenter: SharedSegmenter
    slot_list: Sequence[ChunkSlotData]
    program: WorkerProgram


def slot_layouts(slot_list: Sequence[ChunkSlotData]) -> Layouts:
    """Return the layouts of slots, in which workers are bound to them; when one differs, they must be bound again."""
    return [(slot.handle, slot.shape) for slot in slot_list]


@dataclasses.dataclass(frozen=True, slots=True)
class SegmentTask:
    """Segment the frames `start` to `stop` of a slot."""

    slot_index: int
    start: int
    stop: int


class SegmentProgram:
    """The default program of workers: fill the mask of a slot from its images."""

    def open(self, segmenter: SharedSegmenter, slot_list: Sequence[ChunkSlotData]) -> SegmentSession:
        """Start a session in the worker."""
        return SegmentSession(segmenter, slot_list)


class SegmentSession:
    """Runs the tasks of `MPOSegmenter.segment_chunk` in a worker."""

    def __init__(self, segmenter: SharedSegmenter, slot_list: Sequence[ChunkSlotData]) -> None:
        self._segmenter = segmenter
        self._slots = slot_list

    def run(self, task: SegmentTask) -> None:
        """Fill the mask of a batch."""
        slot, batch = self._slots[task.slot_index], slice(task.start, task.stop)
        images: npt.NDArray[Any] = slot.image[batch]
        bg_off = None
        if self._segmenter.requires_background_correction:
            if slot.image_corr is None:
                raise WorkerError(f"slot {task.slot_index} has no background-corrected images to segment")
            images = slot.image_corr[batch]
            bg_off = None if slot.bg_off is None else slot.bg_off[batch]
        slot.mask[batch] = self._segmenter.segment_batch(images, bg_off)

    def close(self) -> None:
        """Do nothing: the session has no resources."""


class MessageLoop:
    """Processes the messages of a worker pool.

    Parameters
    ----------
    connection
        The worker's end of the pipe; closed at the end.
    shutdown
        Set to end the loop.
    adopt
        Called with the segmenter and the slots of the following tasks.
    """

    def __init__(
        self,
        connection: PipeEnd,
        shutdown: SharedEvent,
        adopt: Callable[[SharedSegmenter, Sequence[ChunkSlotData]], None],
    ) -> None:
        self._connection = connection
        self._shutdown = shutdown
        self._adopt = adopt
        self._session: WorkerSession | None = None
        self._failure: Exception | None = None

    def run(self) -> None:
        """Process messages until the pipe is closed or the shutdown is set."""
        something = select.poll()
        something.register(self._connection.fileno(), select.POLLIN)
        something.register(self._shutdown.fileno(), select.POLLIN)
        # EOF: the parent closed the pipe or is gone
        with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
            while self._shutdown.fileno() not in dict(something.poll()):
                try:
                    message = self._connection.recv()
                except WorkerError as error:
                    # The message was read too late: its slots do not exist any more. Either the next message brings
                    # other slots, or their owner has ended.
                    self._close()
                    self._failure = error
                    continue
                if isinstance(message, Bind):
                    self._bind(message)
                else:
                    answer = self._answer(message)
                    self._connection.send(answer)
                    if isinstance(answer[1], DcnumdError) and answer[1].reason == "card_lost":
                        # only another process can use the card again; the pool replaces this one
                        break
        self._close()
        self._connection.close()

    def _close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _bind(self, message: Bind) -> None:
        self._close()
        self._adopt(message.segmenter, message.slot_list)
        try:
            self._session, self._failure = message.program.open(message.segmenter, message.slot_list), None
        except Exception as error:  # noqa: BLE001 -- the parent raises it for each task
            self._failure = as_reportable(error)

    def _answer(self, task: object) -> tuple[object, Exception | None]:
        if self._session is None:
            return None, self._failure
        try:
            return self._session.run(task), None
        except Exception as error:  # noqa: BLE001 -- the parent raises it
            return None, as_reportable(error)


def as_reportable(error: Exception) -> Exception:
    """Return an error that can be pickled and that describes the original one."""
    if isinstance(error, DcnumdError):
        return error
    reason = "memory" if isinstance(error, MemoryError) else "worker"
    return WorkerError(f"{type(error).__name__}: {error}", reason, transient=isinstance(error, MemoryError | OSError))
