"""A job that runs in an executor: its time limits and its termination."""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
from collections.abc import Callable

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.ledger.records import Entry
from dcnumd.daemon.measurements.deadline import Deadline
from dcnumd.daemon.measurements.executor import JobExecutor
from dcnumd.errors import JobCancelledError, WorkerError
from dcnumd.logic.calls import run_job
from dcnumd.logic.job import Job, JobResult, KnownContent
from dcnumd.words import duration

STOP_SECONDS = 2.0
"""Time between asking a job to stop and terminating it [s]."""
TERMINATE_SECONDS = 0.5
"""Time between terminating a job and killing it [s]."""


class RunningJob:
    """Submits a job to an executor and supervises it.

    Parameters
    ----------
    job
        The job.
    executor
        The executor that runs it.
    deadline
        The time limits of the job.
    forced
        Event that, when set, shortens the wait for a job that was asked to stop.
    function
        Function that the executor calls with the job.
    before
        A job whose end is waited for first; the time until then does not count.
    """

    def __init__(
        self,
        job: Job,
        executor: JobExecutor,
        deadline: Deadline,
        forced: asyncio.Event,
        function: Callable[[Job], JobResult] = run_job,
        before: asyncio.Future[JobResult] | None = None,
    ) -> None:
        self.stopped = False
        """Whether the job was ended because this task was cancelled, as when the daemon stops."""
        self._job = job
        self._executor = executor
        self._deadline = deadline
        self._forced = forced
        self._function = function
        self._before = before
        self._call: asyncio.Task[JobResult] | None = None
        self._unwanted = False
        self._waiting = False

    def sign_of_life(self) -> None:
        """Note that the job makes progress."""
        if self._waiting:
            self._waiting = False
            self._deadline.resume()
        self._deadline.sign_of_life()

    def hold(self) -> None:
        """Stop the clock of the time limits while the job is suspended."""
        self._deadline.hold()

    def resume(self) -> None:
        """Start the clock of the time limits again."""
        if not self._waiting:
            self._deadline.resume()

    def ask_to_stop(self) -> None:
        """Ask the job to end with `JobCancelledError`, and leave it the time that it needs."""
        self._unwanted = True
        # Later, this would stop another job.
        if self._call is not None and not self._call.done():
            self._executor.ask_to_stop(self._job)

    async def result(self, *, recognize: bool = False) -> JobResult:
        """Run the job within its time limits, and end it if this task is cancelled.

        Parameters
        ----------
        recognize
            Whether to keep an existing complete result of the same pipeline, although the ledger does not list it.

        Raises
        ------
        DcnumdError
            If the job failed; with the reason ``timeout`` or ``stalled`` if it exceeded a time limit.
        JobCancelledError
            If the job was ended because this task was cancelled.
        """
        if recognize and self._job.existing != "skip":
            found = await self._attempt(dataclasses.replace(self._job, existing="skip"))
            if found.reason != "output_differs":
                return found
        return await self._attempt(self._job)

    async def _attempt(self, job: Job) -> JobResult:
        call = self._call = asyncio.create_task(self._submit(job), name=f"job {job.job_id}")
        try:
            outcome = await self._deadline.wait(call)
        except asyncio.CancelledError:
            # The cancellation is not raised again: the caller still has to record the outcome in the ledger.
            self.stopped = True
            await self._end(call)
            if isinstance(self._error_of(call), WorkerError):
                raise JobCancelledError(f"{job.path_in}: stopped") from None
        else:
            if outcome != "done":
                await self._end(call)
                if call.exception() is not None:
                    raise self._overdue(outcome)
        if (error := self._error_of(call)) is not None:
            raise error
        return call.result()

    async def _submit(self, job: Job) -> JobResult:
        if self._before is not None and not self._before.done():
            self._waiting = True
            self._deadline.hold()
            await asyncio.wait([self._before])
            self.sign_of_life()
        # The executor may have died a moment ago.
        await self._executor.start()
        if self._unwanted:
            raise JobCancelledError(f"{job.path_in}: stopped before it began")
        if not self._executor.local:
            # The job may have to wait for a worker, which says when it begins.
            self._waiting = True
            self._deadline.hold()
        return await asyncio.get_running_loop().run_in_executor(self._executor.pool, self._function, job)

    def _error_of(self, call: asyncio.Task[JobResult]) -> BaseException | None:
        error = call.exception()
        return None if error is None else self._executor.explain(error, self._job)

    def _overdue(self, outcome: str) -> WorkerError:
        seconds, what = self._deadline.limit_seconds, "not finished after"
        if outcome == "stalled":
            seconds, what = self._deadline.stall_seconds, "no progress for"
        return WorkerError(f"{self._job.path_in}: {what} {duration(seconds)}, so it was ended", outcome, transient=True)

    async def _end(self, call: asyncio.Task[JobResult]) -> None:
        """End the job: ask it to stop, then terminate it, then kill it."""
        self._unwanted = True
        self._executor.ask_to_stop(self._job)
        forced = asyncio.create_task(self._forced.wait(), name="forced stop")
        await asyncio.wait([call, forced], timeout=STOP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not call.done():
            self._executor.terminate(self._job)
            await asyncio.wait([call], timeout=TERMINATE_SECONDS)
        forced.cancel()
        if not call.done():
            self._executor.kill(self._job)
            await asyncio.wait([call])


def job_of(settings: Settings, entry: Entry) -> Job:
    """Return the job of a measurement whose content may be known."""
    job = routing.watched_job_for(settings, pathlib.Path(entry.path), entry.job_id)
    known = KnownContent(entry.stamp, entry.digest) if entry.stamp is not None and entry.digest else None
    existing = "replace" if entry.replace_output else job.existing
    return dataclasses.replace(job, known=known, interrupted=bool(entry.interrupted), existing=existing)
