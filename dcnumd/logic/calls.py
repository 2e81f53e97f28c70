"""Functions that the daemon calls in its pipeline process: warm-up, then one call for each job.

The supervisor imports this module to name the functions, so they import numerical code only when they are called.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import structlog

from dcnumd.errors import DcnumdError, WorkerError
from dcnumd.kernels.cache import ensure_compiled, is_compiled
from dcnumd.logic.job import Job, JobResult, PipelineSettings, Progress
from dcnumd.processes import child_line
from dcnumd.processes.fork_server import start_fork_server

log = structlog.get_logger()

_workers: set[int] = set()
"""Process ids of the workers of the last job."""

PROGRESS_SECONDS = 1.0
"""Smallest time between two reports of progress in one stage [s]."""


def warm_up_ahead() -> None:
    """Start the fork server, which loads the kernels in the background, unless they have to be compiled first."""
    if is_compiled():
        start_fork_server()


def warm_up(num_workers: int) -> None:
    """Load the numerical code and start the workers before the first file needs them.

    Parameters
    ----------
    num_workers
        Number of worker processes; 0 means one for each physical core.
    """
    ensure_compiled(lambda text: log.info("kernels.status", message=text))
    start_fork_server()
    from dcnumd.logic.process import engine  # noqa: PLC0415 -- numerical code, which the supervisor must not load

    engine.start(num_workers)


def load_models(num_workers: int, pipelines: Sequence[PipelineSettings]) -> None:
    """Load the models of pipelines, so that no job has to.

    Parameters
    ----------
    num_workers
        Number of worker processes; 0 means one for each physical core.
    pipelines
        Settings of the pipelines.
    """
    from dcnumd.logic.process import engine  # noqa: PLC0415 -- numerical code, as above

    for settings in pipelines:
        # a job that needs the model reports the error
        with contextlib.suppress(DcnumdError):
            engine.load(num_workers, settings)


def run_job(job: Job) -> JobResult:
    """Process one measurement; in a child of the daemon, report progress and stop when the daemon asks for it.

    If `prepare_job` has prepared its result, this is only published.

    Parameters
    ----------
    job
        The job.

    Raises
    ------
    DcnumdError
        The measurement could not be processed.
    JobCancelledError
        The daemon cancelled the job, or has ended.
    """
    from dcnumd.logic.early import publish_prepared  # noqa: PLC0415 -- numerical code, as above
    from dcnumd.logic.process import process_measurement  # noqa: PLC0415 -- likewise

    with _named(job):
        published = publish_prepared(job)
    return published or _run(process_measurement, job)


def prepare_job(job: Job) -> JobResult:
    """Process one measurement as `run_job` does, but keep its result, without publishing it.

    `run_job` with the same job then publishes it, if nothing has changed; `discard_job` removes it.

    Returns
    -------
    outcome
        The outcome; skipped if there is nothing to prepare, see `dcnumd.logic.early.prepare_measurement`.

    Raises
    ------
    DcnumdError, JobCancelledError
        As for `run_job`; nothing remains.
    """
    from dcnumd.logic.early import prepare_measurement  # noqa: PLC0415 -- numerical code, as above

    return _run(prepare_measurement, job)


def discard_job(job_id: str) -> bool:
    """Remove the result that `prepare_job` has prepared; return whether there was one."""
    from dcnumd.logic.early import discard  # noqa: PLC0415 -- numerical code, as above

    return discard(job_id)


def _named(job: Job) -> AbstractContextManager[object]:
    """Return a context whose log lines name the job."""
    return structlog.contextvars.bound_contextvars(job_id=job.job_id, path=os.fspath(job.path_in))


def _run(process: Callable[..., JobResult], job: Job) -> JobResult:
    line = child_line.current()
    with _named(job):
        try:
            if line is None:
                return process(job)
            result = process(job, on_progress=_rate_limited(line.tell), cancel=line.stop_wanted)
        except MemoryError as error:
            raise WorkerError(f"{job.path_in}: not enough memory", "memory") from error
    if result.worker_pids:
        for pid in set(result.worker_pids) - _workers:
            log.info("worker.started", pid=pid, role="segmenter")
        _workers.clear()
        _workers.update(result.worker_pids)
    return result


def _rate_limited(tell: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """Return a function that reports each new stage at once, and progress in it at most every `PROGRESS_SECONDS`."""
    told_at, stage = 0.0, ""

    def report(progress: Progress) -> None:
        nonlocal told_at, stage
        now = time.monotonic()
        if progress.stage == stage and now - told_at < PROGRESS_SECONDS:
            return
        told_at, stage = now, progress.stage
        # If the daemon has ended, `stop_wanted` ends the job.
        with contextlib.suppress(OSError):
            tell(progress)

    return report
