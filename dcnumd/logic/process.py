"""Processing of one measurement, from a job to its result."""

from __future__ import annotations

import atexit
import dataclasses
import datetime as dt
import itertools
import logging
import time
from collections.abc import Callable, Mapping
from typing import Self

import numpy as np

from dcnumd.config.choices import ExistingPolicy
from dcnumd.errors import MeasurementError, ResultError, WorkerError
from dcnumd.kernels.cache import ensure_compiled, note_use
from dcnumd.logic.assemble import write_basins, write_event_count, write_logs, write_metadata
from dcnumd.logic.background import PreparedBackground, prepare_background
from dcnumd.logic.collector import Collector
from dcnumd.logic.columns import Columns
from dcnumd.logic.file_run import FileRun, FileWork
from dcnumd.logic.job import Job, JobResult, PipelineSettings, Progress
from dcnumd.logic.job_line import JobLine, never
from dcnumd.logic.known_events import opened_spool
from dcnumd.logic.origin import Input
from dcnumd.logic.pipeline import Pipeline
from dcnumd.logic.plan import Plan, open_plan
from dcnumd.logic.reuse import copy_processed, is_processed, publish, settle_existing
from dcnumd.logic.staging import Kind
from dcnumd.logic.timing import OnSpan, StageTimes, bottleneck
from dcnumd.processes.processors import physical_cores
from dcnumd.write.packed import PackedDataset, create_packed
from dcnumd.write.result import ResultFile
from dcnumd.write.writer import HDF5Writer, dataset_keywords

logger = logging.getLogger(__name__)


class Engine:
    """Keeps one pipeline with its workers for the lifetime of the process."""

    def __init__(self) -> None:
        self._pipeline: Pipeline | None = None

    def pipeline(self, num_workers: int) -> Pipeline:
        """Return the pipeline; a new one is created only when the number of workers changes."""
        number = num_workers or physical_cores()
        if self._pipeline is None or self._pipeline.num_workers != number:
            self.close()
            # otherwise each worker would compile all missing kernels
            ensure_compiled(logger.info)
            self._pipeline = Pipeline(number)
        note_use()
        return self._pipeline

    def start(self, num_workers: int) -> None:
        """Start the workers before the first file."""
        self.pipeline(num_workers).start()

    def load(self, num_workers: int, settings: PipelineSettings) -> None:
        """Load the models of a pipeline before a file needs them."""
        self.pipeline(num_workers).load(settings)

    def free_slots(self) -> None:
        """Free memory that the next file takes again."""
        if self._pipeline is not None:
            self._pipeline.free_slots()

    def close(self) -> None:
        """Stop the workers."""
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None


engine = Engine()
atexit.register(engine.close)


class RunLog(logging.Handler):
    """The log lines of one run for its result, including warnings that modules of dcnumd log meanwhile."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.started = dt.datetime.now(tz=dt.UTC)
        self.begin = time.perf_counter()
        self.lines: list[str] = []

    def add(self, line: str, level: str = "INFO") -> None:
        """Append a line with the time of day (UTC)."""
        now = dt.datetime.now(tz=dt.UTC)
        self.lines.append(f"{now:%H:%M:%S} {level} {line}")

    def info(self, line: str) -> None:
        """Append a line, as a logger does."""
        self.add(line)

    def emit(self, record: logging.LogRecord) -> None:
        """Append a log record of a module."""
        self.add(record.getMessage(), record.levelname)

    def __enter__(self) -> Self:
        logging.getLogger("dcnumd").addHandler(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        logging.getLogger("dcnumd").removeHandler(self)

    @property
    def stamp(self) -> str:
        """Start of the run, for names of logs."""
        return f"{self.started:%Y-%m-%d-%H.%M.%S}"

    @property
    def seconds(self) -> float:
        """Duration until now [s]."""
        return time.perf_counter() - self.begin


def process_measurement(
    job: Job,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_span: OnSpan | None = None,
    cancel: Callable[[], bool] = never,
) -> JobResult:
    """Process one measurement.

    The result appears under its final name only when it is complete, verified and on disk.

    Parameters
    ----------
    job
        The job.
    on_progress
        Called with the progress while the job runs.
    on_span
        Called with each span of work, for timing diagrams: see `timing.OnSpan`.
    cancel
        Called several times per second; when it returns True, the job is cancelled.

    Returns
    -------
    result
        The outcome of the job.

    Raises
    ------
    DcnumdError
        The measurement could not be processed; no part of the result remains.
    """
    line = JobLine(job.job_id, on_progress, cancel)
    source = Input(job)
    try:
        return _process(job, line, source, on_span)
    except (MeasurementError, WorkerError):
        # the cause may be a program that modifies or removes the file, which is another error
        source.check()
        raise


def _process(job: Job, line: JobLine, source: Input, on_span: OnSpan | None) -> JobResult:
    with RunLog() as log, open_plan(job) as plan:
        line.frames = plan.count
        origin = source.identify(plan)
        existing = settle_existing(plan, origin)
        if isinstance(existing, JobResult):
            return existing
        try:
            if is_processed(plan):
                return copy_processed(plan, source, existing, line)
            return _make(plan, log, source, existing, StageTimes(on_span), line)
        except ResultError as error:
            if error.reason != "output_exists":
                raise
            # another process has written a file there meanwhile, perhaps the same result
            existing = settle_existing(plan, origin)
            if isinstance(existing, JobResult):
                return existing
            raise


def _make(
    plan: Plan, log: RunLog, source: Input, existing: ExistingPolicy, times: StageTimes, line: JobLine
) -> JobResult:
    job = plan.job
    with ResultFile(job.path_out, existing=existing, job_id=job.job_id, root=job.result_root) as result:
        done = compute(plan, log, source, result, times, line)
        with times.stage("publish"):
            publish(result, plan, done.events, source, existing)
    return with_times(done, times, log.seconds)


def compute(plan: Plan, log: RunLog, source: Input, result: ResultFile, times: StageTimes, line: JobLine) -> JobResult:
    """Compute the result of a measurement in the temporary file of `result`, which is closed then.

    Parameters
    ----------
    plan
        The job and its open input.
    log
        Log of the run, which becomes part of the result.
    source
        The input of the job.
    result
        The result; it is not published.
    times
        Receives the duration of each stage.
    line
        Receives progress; raises an error when the job is cancelled.

    Returns
    -------
    done
        The outcome of the job, without times.
    """
    job, identifier, origin = plan.job, plan.pipeline_id, source.identify(plan)
    log.add(f"Processing {job.path_in} ({plan.count} frames) with {identifier}")
    pipeline = engine.pipeline(job.num_workers)
    engaged = pipeline.engage(plan)
    engaged.segmenter.log_info(log)
    line.report("background")
    with (
        opened_spool(plan) as spool,
        prepare_background(plan, engaged.segmenter, result.scratch, times, line, spool) as background,
        HDF5Writer(result.temporary, "w", ds_kwds=dataset_keywords(job.compression)) as writer,
    ):
        images = _image_kinds(plan, background)
        known = None
        if spool is not None:
            known = spool.known_events(background, engaged.layout.slot_frames, fetch=len(images) > 1)
        work = FileWork(plan, background, images, Columns(plan, background), known)
        run = FileRun(work, engaged, times, line)
        datasets = _Datasets(work, writer)
        run.execute(datasets.begin)
        events = run.collector.events_done
        with times.stage("finish"):
            line.report("writing", plan.count, events)
            datasets.finish(events)
            write_basins(plan, background, work.columns, writer)
            write_event_count(writer.h5, events)
            origin.write(writer.h5)
            _write_summary(log, plan, run.collector, times.seconds)
            write_logs(plan, origin, writer, log.lines, log.stamp)
    line.report("writing", plan.count, events)
    return JobResult(
        outcome="done",
        reason="",
        path_in=job.path_in,
        path_out=job.path_out,
        ppid=str(identifier),
        pphash=identifier.hash,
        frames=plan.count,
        events=events,
        frames_known=known.frames if known is not None else 0,
        masks_dropped=run.collector.masks_dropped,
        bytes_read=times.bytes_read,
        bytes_written=result.temporary.stat().st_size,
        worker_pids=pipeline.worker_pids,
        interrupted=plan.data.interrupted,
    )


def with_times(done: JobResult, times: StageTimes, seconds: float) -> JobResult:
    """Return the outcome of a job with its duration [s] and those of its stages."""
    return dataclasses.replace(
        done,
        seconds=seconds,
        stages=dict(times.seconds),
        waiting=dict(times.waiting),
        bottleneck=bottleneck(times.seconds, max(1, len(done.worker_pids))),
    )


def _image_kinds(plan: Plan, background: PreparedBackground) -> list[Kind]:
    """Return the features of the result with an image for each event."""
    names = ["mask"]
    if plan.job.basin_strategy == "drain":
        names.append("image")
    if background.frames is not None and background.kept is None:
        names.append("image_bg")
    return [Kind(name, np.dtype(np.uint8), plan.frame_shape) for name in names]


class _Datasets:
    """The datasets of a result, which are created while the workers process the first frames."""

    def __init__(self, work: FileWork, writer: HDF5Writer) -> None:
        self._plan = work.plan
        self._writer = writer
        self._kinds = (work.images, work.columns.kinds)
        self._datasets: list[list[PackedDataset]] = []

    def begin(self) -> list[list[PackedDataset]]:
        """Create the datasets, and write the metadata that are known by now."""
        self._datasets = [
            create_packed(self._writer, [(kind.name, kind.dtype, kind.item_shape) for kind in kinds])
            for kinds in self._kinds
        ]
        write_metadata(self._plan, self._writer.h5)
        return self._datasets

    def finish(self, events: int) -> None:
        """Make sure that all datasets are complete."""
        for dataset in itertools.chain.from_iterable(self._datasets):
            dataset.finish(events)


def _write_summary(log: RunLog, plan: Plan, collector: Collector, seconds: Mapping[str, float]) -> None:
    """Write warnings, totals and timing of a run to its log."""
    # several steps may warn of the same
    for warning in dict.fromkeys(str(warning.message) for warning in plan.recorded):
        log.add(warning, "WARNING")
    log.add(f"Found {collector.events_done} events, dropped {collector.masks_dropped} masks without a contour")
    log.add(f"Run duration: {log.seconds:.3f} s, up to here")
    log.add("Seconds per stage: " + ", ".join(f"{name} {value:.3f}" for name, value in seconds.items()))
