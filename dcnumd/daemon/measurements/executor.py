"""The interface through which the daemon runs jobs: a `concurrent.futures.Executor` and the control of its jobs.

The daemon submits a job with ``loop.run_in_executor(executor.pool, run_job, job)`` and does not depend on how the
executor runs it. `dcnumd.daemon.workers.make_executor` chooses between `LocalExecutor` and the executor of a cluster;
tests use one that runs jobs in a thread.
"""

from __future__ import annotations

import concurrent.futures
from typing import Protocol

from dcnumd.config.values import Settings
from dcnumd.logic.job import Job
from dcnumd.status import Cluster

NO_ATTEMPT = frozenset({"executor_unreachable", "worker_ended", "worker_unfit"})
"""Reasons of errors that say nothing about a job: it is queued again, and no attempt is counted."""


class JobExecutor(Protocol):
    """Interface of an executor of jobs."""

    pool: concurrent.futures.Executor
    """Executor to which jobs are submitted as ``submit(run_job, job)``."""
    local: bool
    """Whether jobs run on this computer at once; otherwise they may have to wait for another computer."""

    @property
    def capacity(self) -> int:
        """Number of jobs that can run at the same time now."""

    @property
    def cluster(self) -> Cluster | None:
        """State of the cluster that runs the jobs; None if they run on this computer."""

    @property
    def alive(self) -> bool:
        """Whether the executor is able to run a job now."""

    @property
    def losses(self) -> int:
        """Number of processes of the executor that have died unexpectedly."""

    async def start(self) -> None:
        """Start the executor; do nothing if it is running already.

        Raises
        ------
        ConfigError
            If a configured method does not exist or does not accept its keywords.
        WorkerError
            If the executor cannot start; the error is transient if another attempt may succeed.
        """

    def load(self, settings: Settings) -> None:
        """Load what jobs with new settings need, before the next job; errors are left to the jobs."""

    async def wait_until_lost(self) -> None:
        """Wait until the executor has to be started again."""

    def explain(self, error: BaseException, job: Job) -> BaseException:
        """Return the error to report for a job that failed with `error`: a more specific one, or `error` itself."""

    def hold(self) -> None:
        """Suspend all jobs."""

    def resume(self) -> None:
        """Resume all jobs."""

    def ask_to_stop(self, job: Job) -> None:
        """Ask a job to end with `JobCancelledError`."""

    def terminate(self, job: Job) -> None:
        """End a job that does not react to `ask_to_stop`, with a moment to clean up."""

    def kill(self, job: Job) -> None:
        """End a job immediately."""

    async def close(self, seconds: float) -> None:
        """End the executor; kill its processes if they have not ended after `seconds` [s]."""
