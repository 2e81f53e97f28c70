"""Starting of the executor, until it succeeds, and again whenever it is lost."""

from __future__ import annotations

import asyncio

import structlog

from dcnumd.daemon.measurements.executor import JobExecutor
from dcnumd.errors import DcnumdError

log = structlog.get_logger()


class Starter:
    """Starts an executor; a failed start counts as no measurement's attempt.

    Parameters
    ----------
    executor
        The executor.
    pause_seconds
        Time between two attempts [s].
    """

    def __init__(self, executor: JobExecutor, pause_seconds: float) -> None:
        self._executor = executor
        self._pause_seconds = pause_seconds
        self._busy = asyncio.Lock()

    async def ensure(self) -> None:
        """Start the executor if necessary, until it succeeds."""
        async with self._busy:
            while True:
                try:
                    await self._executor.start()
                except DcnumdError as error:
                    seconds = self._pause_seconds
                    log.warning("worker.failed", role="pipeline", error=error.message, retry_in_seconds=seconds)
                    await asyncio.sleep(seconds)
                else:
                    return

    async def keep_ready(self) -> None:
        """Start the executor again whenever it is lost, even if there is nothing to process."""
        while True:
            await self._executor.wait_until_lost()
            await self.ensure()
