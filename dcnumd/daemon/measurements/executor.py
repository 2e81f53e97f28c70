"""Where jobs run: any `concurrent.futures.Executor`, and beside it what only its owner can do.

The daemon hands a job over by ``loop.run_in_executor(executor.pool, run_job, job)``. It knows nothing of processes and
signals: a cluster takes the place of the local process in `make_executor`, a thread does in tests.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Protocol

from dcnumd.config.values import Settings
from dcnumd.daemon.measurements.local_executor import LocalExecutor
from dcnumd.logic.job import Job, Progress


class JobExecutor(Protocol):
    """What the daemon needs of an executor of jobs."""

    pool: concurrent.futures.Executor
    """Takes jobs: ``submit(run_job, job)``."""
    capacity: int
    """Number of jobs that it takes at the same time."""

    @property
    def alive(self) -> bool:
        """Whether it could run a job now."""

    @property
    def losses(self) -> int:
        """Number of its processes that have died."""

    async def start(self) -> None:
        """Get ready for jobs; nothing if that is so already.

        Raises
        ------
        ConfigError
            A configured method does not exist, or does not take its keywords.
        WorkerError
            It cannot start; transient if another attempt may help.
        """

    async def wait_until_lost(self) -> None:
        """Return when it has to be started again."""

    def explain(self, error: BaseException, job: Job) -> BaseException:
        """Return what an error of the pool means for a job, or the error itself if that is clear."""

    def hold(self) -> None:
        """Have all jobs stand still."""

    def resume(self) -> None:
        """Let them go on."""

    def ask_to_stop(self, job: Job) -> None:
        """Ask a job to end with `JobCancelledError`."""

    def terminate(self, job: Job) -> None:
        """End a job that does not heed that, with a moment to clean up."""

    def kill(self, job: Job) -> None:
        """End a job at once, whatever it does."""

    async def close(self, seconds: float) -> None:
        """End everything: asked first, at once after this time [s]."""


def make_executor(
    settings: Settings, configure_logs: Callable[[], object], on_progress: Callable[[Progress], None]
) -> JobExecutor:
    """Return the executor that the settings ask for: a process on this computer with its workers."""
    return LocalExecutor(settings, configure_logs, on_progress)
