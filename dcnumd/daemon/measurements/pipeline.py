"""Has the pipeline process do one job at a time: replaces it when it dies, holds it, ends what takes too long."""

from __future__ import annotations

import asyncio
import dataclasses

import structlog

from dcnumd.config.values import Settings
from dcnumd.daemon.measurements.deadline import Deadline
from dcnumd.errors import DcnumdError, JobCancelledError, WorkerError
from dcnumd.logic.calls import run_job
from dcnumd.logic.job import Job, JobResult
from dcnumd.processes.child import Child

log = structlog.get_logger()

STOP_SECONDS = 2.0
"""Time from asking a job to stop to the SIGTERM for its processes [s]."""
TERMINATE_SECONDS = 0.5
"""Time from SIGTERM to SIGKILL [s]."""


class Overseer:
    """Watches over the pipeline process.

    Parameters
    ----------
    settings
        How long a job may take.
    pipeline
        The process.
    recognize
        Results that are there already may be whole although the ledger does not know them.
    """

    def __init__(self, settings: Settings, pipeline: Child, *, recognize: bool) -> None:
        self.pipeline = pipeline
        self.forced = asyncio.Event()
        """Set to end a job at once that was asked to end."""
        self.stopping = False
        """Whether the running job was ended because everything ends."""
        self._settings = settings
        self._recognize = recognize
        self._starting = asyncio.Lock()
        self._deadline: Deadline | None = None
        self._held = False

    async def have_pipeline(self) -> None:
        """Start the pipeline process again if it is gone: a start that fails costs no measurement an attempt."""
        async with self._starting:
            while True:
                try:
                    await self.pipeline.start()
                except DcnumdError as error:
                    seconds = self._settings.retry.backoff_seconds
                    log.warning("worker.failed", role=self.pipeline.name, error=error.message, retry_in_seconds=seconds)
                    await asyncio.sleep(seconds)
                else:
                    return

    async def keep_pipeline(self) -> None:
        """Replace the pipeline process when it dies, also when it has nothing to do."""
        while True:
            await self.pipeline.gone.wait()
            await self.have_pipeline()

    def sign_of_life(self) -> None:
        """Note that the running job goes on."""
        if self._deadline is not None:
            self._deadline.sign_of_life()

    def hold(self) -> None:
        """Stop all working processes where they are; their time stands still."""
        self._held = True
        if self._deadline is not None:
            self._deadline.hold()
            self.pipeline.hold()

    def resume(self) -> None:
        """Let them go on."""
        self._held = False
        self.pipeline.resume()
        if self._deadline is not None:
            self._deadline.resume()

    async def run(self, job: Job, size: int) -> JobResult:
        """Run a job within its time, and end it when this task is cancelled.

        Parameters
        ----------
        job
            What to do.
        size
            Size of the measurement [bytes].

        Raises
        ------
        DcnumdError
            What went wrong; with the reasons ``timeout`` and ``stalled`` if it was ended here.
        JobCancelledError
            If it was ended because this task was cancelled.
        """
        deadline = self._deadline = Deadline(self._settings.resources.job_timeout_seconds, size)
        call = asyncio.create_task(self._call(job), name=f"job {job.job_id}")
        if self._held:
            self.hold()
        try:
            outcome = await deadline.wait(call)
        except asyncio.CancelledError:
            # From here on this task ends by itself, so that the ledger is written whatever happens.
            self.stopping = True
            await self._end(call)
            if _was_killed(call):
                raise JobCancelledError(f"{job.path_in}: stopped") from None
            return call.result()
        finally:
            self._deadline = None
        if outcome != "done":
            await self._end(call)
            if call.exception() is not None:
                seconds, what = deadline.limit_seconds, "not finished after"
                if outcome == "stalled":
                    seconds, what = deadline.stall_seconds, "no progress for"
                message = f"{job.path_in}: {what} {seconds:.0f} s, so it was ended"
                raise WorkerError(message, outcome, transient=True)
        return call.result()

    async def _call(self, job: Job) -> JobResult:
        """Have the pipeline process do a job; what a lost ledger left done is recognized, and not done again."""
        if not self._recognize or job.existing == "skip":
            return await self.pipeline.call(run_job, job)
        result = await self.pipeline.call(run_job, dataclasses.replace(job, existing="skip"))
        return result if result.reason != "output_differs" else await self.pipeline.call(run_job, job)

    async def _end(self, call: asyncio.Task[JobResult]) -> None:
        """End the running job: ask, then SIGTERM, then SIGKILL."""
        self.pipeline.resume()
        self.pipeline.ask_to_stop()
        forced = asyncio.create_task(self.forced.wait(), name="forced stop")
        await asyncio.wait([call, forced], timeout=STOP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not call.done():
            self.pipeline.terminate()
            await asyncio.wait([call], timeout=TERMINATE_SECONDS)
        forced.cancel()
        if not call.done():
            self.pipeline.kill()
            await asyncio.wait([call])


def _was_killed(call: asyncio.Task[JobResult]) -> bool:
    return isinstance(call.exception(), WorkerError)
