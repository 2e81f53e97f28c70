"""Who does the work for the daemon, each in a process of its own: jobs, looks into files, reports."""

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
"""Time in which the executor must be ready [s]; a slow computer compiles the kernels for a minute."""
CLOSE_SECONDS = 2.0
"""Time in which an idle process must end by itself [s]."""


@dataclasses.dataclass(frozen=True, slots=True)
class Workers:
    """The executor of jobs and two child processes, which outlive sessions."""

    executor: JobExecutor
    probe: Child
    report: Child
    ready: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    """Set when the executor has started, with methods that exist."""

    @classmethod
    def of(cls, settings: Settings, on_progress: Callable[[Progress], None]) -> Self:
        """Return what settings ask for; nothing is started yet."""
        configure = functools.partial(logs.configure, settings.log)
        courtesy = Courtesy(settings.resources.nice, settings.resources.cpus)
        probe, report = (Child(name, configure, courtesy) for name in ("probe", "report"))
        return cls(make_executor(settings, configure, on_progress), probe, report)

    @property
    def losses(self) -> int:
        """Number of processes that have died."""
        return self.executor.losses + self.probe.losses + self.report.losses

    async def start(self, settings: Settings, *, again: bool) -> None:
        """Start the executor, with methods that exist; the others are started when they are needed.

        Parameters
        ----------
        settings
            How long to wait before another attempt.
        again
            Try again after a fault that may pass.

        Raises
        ------
        ConfigError
            A configured method does not exist, or does not take its keywords.
        WorkerError
            It cannot start.
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
                # It was killed, for want of memory perhaps, which may pass.
                pause = backoff_seconds(settings.retry, 1)
                told = {"role": "pipeline", "error": error.message, "retry_in_seconds": round(pause, 1)}
                log.warning("worker.failed", **told)
                await asyncio.sleep(pause)
            else:
                self.ready.set()

    async def close(self) -> None:
        """End all processes."""
        await asyncio.gather(*(one.close(CLOSE_SECONDS) for one in (self.executor, self.probe, self.report)))
