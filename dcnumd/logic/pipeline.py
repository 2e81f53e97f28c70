"""Slots, staging memory and workers that are kept from file to file."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Self

from dcnumd.errors import WorkerError
from dcnumd.feat.feat_background.bg_roll_median import RollingMedianSource
from dcnumd.feat.feat_background.time_axis import DEFAULT_FRAME_RATE, frame_rate
from dcnumd.logic.background import PreparedBackground
from dcnumd.logic.job import PipelineSettings, SegmenterSpec
from dcnumd.logic.memory import (
    BATCH_FRAMES,
    BATCHES_PER_WORKER,
    FEW_UNITS,
    UNITS_PER_SLOT,
    Layout,
    Workload,
    aligned,
    fitting_layout,
    slot_count,
    usual_layout,
    workload,
)
from dcnumd.logic.plan import Plan
from dcnumd.logic.segmenter_choice import resolved_kwargs
from dcnumd.logic.slot_register import SlotRegister
from dcnumd.logic.staging import Kind, Staging
from dcnumd.logic.tasks import FileProgram, WarmUpProgram, WarmUpTask
from dcnumd.processes.worker_pool import WorkerPool, time_limit
from dcnumd.segm.methods import get_segmenter
from dcnumd.segm.segmenter_mpo import MPOSegmenter
from dcnumd.segm.session import SegmenterWorker, SegmentProgram
from dcnumd.shared_memory.slot import ChunkSlotData

LOAD_SECONDS = 300.0
"""Time after which loading a model in advance is given up [s]; compiling one may take minutes on a slow computer."""


def _duration(plan: Plan) -> float:
    """Return the approximate duration of a recording [s]."""
    times = plan.data.find("time")
    if times is not None and len(times):
        return float(times[len(times) - 1 :][0] - times[:1][0])
    # the factor accounts for lost frames, as for the background
    return 1.5 * plan.count / float(frame_rate(plan.data) or DEFAULT_FRAME_RATE)


def _workload(plan: Plan, seconds: float) -> Workload:
    return workload(
        dataclasses.replace(plan.job.settings, background_code=plan.background.get_ppid_code()),
        plan.job.basin_strategy,
        plan.frame_shape,
        plan.count,
        plan.frames.frames_per_chunk,
        seconds,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Engagement:
    """A pipeline that is set up for one file."""

    pipeline: Pipeline
    layout: Layout
    """Amount of data that is processed at the same time."""
    segmenter: MPOSegmenter
    """The segmenter of the file, with the workers of the pipeline."""

    @contextlib.contextmanager
    def running(self, program: FileProgram, slots: Sequence[ChunkSlotData]) -> Iterator[WorkerPool[SegmenterWorker]]:
        """Have the workers run a program in the block; yields the pool that gives them tasks.

        No task is running after the block, because its reply would be taken for one of the next file. The workers have
        closed the file then; they keep the slots, because mapping memory again is slow.
        """
        segmenter, pool = self.segmenter, self.segmenter.pool
        segmenter.program = program
        segmenter.reinitialize_workers(slots)
        for slot in slots:
            slot.state = "d"
        segmenter.mp_active.set()
        try:
            yield pool
        finally:
            try:
                pool.drain()
            except BaseException:
                pool.stop()
                raise
            finally:
                segmenter.mp_active.clear()
            segmenter.program = SegmentProgram()
            segmenter.reinitialize_workers(slots)


class Pipeline:
    """Slots, staging memory and workers, which are created once and used for one file after another.

    Why not start workers for each file? Each measurement would take longer by the time for starting processes and for
    mapping their memory.

    Parameters
    ----------
    num_workers
        Number of worker processes.
    """

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers
        self.register = SlotRegister(slot_count(num_workers))
        self.images = Staging()
        self.scalars = Staging()
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
        return tuple(int(worker.pid or 0) for worker in self._segmenter.pool.workers)

    def start(self) -> None:
        """Start the workers before the first file, and wait until they are ready.

        Raises
        ------
        DcnumdError
            A worker cannot load the kernels.
        """
        self._warm_up(SegmenterSpec("thresh"))

    def load(self, settings: PipelineSettings) -> None:
        """Load the models of a pipeline before a file needs them; they stay in the workers.

        Raises
        ------
        DcnumdError
            A model cannot be loaded, fails, or is not ready after `LOAD_SECONDS`.
        """
        for chosen in settings.segmenters:
            segmenter = get_segmenter(chosen.code)
            if segmenter.file_keywords:
                kwargs = resolved_kwargs(segmenter, chosen.kwargs, settings.model_folders)
                if any(kwargs.get(name) for name in segmenter.file_keywords):
                    self._load(dataclasses.replace(chosen, kwargs=kwargs))

    def _load(self, chosen: SegmenterSpec) -> None:
        try:
            self._warm_up(chosen, time_limit(LOAD_SECONDS, f"segmenter {chosen.code!r}: loading its model"))
        except WorkerError:
            # the workers may still hang in it; a job starts others
            self.close()
            raise

    def _warm_up(self, chosen: SegmenterSpec, look_up: Callable[[], None] = lambda: None) -> None:
        segmenter = self._made(chosen)
        segmenter.program = WarmUpProgram()
        pool = self._take_over(segmenter).pool
        collections.deque(pool.run([WarmUpTask(number) for number in range(self.num_workers)], look_up), maxlen=0)

    def _made(self, chosen: SegmenterSpec) -> MPOSegmenter:
        """Return a segmenter for the workers of this pipeline."""
        segmenter = get_segmenter(chosen.code)(kwargs_mask=chosen.mask_kwargs or None, **chosen.kwargs)
        # also workers that do not segment themselves
        segmenter.num_workers = self.num_workers
        return segmenter

    def engage(self, plan: Plan) -> Engagement:
        """Set up the pipeline for a file, with the workers of the file before.

        Missing workers are started here, so that they are ready when the background is computed.

        Raises
        ------
        WorkerError
            Reason ``memory_limit``, when the file needs more memory than the job may take.
        """
        layout = self._layout(plan)
        return Engagement(self, layout, self._take_over(self._made(plan.job.settings.segmenter)))

    def _take_over(self, segmenter: MPOSegmenter) -> MPOSegmenter:
        if self._segmenter is not None:
            segmenter.take_workers(self._segmenter)
        self._segmenter = segmenter
        segmenter.reinitialize_workers(self.register.slots)
        return segmenter

    def _layout(self, plan: Plan) -> Layout:
        job = plan.job
        if job.max_memory_mb:
            work = _workload(plan, _duration(plan))
            layout = fitting_layout(self.num_workers, work, job.max_memory_mb * 10**6, job.other_memory_mb * 10**6)
        else:
            layout = usual_layout(self.num_workers, _workload(plan, 0.0))
        if job.spool is None or job.basin_strategy != "tap":
            return layout
        # Only the few frames whose events are not known need a slot.
        few = UNITS_PER_SLOT * aligned(BATCH_FRAMES, plan.frames.frames_per_chunk)
        return dataclasses.replace(layout, slot_frames=min(layout.slot_frames, few))

    def prepare(
        self,
        plan: Plan,
        background: PreparedBackground,
        layout: Layout,
        images: Sequence[Kind],
        scalars: Sequence[Kind],
    ) -> list[ChunkSlotData]:
        """Adapt slots and staging units to a file, and return the slots."""
        slots = self.prepare_slots(plan, background, layout)
        self.images.prepare(images, layout.image_units(len(images)))
        self.scalars.prepare(scalars, FEW_UNITS)
        if plan.job.max_memory_mb:
            for kept in (self.register, self.images, self.scalars):
                kept.trim()
        return slots

    def free_slots(self) -> None:
        """Free the memory of the slots, which the next file takes again."""
        self.register.free()

    def prepare_slots(self, plan: Plan, background: PreparedBackground, layout: Layout) -> list[ChunkSlotData]:
        """Adapt the slots to a file, and return them."""
        corrected = background.frames is not None or plan.segmenter.requires_background_correction
        features = ["image_bg"] if corrected else []
        if background.has_offset:
            features.append("bg_off")
        return self.register.prepare((layout.slot_frames, *plan.frame_shape), features)

    def batch_frames(self, plan: Plan, background: PreparedBackground) -> int:
        """Return the number of frames in a batch of a file for which the slots are prepared."""
        at_hand = min(plan.count, sum(slot.shape[0] for slot in self.register.slots))
        frames = min(BATCH_FRAMES, at_hand // (BATCHES_PER_WORKER * self.num_workers))
        if isinstance(background.frames, RollingMedianSource):
            frames = max(frames, background.frames.frames_per_batch)
        # decompressing a chunk twice is better than workers without a task
        least = min(plan.frames.frames_per_chunk, BATCH_FRAMES, at_hand // self.num_workers)
        return aligned(max(frames, least, 1), plan.frames.frames_per_chunk)
