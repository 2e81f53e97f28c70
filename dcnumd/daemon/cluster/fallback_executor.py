"""An executor that runs jobs on a cluster, and on this computer while there has been no worker for long."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import structlog

from dcnumd.config.values import Settings
from dcnumd.daemon.cluster.dask_executor import DaskExecutor
from dcnumd.daemon.measurements.executor import JobExecutor
from dcnumd.daemon.measurements.local_executor import LocalExecutor
from dcnumd.logic.job import Job, Progress
from dcnumd.status import Cluster

log = structlog.get_logger()

CLOSE_SECONDS = 2.0
"""Time limit for the end of the pipeline process when the cluster takes over [s]."""


class FallbackExecutor:
    """Passes jobs to a `DaskExecutor`, or to a `LocalExecutor`, which exists only while the cluster is of no use.

    After ``executor.fallback_minutes`` without a connection or without a worker, jobs run on this computer, one at a
    time, until there is a worker again and the running one has ended. A job that a worker completes
    without a connection does no harm: whichever comes second finds the result of the other.

    Parameters
    ----------
    settings
        Settings of both executors.
    configure_logs
        Function that configures logging in the process on this computer; it must be picklable.
    on_progress
        Called with each progress report of a job.
    on_change
        Called when the place of the jobs, the connection or the number of workers has changed.
    """

    def __init__(
        self,
        settings: Settings,
        configure_logs: Callable[[], object],
        on_progress: Callable[[Progress], None],
        on_change: Callable[[], object],
    ) -> None:
        self.pool: Executor = _Pool(self._submit)
        self.local = False
        """Whether jobs run on this computer now."""
        self._here = LocalExecutor(settings, configure_logs, on_progress)
        self._there = DaskExecutor(settings, on_progress, self._on_cluster_change)
        self.reports = self._there.reports
        """Calls that make reports on the workers."""
        self._seconds = 60 * settings.executor.fallback_minutes
        self._on_change = on_change
        self._running_here: str | None = None
        """ID of the job that runs on this computer."""
        self._timer: asyncio.TimerHandle | None = None
        self._moved = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def capacity(self) -> int:
        """Number of jobs that may run now, where they run now."""
        return self._now.capacity

    @property
    def cluster(self) -> Cluster:
        """The state of the cluster."""
        return dataclasses.replace(self._there.cluster, fallback=self.local)

    @property
    def alive(self) -> bool:
        """Whether jobs can be run where they run now."""
        return self._there.alive and self._now.alive

    @property
    def losses(self) -> int:
        """Number of workers and processes that have died unexpectedly."""
        return self._there.losses + self._here.losses

    async def start(self) -> None:
        """Begin to connect; start the process on this computer only while jobs run here."""
        await self._there.start()
        if self.local:
            await self._here.start()

    def load(self, settings: Settings) -> None:
        """Use new settings for the next jobs."""
        self._there.load(settings)
        self._here.load(settings)

    async def wait_until_lost(self) -> None:
        """Wait until something has to be started, also because jobs run on this computer from now on."""
        while True:
            self._moved.clear()
            if self.local and not self._here.alive:
                return
            places = (self._there, self._here) if self.local else (self._there,)
            lost = [asyncio.create_task(place.wait_until_lost()) for place in places]
            tasks = [*lost, asyncio.create_task(self._moved.wait())]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if any(task.done() for task in lost):
                    return
            finally:
                for task in tasks:
                    task.cancel()

    def explain(self, error: BaseException, job: Job) -> BaseException:
        """Return an error that tells how the process on this computer ended if `error` means that it died."""
        return self._here.explain(error, job)

    def hold(self) -> None:
        """Suspend the job on this computer; jobs elsewhere do not disturb a recording."""
        self._here.hold()

    def resume(self) -> None:
        """Resume the job on this computer."""
        self._here.resume()

    def ask_to_stop(self, job: Job) -> None:
        """Ask a job to stop."""
        self._executor_of(job).ask_to_stop(job)

    def terminate(self, job: Job) -> None:
        """End a job that does not react."""
        self._executor_of(job).terminate(job)

    def kill(self, job: Job) -> None:
        """End a job immediately, or do not wait for it any more."""
        self._executor_of(job).kill(job)

    async def close(self, seconds: float) -> None:
        """Close the connection and end the process on this computer, within `seconds` [s]."""
        self._cancel_timer()
        await asyncio.gather(*self._closing, self._there.close(seconds), self._here.close(seconds))

    @property
    def _now(self) -> JobExecutor:
        return self._here if self.local else self._there

    def _executor_of(self, job: Job) -> JobExecutor:
        return self._here if job.job_id == self._running_here else self._there

    def _submit(self, fn: Callable[..., Any], job: Job) -> Future[Any]:
        if not self.local:
            return self._there.pool.submit(fn, job)
        self._running_here = job.job_id
        answer = self._here.pool.submit(fn, job)
        loop = asyncio.get_running_loop()
        answer.add_done_callback(lambda _: _call_soon(loop, self._end_job_here))
        return answer

    def _end_job_here(self) -> None:
        self._running_here = None
        self._return_to_cluster()

    def _on_cluster_change(self) -> None:
        if self._there.cluster.useful:
            self._cancel_timer()
            self._return_to_cluster()
        elif self._timer is None and not self.local:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._process_here)
        self._on_change()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _process_here(self) -> None:
        self._timer = None
        log.warning("executor.fallback", scheduler=self._there.cluster.scheduler, seconds=self._seconds)
        self._move(local=True)

    def _return_to_cluster(self) -> None:
        """Give jobs to the cluster again, unless it has no worker, or one still runs on this computer."""
        if self.local and self._running_here is None and self._there.cluster.useful:
            log.info("executor.fallback_ended", scheduler=self._there.cluster.scheduler)
            self._move(local=False)
            # The computer has its memory and its processors for recordings again.
            closing = asyncio.get_running_loop().create_task(self._here.close(CLOSE_SECONDS))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _move(self, *, local: bool) -> None:
        self.local = local
        self._moved.set()
        self.reports.on_change()
        self._on_change()


class _Pool(Executor):
    """Submits each job to the pool of the executor that runs jobs now."""

    def __init__(self, submit: Callable[..., Future[Any]]) -> None:
        self._submit = submit

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ARG002 -- jobs only
        """Submit a job, which is the only argument."""
        return self._submit(fn, *args)


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    # The event loop may have been closed before the job ended.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function)
