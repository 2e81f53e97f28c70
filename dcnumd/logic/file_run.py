"""The loop that drives the workers through one file."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Sequence

from dcnumd.errors import WorkerError
from dcnumd.logic.background import PreparedBackground
from dcnumd.logic.collector import Collector
from dcnumd.logic.columns import Columns
from dcnumd.logic.job_line import JobLine
from dcnumd.logic.known_events import KnownEvents
from dcnumd.logic.pipeline import Engagement
from dcnumd.logic.plan import Plan
from dcnumd.logic.slot_tasks import SlotTasks, pieces_of
from dcnumd.logic.staging import Kind, StagingLayout
from dcnumd.logic.tasks import FileProgram, FramesReply, FramesTask, PackReply, PackTask, StepReply
from dcnumd.logic.timing import StageTimes
from dcnumd.processes.worker_pool import Reply
from dcnumd.write.packed import PackedDataset
from dcnumd.write.writer import compression_level

PROGRESS_SECONDS = 0.2
"""Seconds between reports of progress."""


@dataclasses.dataclass(frozen=True)
class FileWork:
    """One file and the contents of its result."""

    plan: Plan
    background: PreparedBackground
    images: Sequence[Kind]
    """The features of the result with an image for each event."""
    columns: Columns
    """The scalar features of the result."""
    known: KnownEvents | None = None
    """Events that need not be computed."""


class FileRun:
    """Processes one file: distributes batches, and chunks to pack, until every frame is committed.

    Parameters
    ----------
    work
        The file.
    engaged
        The pipeline that is set up for it.
    times
        Receives the time of each stage.
    line
        Receives progress; raises an error when the job is cancelled.
    """

    def __init__(self, work: FileWork, engaged: Engagement, times: StageTimes, line: JobLine) -> None:
        plan, columns, pipeline = work.plan, work.columns, engaged.pipeline
        self._plan = plan
        self._background = work.background
        self._slots = pipeline.prepare(plan, work.background, engaged.layout, work.images, columns.kinds)
        self._engaged = engaged
        self._stagings = (pipeline.images, pipeline.scalars)
        self._known = known = work.known
        self.collector = Collector(self._slots, pipeline.images, pipeline.scalars, columns, plan.count, known)
        self._times = times
        self._line = line
        slot_frames = self._slots[0].shape[0]
        self._tasks = SlotTasks(
            self._slots,
            pieces_of(plan.count, slot_frames) if known is None else known.pieces(slot_frames),
            pipeline.batch_frames(plan, work.background) if known is None else known.unit,
            pipeline.num_workers,
            is_exclusive=engaged.segmenter.is_exclusive,
        )
        self._to_pack: collections.deque[PackTask] = collections.deque()
        self._unpacked: dict[tuple[int, int], int] = {}
        self._reported = 0.0

    def execute(self, begin_result: Callable[[], Sequence[Sequence[PackedDataset]]]) -> None:
        """Process the file.

        Parameters
        ----------
        begin_result
            Called when all workers have a task: returns the datasets for images, and those for scalar features.

        Raises
        ------
        DcnumdError
            The first error of a worker; or two workers died during the same task; or the job was cancelled.
        """
        program = file_program(
            self._plan,
            self._background,
            tuple(staging.layout for staging in self._stagings),
            compression_level(self._plan.job.compression),
        )
        with (
            self._engaged.running(program, self._slots) as pool,
            self._times.pool(len(pool.workers), lambda: pool.seconds_waited),
        ):
            pool.hand_out(self._next_task)
            with self._times.stage("begin"):
                datasets = begin_result()
            self._commit()
            for reply in pool.work(self._next_task, self._take_back, self._line.stop_if_asked):
                self._handle(reply, datasets)
        if not self.collector.finished:
            raise WorkerError(f"no task is left, but only {self.collector.frames_done} frames are done", "internal")

    def _next_task(self, worker: int) -> PackTask | FramesTask | None:
        """Return the next task for a worker: packing first, which frees staging units."""
        if self._to_pack and self._tasks.is_for_packing(worker):
            return self._next_packing()
        reserved = self._tasks.next_for(worker)
        if reserved is None:
            return None
        self._engaged.segmenter.mp_slot_index.value = reserved.slot_index
        return self._tasks.task_of(reserved, self._background)

    def _next_packing(self) -> PackTask:
        """Return chunks of one kind: a worker's share of those that wait, since each task takes time by itself."""
        task = self._to_pack.popleft()
        units = list(task.units)
        for _ in range(len(self._to_pack) // self._engaged.pipeline.num_workers):
            following = self._to_pack[0]
            if (following.staging, following.kinds) != (task.staging, task.kinds):
                break
            units += self._to_pack.popleft().units
        return dataclasses.replace(task, units=tuple(units))

    def _handle(self, reply: Reply, datasets: Sequence[Sequence[PackedDataset]]) -> None:
        self._times.add(reply.worker, reply.value.spans)
        if isinstance(reply.value, PackReply):
            with self._times.stage("write"):
                self._write(reply.task, reply.value, datasets[reply.task.staging])
        elif isinstance(reply.value, FramesReply | StepReply):
            self._tasks.finish(reply.task)
            self._times.bytes_read += reply.value.bytes_read
            if isinstance(reply.value, FramesReply):
                self.collector.add(reply.task, reply.value)
            elif self._known is not None and reply.task.step == "fetch":
                self.collector.add(reply.task, self._known.reply_at(reply.task.first))
        self._commit()

    def _commit(self) -> None:
        """Commit the batches that can be committed, and report the progress."""
        with self._times.stage("commit"):
            self.collector.advance()
        self._take_full_units()
        self._report()

    def _write(self, task: PackTask, reply: PackReply, datasets: Sequence[PackedDataset]) -> None:
        """Store packed chunks, and release each unit after the last of its chunks."""
        staging = self._stagings[task.staging]
        for full, sizes in zip(task.units, reply.sizes, strict=True):
            for kind, size in zip(task.kinds, sizes, strict=True):
                packed = staging.buffers[full.unit][kind].packed[:size]
                datasets[kind].write_chunk(full.chunk, packed.data, full.items)
            self._unpacked[task.staging, full.unit] -= len(task.kinds)
            if not self._unpacked[task.staging, full.unit]:
                staging.release(full.unit)

    def _take_full_units(self) -> None:
        """Create tasks for full units: one for each kind of images, one for all scalar features."""
        for number, staging in enumerate(self._stagings):
            kinds = tuple(range(len(staging.layout.kinds)))
            together = [kinds] if number else [(kind,) for kind in kinds]
            while staging.full:
                full = staging.full.popleft()
                self._unpacked[number, full.unit] = len(kinds)
                self._to_pack.extend(PackTask(number, group, (full,)) for group in together)

    def _take_back(self, task: PackTask | FramesTask) -> None:
        """Return the task of a dead worker to the tasks that are left."""
        if isinstance(task, PackTask):
            self._to_pack.appendleft(task)
        else:
            self._tasks.take_back(task)

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._reported >= PROGRESS_SECONDS or self.collector.finished:
            self._reported = now
            self._line.report("segmentation", self.collector.frames_done, self.collector.events_done)


def file_program(
    plan: Plan,
    background: PreparedBackground,
    stagings: tuple[StagingLayout, ...] = (),
    level: int | None = None,
) -> FileProgram:
    """Return what workers need for a file; see `FileProgram` for what does not follow from the file."""
    return FileProgram(
        frames=plan.frames,
        background_frames=background.frames,
        backgrounds=background.images,
        offset_correction=background.offset_correction,
        features=plan.features,
        gate=plan.gate,
        stagings=stagings,
        compression_level=level,
    )
