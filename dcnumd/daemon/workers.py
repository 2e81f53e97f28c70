"""The child processes of the daemon: one each for jobs, for inspections of files, and for reports."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Callable
from typing import Self

import structlog

from dcnumd.config.values import Settings
from dcnumd.daemon import logs
from dcnumd.daemon.measurements.backoff import backoff_seconds
from dcnumd.daemon.measurements.executor import JobExecutor, make_executor
from dcnumd.errors import WorkerError
from dcnumd.logic.job import Progress
from dcnumd.processes.child import Child
from dcnumd.processes.courtesy import Courtesy

log = structlog.get_logger()

START_SECONDS = 300.0
"""Time limit for the start of the executor [s]; a slow computer compiles the kernels for a minute."""
CLOSE_SECONDS = 2.0
"""Time limit for an idle process to end by itself, before it is killed [s]."""


@dataclasses.dataclass(frozen=True, slots=True)
class Workers:
    """The executor of jobs and two child processes, which outlive sessions."""

    executor: JobExecutor
    probe: Child
    """Process that inspects files."""
    report: Child
    """Process that makes reports."""
    ready: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    """Set when the executor has started and has checked the configured methods."""
    failing: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    """Set while the executor cannot be started, and another attempt is pending."""

    @classmethod
    def of(cls, settings: Settings, on_progress: Callable[[Progress], None]) -> Self:
        """Return the workers for these settings, without starting them."""
        configure = functools.partial(logs.configure, settings.log)
        courtesy = Courtesy(settings.resources.nice, settings.resources.cpus)
        probe, report = (Child(name, configure, courtesy) for name in ("probe", "report"))
        return cls(make_executor(settings, configure, on_progress), probe, report)

    @property
    def losses(self) -> int:
        """Number of processes that have died unexpectedly."""
        return self.executor.losses + self.probe.losses + self.report.losses

    async def start(self, settings: Settings, *, again: bool) -> None:
        """Start the executor; the other processes are started on demand.

        Parameters
        ----------
        settings
            Settings with the delay before another attempt.
        again
            Whether to try again after a transient error.

        Raises
        ------
        ConfigError
            If a configured method does not exist or does not accept its keywords.
        WorkerError
            If the executor cannot start.
        """
        while not self.ready.is_set():
            try:
                async with asyncio.timeout(START_SECONDS):
                    await self.executor.start()
            except TimeoutError as error:
                message = f"the pipeline process is not ready after {START_SECONDS:g} s"
                raise WorkerError(message, "worker_start") from error
            except WorkerError as error:
                if not (again and error.transient):
                    raise
                # The process was killed, perhaps because memory ran out; another attempt may succeed.
                pause = backoff_seconds(settings.retry, 1)
                told = {"role": "pipeline", "error": error.message, "retry_in_seconds": round(pause, 1)}
                log.warning("worker.failed", **told)
                self.failing.set()
                await asyncio.sleep(pause)
            else:
                self.failing.clear()
                self.ready.set()

    async def close(self) -> None:
        """End all processes."""
        await asyncio.gather(*(one.close(CLOSE_SECONDS) for one in (self.executor, self.probe, self.report)))
