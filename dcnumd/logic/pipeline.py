"""The engine: slots and workers that live across files, and the loop that drives them through one."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from dcnumd.errors import JobCancelledError, WorkerError
from dcnumd.logic.background import PreparedBackground
from dcnumd.logic.chunk_slot_data import ChunkSlotData
from dcnumd.logic.collector import Collector
from dcnumd.logic.job import Progress
from dcnumd.logic.plan import Plan
from dcnumd.logic.slot_register import SlotRegister
from dcnumd.logic.staging import Staging
from dcnumd.logic.tasks import FileProgram, FramesReply, FramesTask, PackReply, PackTask
from dcnumd.segm.crew import Crew, Reply, lost_worker_error
from dcnumd.segm.segmenter_mpo import MPOSegmenter, SegmentProgram
from dcnumd.write.packed import PackedDataset
from dcnumd.write.writer import compression_level

SLOT_FRAMES = 1000
"""Frames in a slot, before it is aligned to the chunks of the file."""
SLOT_BYTES = 2**25
"""Bytes of images in a slot, at most, unless a single chunk of the file has more."""
BATCH_FRAMES = 100
"""Frames that a worker takes at a time, before they are aligned to the chunks of the file."""
TASKS_AHEAD = 2
"""Tasks in each worker's pipe, so that it never waits for the parent."""
PROGRESS_SECONDS = 0.2


def aligned(frames: int, chunk: int) -> int:
    """Return the multiple of `chunk` nearest to `frames`, at least one; a far larger chunk is not kept whole."""
    if chunk > 2 * frames:
        return frames
    return max(round(frames / chunk), 1) * chunk


class Pipeline:
    """Slots, staging memory and workers; each is made once and used for file after file.

    Parameters
    ----------
    num_workers
        Number of worker processes.
    """

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers
        self.register = SlotRegister()
        self.staging = Staging(num_workers + 2)
        self._segmenter: MPOSegmenter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers."""
        if self._segmenter is not None:
            self._segmenter.join_workers()
            self._segmenter = None

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Process ids of the workers."""
        if self._segmenter is None:
            return ()
        return tuple(int(worker.pid or 0) for worker in self._segmenter.crew.workers)

    def engage(self, plan: Plan) -> MPOSegmenter:
        """Return the segmenter for a file, with the workers of the one before.

        Workers that are missing are started here, so that they are ready when the background is.
        """
        settings = plan.job.settings
        segmenter = plan.segmenter(
            num_workers=self.num_workers,
            kwargs_mask=settings.mask_kwargs or None,
            **settings.segmenter_kwargs,
        )
        if self._segmenter is not None:
            segmenter.take_workers(self._segmenter)
        self._segmenter = segmenter
        segmenter.reinitialize_workers(self.register.slots)
        return segmenter

    def prepare_slots(self, plan: Plan, background: PreparedBackground) -> list[ChunkSlotData]:
        """Return the slots, fit for a file."""
        height, width = plan.frame_shape
        chunk = plan.frames.frames_per_chunk
        frames = min(SLOT_FRAMES, max(SLOT_BYTES // (height * width), 1))
        length = min(aligned(frames, chunk), plan.count)
        corrected = background.frames is not None or plan.segmenter.requires_background_correction
        features = ["image_bg"] if corrected else []
        if background.has_offset:
            features.append("bg_off")
        return self.register.prepare((length, height, width), features)


class FileRun:
    """The work on one file: hands out batches and chunks to pack, until every frame is committed.

    Parameters
    ----------
    plan, background
        What to do.
    pipeline
        The engine.
    segmenter
        The segmenter that `Pipeline.engage` returned.
    datasets
        For each kind of image in the result, where its packed chunks go.
    on_progress
        Called now and then.
    cancel
        Returns whether the job should stop.
    """

    def __init__(
        self,
        plan: Plan,
        background: PreparedBackground,
        pipeline: Pipeline,
        segmenter: MPOSegmenter,
        datasets: Mapping[str, PackedDataset],
        on_progress: Callable[[Progress], None] | None,
        cancel: Callable[[], bool],
    ) -> None:
        self._plan = plan
        self._background = background
        self._slots = pipeline.prepare_slots(plan, background)
        self._staging = pipeline.staging
        self._segmenter = segmenter
        self._datasets = list(datasets.values())
        self._staging.prepare(list(datasets), (self._datasets[0].chunk_items, *plan.frame_shape))
        self.collector = Collector(self._slots, self._staging, plan.features.names, plan.count)
        self._on_progress = on_progress
        self._cancel = cancel
        self._batch = aligned(BATCH_FRAMES, plan.frames.frames_per_chunk)
        self._next_chunk = 0
        self._to_pack: collections.deque[PackTask] = collections.deque()
        self._suspects: set[Any] = set()
        self._reported = 0.0
        self.seconds: dict[str, float] = collections.defaultdict(float)

    @property
    def _crew(self) -> Crew:
        return self._segmenter.crew

    def execute(self) -> None:
        """Do all the work.

        Raises
        ------
        DcnumdError
            The first error of a worker, two deaths over the same task, or that the job was cancelled.
        """
        self._segmenter.program = self._program()
        self._segmenter.reinitialize_workers(self._slots)
        for slot in self._slots:
            slot.state = "d"
        self._segmenter.mp_active.set()
        try:
            while not (self.collector.finished and self._crew.idle and not self._to_pack):
                self._hand_out()
                if self._crew.idle:
                    # nobody would ever answer; an error is better than waiting for ever
                    raise WorkerError(
                        f"no task is left, but only {self.collector.frames_done} frames are done", "stalled"
                    )
                for reply in self._crew.collect():
                    self._handle(reply)
                self._to_pack.extend(self.collector.advance())
                self._report()
                if self._cancel():
                    raise JobCancelledError("stopped while frames were processed")
        except BaseException:
            self._drain()
            raise
        finally:
            self._segmenter.mp_active.clear()
        self._let_go()

    def _drain(self) -> None:
        """Leave no task of this file behind, to be taken for one of the next."""
        try:
            self._crew.drain()
        except BaseException:
            self._crew.stop()
            raise
        self._let_go()

    def _let_go(self) -> None:
        """Have the workers close the file; they keep the slots, since mapping memory anew is slow."""
        self._segmenter.program = SegmentProgram()
        self._segmenter.reinitialize_workers(self._slots)

    def _program(self) -> FileProgram:
        return FileProgram(
            frames=self._plan.frames,
            background_frames=self._background.frames,
            backgrounds=self._background.images,
            offset_correction=self._background.offset_correction,
            features=self._plan.features,
            gate=self._plan.gate,
            staging=self._staging.layout,
            compression_level=compression_level(self._plan.job.compression),
        )

    def _hand_out(self) -> None:
        """Give tasks to the workers that have the fewest, chunks to pack before frames."""
        while True:
            index = min(range(len(self._crew.workers)), key=self._crew.load)
            if self._crew.load(index) >= TASKS_AHEAD:
                return
            task = self._to_pack.popleft() if self._to_pack else self._next_frames()
            if task is None:
                return
            self._crew.submit(index, task)

    def _next_frames(self) -> FramesTask | None:
        """Reserve the next batch, in the slot with the lowest chunk that has one."""
        for slot_index, slot in sorted(enumerate(self._slots), key=lambda item: item[1].chunk):
            start, stop = slot.acquire_task_lock("i", self._batch)
            if stop > start:
                return self._frames_task(slot_index, slot, start, stop)
        if self._next_chunk * self._slots[0].shape[0] >= self._plan.count:
            return None
        for slot_index, slot in enumerate(self._slots):
            if slot.state == "d":
                slot.chunk = self._next_chunk
                slot.length = min(slot.shape[0], self._plan.count - slot.chunk * slot.shape[0])
                slot.state = "i"
                self._next_chunk += 1
                start, stop = slot.acquire_task_lock("i", self._batch)
                return self._frames_task(slot_index, slot, start, stop)
        return None

    def _frames_task(self, slot_index: int, slot: ChunkSlotData, start: int, stop: int) -> FramesTask:
        first = slot.chunk * slot.shape[0] + start
        frames = slice(first, first + stop - start)
        index, bg_off = self._background.index, self._background.bg_off
        self._segmenter.mp_slot_index.value = slot_index
        return FramesTask(
            slot_index,
            start,
            stop,
            first,
            background_index=None if index is None else index[frames],
            bg_off=None if bg_off is None else bg_off[frames],
        )

    def _handle(self, reply: Reply) -> None:
        if reply.error is not None:
            raise reply.error
        if reply.lost:
            self._take_back(reply)
        elif isinstance(reply.value, PackReply):
            task = reply.task
            data = self._staging.layout.packed(task.unit, task.kind)[: reply.value.size]
            begin = time.perf_counter()
            self._datasets[task.kind].write_chunk(task.chunk, data.data, task.items)
            self._staging.packed(task.unit)
            self.seconds["write"] += time.perf_counter() - begin
            self.seconds["pack"] += reply.value.seconds
        elif isinstance(reply.value, FramesReply):
            task = reply.task
            slot = self._slots[task.slot_index]
            slot.release_task_lock(task.start, task.stop)
            if slot.get_progress() == 1:
                # its batches went through segmentation and extraction one by one
                slot.state = "w"
            for stage, seconds in reply.value.seconds.items():
                self.seconds[stage] += seconds
            self.collector.add(task, reply.value)

    def _take_back(self, reply: Reply) -> None:
        """Let another worker try the task of a dead one, unless that has killed two."""
        if reply.suspect:
            if reply.task in self._suspects:
                raise lost_worker_error(reply.task)
            self._suspects.add(reply.task)
        if isinstance(reply.task, PackTask):
            self._to_pack.appendleft(reply.task)
        else:
            self._slots[reply.task.slot_index].release_task_lock(reply.task.start, reply.task.stop, task_done=False)

    def _report(self) -> None:
        now = time.monotonic()
        if self._on_progress is not None and (now - self._reported >= PROGRESS_SECONDS or self.collector.finished):
            self._reported = now
            self._on_progress(
                Progress(
                    self._plan.job.job_id,
                    "segmentation",
                    self.collector.frames_done,
                    self._plan.count,
                    self.collector.events_done,
                )
            )
