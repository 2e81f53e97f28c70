"""Results that are prepared while their measurements settle, and published when these count as complete.

A prepared result is complete, verified and on the disk, but has only its temporary name, which is locked. If this
process is killed, that file is a leftover like any other; see `dcnumd.write.result`.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
from collections.abc import Callable

from dcnumd.errors import ResultError
from dcnumd.logic.job import Job, JobResult, Progress
from dcnumd.logic.job_line import JobLine, never
from dcnumd.logic.origin import Input
from dcnumd.logic.plan import open_plan
from dcnumd.logic.process import RunLog, compute, with_times
from dcnumd.logic.reuse import is_processed, verify
from dcnumd.logic.timing import PIPELINE, StageClock, StageTimes
from dcnumd.write.result import ResultFile


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """A result that waits until its measurement counts as complete."""

    job: Job
    source: Input
    result: ResultFile
    times: StageTimes
    done: JobResult
    """The outcome of the job if the result is published."""

    def is_for(self, job: Job) -> bool:
        """Return whether a job would make this result, from files that have not changed since."""
        one, other = (dataclasses.replace(job, known=None, spool=None) for job in (job, self.job))
        return one == other and job.known is not None and self.source.is_still(job.known) and self.result.is_intact()


_prepared: dict[str, tuple[Prepared, contextlib.ExitStack]] = {}
"""Prepared results by the identifiers of their jobs; closing the stack removes the temporary file."""


def prepare_measurement(
    job: Job, *, on_progress: Callable[[Progress], None] | None = None, cancel: Callable[[], bool] = never
) -> JobResult:
    """Compute the result of a job and keep it without publishing it.

    Parameters
    ----------
    job
        The job.
    on_progress, cancel
        As for `dcnumd.logic.process.process_measurement`.

    Returns
    -------
    outcome
        The outcome; skipped if there is nothing to prepare: a file is in the place of the result (``output_exists``),
        or the result would be a copy of the input (``already_processed``).

    Raises
    ------
    DcnumdError
        The measurement could not be processed, or has changed; nothing remains.
    """
    discard(job.job_id)
    source, line = Input(job), JobLine(job.job_id, on_progress, cancel)
    with contextlib.ExitStack() as stack, RunLog() as log, open_plan(job) as plan:
        line.frames = plan.count
        reason = "output_exists" if os.path.lexists(job.path_out) else "already_processed" if is_processed(plan) else ""
        if reason:
            identifier = plan.pipeline_id
            return JobResult("skipped", reason, job.path_in, job.path_out, str(identifier), identifier.hash)
        source.identify(plan)
        times = StageTimes()
        result = stack.enter_context(
            # Whatever appears in the place of the result until it is published is left to the usual job.
            ResultFile(job.path_out, existing="fail", job_id=job.job_id, root=job.result_root)
        )
        done = compute(plan, log, source, result, times, line)
        with times.stage("publish"):
            verify(result, plan, done.events)
            result.flush()
        result.scratch.unlink(missing_ok=True)
        source.check()
        done = dataclasses.replace(with_times(done, times, log.seconds), early=True)
        _prepared[job.job_id] = Prepared(job, source, result, times, done), stack.pop_all()
    return done


def publish_prepared(job: Job) -> JobResult | None:
    """Publish the prepared result of a job, and return its outcome; None if there is none that is still right.

    Raises
    ------
    ResultError
        The result cannot be written to its place; it is removed.
    """
    prepared, stack = _prepared.pop(job.job_id, (None, contextlib.ExitStack()))
    with stack:
        if prepared is None or not prepared.is_for(job):
            return None
        clock = StageClock()
        try:
            prepared.result.commit()
        except ResultError as error:
            if error.reason != "output_exists":
                raise
            return None
        clock.tick("publish")
        prepared.times.add(PIPELINE, clock.spans)
        ((_, begin, end),) = clock.spans
        return with_times(prepared.done, prepared.times, prepared.done.seconds + end - begin)


def discard(job_id: str) -> bool:
    """Remove the prepared result of a job; return whether there was one."""
    _, stack = _prepared.pop(job_id, (None, None))
    if stack is None:
        return False
    stack.close()
    return True


def _discard_all() -> None:
    for job_id in list(_prepared):
        discard(job_id)


atexit.register(_discard_all)
