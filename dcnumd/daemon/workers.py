"""The child processes of the daemon: one each for jobs, for inspections of files, for reports, and for recordings."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Callable
from typing import Self

import structlog

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon import logs
from dcnumd.daemon.cluster.dask_executor import DaskExecutor
from dcnumd.daemon.cluster.fallback_executor import FallbackExecutor
from dcnumd.daemon.cluster.report_tasks import RemoteReports, ReportPlaces
from dcnumd.daemon.measurements.backoff import backoff_seconds
from dcnumd.daemon.measurements.executor import JobExecutor
from dcnumd.daemon.measurements.local_executor import LocalExecutor
from dcnumd.daemon.measurements.probe import check_methods
from dcnumd.daemon.measurements.report_process import ReportCalls, ReportProcess
from dcnumd.daemon.recordings.process import LiveProcess
from dcnumd.errors import WorkerError
from dcnumd.logic.job import Progress
from dcnumd.processes.child import Child
from dcnumd.processes.courtesy import Courtesy
from dcnumd.status import Fault

log = structlog.get_logger()

START_SECONDS = 300.0
"""Time limit for the start of the executor [s]; a slow computer compiles the kernels for a minute."""
CLOSE_SECONDS = 2.0
"""Time limit for an idle process to end by itself, before it is killed [s]."""


@dataclasses.dataclass(frozen=True, slots=True)
class Workers:
    """The executor of jobs and the other child processes, which outlive sessions."""

    executor: JobExecutor
    probe: Child
    """Process that inspects files."""
    report: Child
    """Process that makes reports."""
    here: ReportProcess
    """What makes reports in this process; a request may wait for it longer than a session lasts."""
    live: Child | None = None
    """Process that processes measurements while they are recorded; None if the settings do not ask for it."""
    remote: ReportPlaces | None = None
    """The executor, if it has reports made on other computers."""
    ready: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    """Set when the executor has started and has checked the configured methods."""
    failing: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    """Set while the executor cannot be started, and another attempt is pending."""

    @classmethod
    def of(cls, settings: Settings, on_progress: Callable[[Progress], None], on_change: Callable[[], object]) -> Self:
        """Return the workers for these settings, without starting them."""
        configure = functools.partial(logs.configure, settings.log)
        courtesy = Courtesy(settings.resources.nice, settings.resources.cpus)
        probe, report = (Child(name, configure, courtesy) for name in ("probe", "report"))
        live = Child("live", configure, courtesy) if settings.live.enabled else None
        executor = make_executor(settings, configure, on_progress, on_change)
        here = ReportProcess(report, settings.report.plot)
        return cls(executor, probe, report, here, live, None if isinstance(executor, LocalExecutor) else executor)

    def live_process(self, settings: Settings) -> LiveProcess | None:
        """Return what processes recordings in a session; None if the settings do not ask for it."""
        return None if self.live is None else LiveProcess(self.live, settings)

    def report_calls(self, settings: Settings) -> ReportCalls:
        """Return what makes the reports of a session."""
        self.here.use(settings.report.plot)
        return self.here if self.remote is None else RemoteReports(self.here, self.remote)

    @property
    def losses(self) -> int:
        """Number of processes that have died unexpectedly."""
        return self.executor.losses + sum(child.losses for child in self._children())

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
                    if not self.executor.local:
                        # The executor on this computer does so itself.
                        await self.check_methods(settings)
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

    async def check_methods(self, settings: Settings) -> None:
        """Check the configured methods in the process that inspects files.

        Raises
        ------
        ConfigError
            If a method does not exist or does not accept its keywords.
        WorkerError
            If the process cannot be started, or dies twice.
        """
        for pipeline in map(routing.pipeline_settings, settings.groups):
            try:
                await self.probe.call(check_methods, pipeline)
            except WorkerError:
                # The probe may have died because of a file; the second call starts a new one.
                await self.probe.call(check_methods, pipeline)

    def faults(self, *, works: bool) -> tuple[Fault, ...]:
        """Return why no measurement can be processed; empty if they can (`works`), or while the executor starts."""
        cluster = self.executor.cluster
        if self.ready.is_set() and cluster is not None and not cluster.connected and not cluster.fallback:
            return ("executor.unreachable",)
        return () if works and not self.failing.is_set() else ("worker.failed",)

    async def close(self) -> None:
        """End all processes."""
        children = (child.close(CLOSE_SECONDS) for child in self._children())
        await asyncio.gather(self.executor.close(CLOSE_SECONDS), *children)

    def _children(self) -> tuple[Child, ...]:
        return (self.probe, self.report, *([self.live] if self.live is not None else []))


def make_executor(
    settings: Settings,
    configure_logs: Callable[[], object],
    on_progress: Callable[[Progress], None],
    on_change: Callable[[], object],
) -> LocalExecutor | DaskExecutor | FallbackExecutor:
    """Return the executor for these settings.

    Parameters
    ----------
    settings
        All settings.
    configure_logs
        Function that configures logging in a process of the executor; it must be picklable.
    on_progress
        Called with each progress report of a job.
    on_change
        Called when the capacity of the executor, or the state of its cluster, may have changed.
    """
    if settings.executor.kind == "dask" and settings.executor.fallback_minutes:
        return FallbackExecutor(settings, configure_logs, on_progress, on_change)
    if settings.executor.kind == "dask":
        return DaskExecutor(settings, on_progress, on_change)
    return LocalExecutor(settings, configure_logs, on_progress)
