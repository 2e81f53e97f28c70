"""Segmentation with several persistent worker processes."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt

from dcnumd import fork_server
from dcnumd.errors import DcnumdError, MethodError, WorkerError
from dcnumd.logic.chunk_slot_data import ChunkSlotData
from dcnumd.processors import physical_cores
from dcnumd.segm import labeling
from dcnumd.segm.crew import (
    Bind,
    Crew,
    SharedNumber,
    WorkerHandle,
    WorkerProgram,
    WorkerSession,
)
from dcnumd.segm.segmenter import Segmenter
from dcnumd.shared_memory import BlockHandle, SharedBlock

mp_spawn = fork_server.context
"""Starts the workers: they are forked from a server that has loaded the kernels."""


@dataclasses.dataclass(frozen=True, slots=True)
class SegmentTask:
    """Segment the frames `start` to `stop` of a slot."""

    slot_index: int
    start: int
    stop: int


class SegmentProgram:
    """What workers do by default: fill the mask of a slot from its images."""

    def open(self, segmenter: MPOSegmenter, slot_list: Sequence[ChunkSlotData]) -> SegmentSession:
        """Start a session in the worker."""
        return SegmentSession(segmenter, slot_list)


class SegmentSession:
    """A worker's work for `MPOSegmenter.segment_chunk`."""

    def __init__(self, segmenter: MPOSegmenter, slot_list: Sequence[ChunkSlotData]) -> None:
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
        """Nothing is held."""


class MPOSegmenter(Segmenter, abc.ABC):
    """Segmenter with multiprocessing operation.

    The workers are started once. `reinitialize_workers` binds the living ones to other slots and to this
    segmenter's parameters, and starts only what is missing.

    Parameters
    ----------
    num_workers
        Number of workers (processes) to spawn; None means one for each physical core.
    kwargs_mask
        Keyword arguments for mask post-processing (see `process_labels`).
    debug
        Run threads in this process instead of processes.
    kwargs
        Keyword arguments for `segment_algorithm`, defined in the subclass.
    """

    hardware_processor: ClassVar[str] = "cpu"

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
        self.slot_list: Sequence[ChunkSlotData] | None = None
        self.program: WorkerProgram = SegmentProgram()
        numbers = SharedBlock(4 * 8)
        self.mp_slot_index = SharedNumber(numbers, 0)
        self.mp_active = SharedNumber(numbers, 1)
        self.mp_num_workers_done = SharedNumber(numbers, 2)
        self.mp_shutdown = SharedNumber(numbers, 3)
        self._bound_layouts: list[tuple[BlockHandle, tuple[int, int, int]]] = []
        self._worker_starter: type[MPOSegmenterWorker] | None = None
        self.crew = Crew(self._start_worker)

    @property
    def _workers(self) -> list[WorkerHandle]:
        return self.crew.workers

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
        # workers get the parameters; slots, program and the workers themselves are the parent's business
        state = self.__dict__.copy()
        for name in ("crew", "slot_list", "program", "_worker_starter"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.slot_list = None
        self.program = SegmentProgram()
        self._worker_starter = None
        self.crew = Crew(self._start_worker)

    def _start_worker(self, index: int) -> WorkerHandle:
        kind = MPOSegmenterWorkerThread if self.debug else MPOSegmenterWorkerProcess
        self._worker_starter = kind
        start, stop = self._worker_slice(index, 0)
        worker: WorkerHandle = kind(self, start, stop)
        worker.start()
        return worker

    def _worker_slice(self, index: int, length: int) -> tuple[int, int]:
        return index * length // self.num_workers, (index + 1) * length // self.num_workers

    def take_workers(self, other: MPOSegmenter) -> None:
        """Take over the living workers of another segmenter, which has none afterwards."""
        self.crew, other.crew = other.crew, self.crew
        self.crew.set_starter(self._start_worker)
        other.crew.set_starter(other._start_worker)
        for name in ("mp_slot_index", "mp_active", "mp_num_workers_done", "mp_shutdown"):
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
        self.slot_list = slot_list
        self._bound_layouts = slot_layouts(slot_list)
        self.mp_shutdown.clear()
        self.crew.bind(Bind(self, slot_list, self.program), self.num_workers)

    def join_workers(self) -> None:
        """Ask all workers to stop and join them."""
        self.mp_active.clear()
        self.mp_shutdown.set()
        self.crew.stop()

    def close(self) -> None:
        """Do nothing; subclasses can implement clean-up code here."""

    def segment_batch(
        self, images: npt.NDArray[Any], bg_off: npt.NDArray[np.float64] | None = None
    ) -> npt.NDArray[np.bool_]:
        """Perform batch segmentation of images.

        Parameters
        ----------
        images
            The time-series image data (frame, y, x); background-corrected if the algorithm needs that.
        bg_off
            Background offset (frame,), subtracted from the images before.

        Returns
        -------
        mask
            bool (frame, y, x), after mask post-processing.

        Raises
        ------
        MethodError
            `bg_off` is given, but the segmenter works on raw images.
        """
        if bg_off is not None and not self.requires_background_correction:
            raise MethodError(
                f"segmenter {self.get_ppid_code()!r} does not employ background correction, but got bg_off"
            )
        mask = np.empty(images.shape, np.bool_)
        labels = np.empty(images.shape, np.uint16)
        self._label_images(images, bg_off, mask, labels)
        return np.asarray(labels > 0) if self.mask_postprocessing else mask

    def segment_single(self, image: npt.NDArray[Any], bg_off: float | None = None) -> npt.NDArray[np.bool_]:
        """Return the boolean mask image (y, x) for one input image; see `segment_batch`."""
        offsets = None if bg_off is None else np.array([bg_off], np.float64)
        mask: npt.NDArray[np.bool_] = self.segment_batch(image[np.newaxis], offsets)[0]
        return mask

    def _label_images(
        self,
        images: npt.NDArray[Any],
        bg_off: npt.NDArray[np.float64] | None,
        mask: npt.NDArray[np.bool_],
        labels: npt.NDArray[np.uint16],
    ) -> None:
        """Fill `mask` with the outcome of the algorithm and `labels` with what post-processing makes of it."""
        algorithm = self.segment_algorithm_wrapper()
        for index, image in enumerate(images):
            outcome = np.asarray(algorithm(image if bg_off is None else image - bg_off[index]))
            if outcome.shape not in {image.shape, (1, *image.shape)}:
                raise WorkerError(
                    f"segmenter {self.get_ppid_code()!r} returned an array of shape {outcome.shape} "
                    f"for a frame of shape {image.shape}",
                    "segmenter_output",
                )
            # numbers, also those of labels, count as true unless they are 0
            mask[index] = outcome
        labeling.label_masks(mask, labels)
        if self.mask_postprocessing:
            self._process_labels(labels)

    def _process_labels(self, labels: npt.NDArray[np.uint16]) -> None:
        if type(self).process_labels is Segmenter.process_labels:
            labeling.process_labels(labels, **self.kwargs_mask)
        else:
            for frame in labels:
                frame[...] = self.process_labels(frame, **self.kwargs_mask)

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
            Its image and, if there is one, its bg_off are filled for the batch.
        start, stop
            The batch.
        backgrounds
            Background images, uint8 (image, y, x).
        background_index
            For each frame of the batch, the index of its background image.
        """
        images: npt.NDArray[Any] = slot.image[start:stop]
        bg_off = None
        if self.requires_background_correction:
            corrected = cast("npt.NDArray[np.int16]", slot.image_corr)[start:stop]
            np.subtract(images, backgrounds[background_index], out=corrected, dtype=np.int16)
            images = corrected
            bg_off = None if slot.bg_off is None else slot.bg_off[start:stop]
        self._label_images(images, bg_off, slot.mask[start:stop], slot.labels[start:stop])

    def segment_chunk(self, chunk: int, slot_list: Sequence[ChunkSlotData]) -> npt.NDArray[np.bool_]:
        """Segment the image data of one slot.

        Parameters
        ----------
        chunk
            The data chunk index to perform segmentation on.
        slot_list
            The slots, one of which holds the chunk.

        Returns
        -------
        mask
            The slot's view on the shared boolean mask array, now filled.
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
            self.crew.submit(index, SegmentTask(slot_index, worker.sl_start, worker.sl_stop))
        lost: list[SegmentTask] = []
        try:
            for _ in self.crew.work(lambda: lost.pop() if lost else None, lost.append):
                self.mp_num_workers_done.value += 1
        finally:
            self.crew.drain()
            self.mp_active.clear()
        return slot.mask


def slot_layouts(slot_list: Sequence[ChunkSlotData]) -> list[tuple[BlockHandle, tuple[int, int, int]]]:
    """Return what must be the same for workers to see the slots as they are."""
    return [(slot.handle, slot.shape) for slot in slot_list]


class MPOSegmenterWorker:
    """A worker: takes tasks from its pipe until the pipe is closed.

    Parameters
    ----------
    segmenter
        The segmentation instance.
    sl_start, sl_stop
        Slice of the input array that `MPOSegmenter.segment_chunk` gives to this worker.
    """

    connection: multiprocessing.connection.Connection[Any, Any]
    """The parent's end of the pipe."""
    _worker_end: multiprocessing.connection.Connection[Any, Any]

    def __init__(self, segmenter: MPOSegmenter, sl_start: int, sl_stop: int) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.slot_list = segmenter.slot_list
        self.mp_slot_index = segmenter.mp_slot_index
        self.mp_active = segmenter.mp_active
        self.mp_num_workers_done = segmenter.mp_num_workers_done
        self.mp_shutdown = segmenter.mp_shutdown
        self.sl_start = sl_start
        self.sl_stop = sl_stop

    def run(self) -> None:
        """Work off messages until there are no more."""
        session: WorkerSession | None = None
        failure: Exception | None = None
        # EOF: the parent closed the pipe or is gone
        with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
            while not self.mp_shutdown.is_set():
                message = self._worker_end.recv()
                if isinstance(message, Bind):
                    session, failure = self._bind(session, message)
                elif session is None:
                    self._worker_end.send((None, failure))
                else:
                    self._worker_end.send(self._run_task(session, message))
        if session is not None:
            session.close()
        self._worker_end.close()

    def _bind(self, session: WorkerSession | None, message: Bind) -> tuple[WorkerSession | None, Exception | None]:
        if session is not None:
            session.close()
        self.segmenter, self.slot_list = message.segmenter, message.slot_list
        try:
            return message.program.open(message.segmenter, message.slot_list), None
        except Exception as error:  # noqa: BLE001 -- the parent raises it for each task
            return None, as_reportable(error)

    @staticmethod
    def _run_task(session: WorkerSession, task: object) -> tuple[object, Exception | None]:
        try:
            return session.run(task), None
        except Exception as error:  # noqa: BLE001 -- the parent raises it
            return None, as_reportable(error)


def as_reportable(error: Exception) -> Exception:
    """Return an error that can cross the process border and names what happened."""
    if isinstance(error, DcnumdError):
        return error
    reason = "memory" if isinstance(error, MemoryError) else "worker"
    return WorkerError(f"{type(error).__name__}: {error}", reason, transient=isinstance(error, MemoryError | OSError))


class MPOSegmenterWorkerProcess(MPOSegmenterWorker, mp_spawn.Process):  # type: ignore[name-defined, misc]  # the context's class is made at run time
    """Worker process for CPU-based segmentation; see `MPOSegmenterWorker`."""

    def start(self) -> None:
        """Start the child process, with one thread for numerical libraries."""
        parent_end, self._worker_end = mp_spawn.Pipe()
        try:
            fork_server.start_fork_server()
            self._server_pid = fork_server.server_pid() or 0
            super().start()
        except (OSError, EOFError) as error:
            # the server died at this moment, or there is no memory; a later attempt starts another one
            raise WorkerError(
                f"a worker process cannot be started: {error!r}", "worker_start", transient=True
            ) from error
        self._worker_end.close()
        self.connection = parent_end

    def __getstate__(self) -> dict[str, Any]:
        # the child gets segmenter and slots with the first message, like any later ones
        return {**self.__dict__, "segmenter": None, "slot_list": None}

    def run(self) -> None:
        """Work off messages; an interrupt from the terminal is for the parent to answer."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # To the pipeline, a worker is dead when the server is that it was forked from. It must be so indeed: it
        # shares its slots with the one that replaces it.
        fork_server.die_with(self._server_pid)
        super().run()


class MPOSegmenterWorkerThread(MPOSegmenterWorker, threading.Thread):
    """Worker thread in this process, for debugging; see `MPOSegmenterWorker`."""

    sentinel: int | None = None
    pid: int | None = os.getpid()

    def start(self) -> None:
        """Start the thread."""
        self.connection, self._worker_end = mp_spawn.Pipe()
        self.daemon = True
        super().start()

    def kill(self) -> None:
        """Threads end when their pipe is closed; there is nothing stronger."""
