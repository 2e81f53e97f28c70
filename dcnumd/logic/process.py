"""From a job to its result: the function that the executor calls, and the engine that it keeps."""

from __future__ import annotations

import atexit
import datetime as dt
import logging
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Self

import h5py

from dcnumd.logic.assemble import verify_result, write_events, write_logs, write_metadata
from dcnumd.logic.background import PreparedBackground, prepare_background
from dcnumd.logic.collector import Collector
from dcnumd.logic.job import Job, JobResult, Progress
from dcnumd.logic.pipeline import FileRun, Pipeline
from dcnumd.logic.plan import Plan, open_plan
from dcnumd.logic.reuse import copy_processed, existing_result, is_processed
from dcnumd.logic.stamp import FileStamp
from dcnumd.write.packed import PackedDataset
from dcnumd.write.result import ResultFile
from dcnumd.write.writer import HDF5Writer, dataset_keywords


def never() -> bool:
    """Return False: the job is not to be cancelled."""
    return False


class Engine:
    """Keeps one pipeline with its workers for as long as the process lives."""

    def __init__(self) -> None:
        self._pipeline: Pipeline | None = None

    def pipeline(self, num_workers: int) -> Pipeline:
        """Return the pipeline, made anew only when the number of workers changes."""
        number = num_workers or physical_cores()
        if self._pipeline is None or self._pipeline.num_workers != number:
            self.close()
            self._pipeline = Pipeline(number)
        return self._pipeline

    def close(self) -> None:
        """Stop the workers."""
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None


engine = Engine()
atexit.register(engine.close)


def physical_cores() -> int:
    """Return the number of physical cores that this process may run on."""
    cores = set()
    allowed = os.sched_getaffinity(0)
    for cpu in allowed:
        siblings = pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text())
        except OSError:
            # containers may hide the topology; then every processor counts
            return len(allowed)
    return len(cores)


class RunLog(logging.Handler):
    """The log lines of one run, as they are stored in its result; also what dcnumd's modules warn of meanwhile."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.started = dt.datetime.now(tz=dt.UTC)
        self.begin = time.perf_counter()
        self.lines: list[str] = []

    def add(self, line: str, level: str = "INFO") -> None:
        """Append a line with the time of day (UTC)."""
        now = dt.datetime.now(tz=dt.UTC)
        self.lines.append(f"{now:%H:%M:%S} {level} {line}")

    def emit(self, record: logging.LogRecord) -> None:
        """Append what a module has logged."""
        self.add(record.getMessage(), record.levelname)

    def __enter__(self) -> Self:
        logging.getLogger("dcnumd").addHandler(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        logging.getLogger("dcnumd").removeHandler(self)

    @property
    def stamp(self) -> str:
        """Start of the run as part of a log's name."""
        return f"{self.started:%Y-%m-%d-%H.%M.%S}"

    @property
    def seconds(self) -> float:
        """Duration until now [s]."""
        return time.perf_counter() - self.begin


def process_measurement(
    job: Job,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: Callable[[], bool] = never,
) -> JobResult:
    """Process one measurement.

    The result appears under its final name only when it is complete, verified and on disk.

    Parameters
    ----------
    job
        What to do.
    on_progress
        Called now and then while the job runs.
    cancel
        Asked often; as soon as it returns True the job is given up.

    Returns
    -------
    result
        What was done, or why nothing was to be done.

    Raises
    ------
    DcnumdError
        What went wrong; nothing is left of the result then.
    """
    before = FileStamp.of(job.path_in)
    with RunLog() as log, open_plan(job) as plan:
        skipped = existing_result(job, plan.pipeline_id)
        if skipped is not None:
            return skipped
        if is_processed(plan):
            return copy_processed(plan, before)
        return _compute(plan, log, before, on_progress, cancel)


def _compute(
    plan: Plan,
    log: RunLog,
    before: FileStamp,
    on_progress: Callable[[Progress], None] | None,
    cancel: Callable[[], bool],
) -> JobResult:
    job, identifier = plan.job, plan.pipeline_id
    log.add(f"Processing {job.path_in} ({plan.count} frames) with {identifier}")
    pipeline = engine.pipeline(job.num_workers)
    segmenter = pipeline.engage(plan)
    if on_progress is not None:
        on_progress(Progress(job.job_id, "background", 0, plan.count, 0))
    with ResultFile(job.path_out, existing=job.existing) as result:
        begin = time.perf_counter()
        background = prepare_background(plan, result.scratch, pipeline.num_workers, cancel)
        seconds = {"background": time.perf_counter() - begin}
        with HDF5Writer(result.temporary, "w", ds_kwds=dataset_keywords(job.compression)) as writer:
            datasets = _image_datasets(plan, background, writer)
            run = FileRun(plan, background, pipeline, segmenter, datasets, on_progress, cancel)
            run.execute()
            seconds |= run.seconds
            begin = time.perf_counter()
            for dataset in datasets.values():
                dataset.finish(run.collector.events_done)
            write_events(plan, background, run.collector, writer)
            write_metadata(plan, writer.h5, run.collector.events_done)
            _tell(log, plan, run.collector, seconds)
            write_logs(job, identifier, writer, log.lines, log.stamp)
        _publish(result, plan, run.collector.events_done, before)
        seconds["finish"] = time.perf_counter() - begin
    return JobResult(
        outcome="done",
        reason="",
        path_in=job.path_in,
        path_out=job.path_out,
        ppid=str(identifier),
        pphash=identifier.hash,
        frames=plan.count,
        events=run.collector.events_done,
        masks_dropped=run.collector.masks_dropped,
        seconds=log.seconds,
        stages=seconds,
        worker_pids=pipeline.worker_pids,
    )


def _image_datasets(plan: Plan, background: PreparedBackground, writer: HDF5Writer) -> dict[str, PackedDataset]:
    """Return the datasets for what has an image for each event."""
    kinds = ["mask"]
    if plan.job.basin_strategy == "drain":
        kinds.append("image")
    if background.frames is not None:
        kinds.append("image_bg")
    return {kind: PackedDataset(writer, kind, plan.frame_shape, "uint8") for kind in kinds}


def _tell(log: RunLog, plan: Plan, collector: Collector, seconds: Mapping[str, float]) -> None:
    """Write what a run found to its log."""
    for warning in plan.recorded:
        log.add(str(warning.message), "WARNING")
    log.add(f"Found {collector.events_done} events, dropped {collector.masks_dropped} masks without a contour")
    log.add("Seconds per stage: " + ", ".join(f"{name} {value:.3f}" for name, value in seconds.items()))


def _publish(result: ResultFile, plan: Plan, events: int, before: FileStamp) -> None:
    """Give a closed result its name, if it is what it must be and the input is still what it was."""
    with h5py.File(result.temporary, "r", locking=False) as h5:
        verify_result(h5, plan.pipeline_id, events)
    before.check(plan.job.path_in)
    result.commit()
