"""The work under one set of settings, with one ledger, until the end, a new config, or a fault of the ledger."""

from __future__ import annotations

import asyncio
import os
import pathlib
from collections.abc import Coroutine
from typing import Any, Protocol

import structlog

from dcnumd.config.values import Settings
from dcnumd.daemon.folders.availability import Availability
from dcnumd.daemon.folders.mounts import Place
from dcnumd.daemon.folders.watch import FolderWatch
from dcnumd.daemon.ledger.records import Entry
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.measurements.counters import Counters
from dcnumd.daemon.measurements.inspector import Inspector
from dcnumd.daemon.measurements.pipeline import Overseer
from dcnumd.daemon.measurements.probe import load
from dcnumd.daemon.measurements.reports import Reporter
from dcnumd.daemon.measurements.runner import JobRunner
from dcnumd.daemon.measurements.settle import Gate
from dcnumd.errors import DcnumdError, WorkerError
from dcnumd.processes.child import Child
from dcnumd.report.request import ReportSummary
from dcnumd.write.result import remove_leftovers

log = structlog.get_logger()


class Listener(Protocol):
    """Who wants to know what happens."""

    def on_ready(self) -> None:
        """Take note, once, that what is there was offered and what comes will be noticed."""

    def on_change(self) -> None:
        """Take note that a job or a report began or ended, or that a file has left the gate."""

    def on_report(self, entry: Entry, summary: ReportSummary) -> None:
        """Take note of a new report."""


class Session:
    """Owns the gate, the queue and the watches of folders; what it knows is in the ledger, so the next one goes on.

    Parameters
    ----------
    settings, ledger
        What to do, and where it is recorded.
    probe, overseer, report
        The processes, which outlive a session.
    pipeline_up
        Set when the pipeline process has started, with methods that exist.
    counters
        Counts what happens, over all sessions.
    listener
        Hears of it.
    once
        Scan once instead of watching.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        probe: Child,
        overseer: Overseer,
        report: Child,
        pipeline_up: asyncio.Event,
        counters: Counters,
        listener: Listener,
        *,
        once: bool,
    ) -> None:
        self._settings = settings
        self.ledger = ledger
        self._probe = probe
        self._overseer = overseer
        self._pipeline_up = pipeline_up
        self._listener = listener
        self._once = once
        availability = Availability(settings, ledger)
        self._inspector = inspector = Inspector(settings, probe)
        self._untidy: asyncio.Queue[pathlib.Path] = asyncio.Queue()
        self.counters = counters
        change, tidy = listener.on_change, self._untidy.put_nowait
        self.reports = Reporter(settings, ledger, availability, report, counters, tidy, listener.on_report, change)
        self.jobs = JobRunner(
            settings, ledger, overseer, inspector, availability, self.reports, counters, tidy, change, once=once
        )
        self.gate = Gate(
            settings, ledger, inspector, availability, self.jobs.enqueue, change, self._on_failure, once=once
        )
        self.folders = [self._watch(folder, group) for group in settings.groups for folder in group.watch.folders]
        self._scanned = asyncio.Event()
        self._finished = asyncio.Event()

    def _on_failure(self, reason: str) -> None:
        self.counters.failed[reason] += 1
        self.reports.note_failure()

    def _watch(self, folder: pathlib.Path, group: Settings) -> FolderWatch:
        name = os.fspath(folder)
        before = Place.from_text(self.ledger.place(name))
        return FolderWatch(
            folder,
            group,
            self.gate.offer,
            before,
            lambda place: self.ledger.remember_place(name, place.to_text()),
            self._settings.trusted_folders(),
        )

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        return self.gate.idle and self.jobs.idle and self.reports.idle

    def look_again(self) -> None:
        """Scan all folders now."""
        for folder in self.folders:
            folder.look_again()

    def finish_up(self) -> None:
        """End when the running job has ended."""
        self.jobs.finish_up()
        if self.jobs.running is None:
            self._finished.set()

    def force(self) -> None:
        """End the running job at once if it was asked to end."""
        self._overseer.forced.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, or until `finish_up` was called and the running job has ended."""
        for entry in self.ledger.recover():
            log.info("job.recovered", job_id=entry.job_id, path=entry.path, ppid=entry.ppid, pphash=entry.pphash)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work, name=name) for name, work in self._work().items()]
            ends = [asyncio.create_task(event.wait()) for event in (stop, self._finished)]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (*ends, *tasks):
                    task.cancel()

    def _work(self) -> dict[str, Coroutine[Any, Any, None]]:
        work: dict[str, Coroutine[Any, Any, None]] = {
            "admit": self.gate.keep_admitting(),
            "settle": self.gate.keep_settling(),
            "results": self.gate.results.keep_looking(),
            "look": self._run_looks(),
            "jobs": self._run_jobs(),
            "outputs": self.jobs.keep_outputs(),
            "ready": self._report_ready(),
            "reports": self.reports.keep_reporting(),
            "tidy": self._keep_tidying(),
        }
        if self._settings.resources.pause_while_acquiring:
            work["courtesy"] = self.jobs.keep_courteous(self.gate)
        if self._once:
            return {**work, "scan": self._scan_once()}
        work["space"] = self.jobs.outputs.keep_measuring()
        for folder in self.folders:
            work[f"watch {folder.folder}"] = folder.keep_watching()
        return work

    async def _run_looks(self) -> None:
        # Methods that do not exist are no measurement's fault. The pipeline alone decides when the daemon is ready,
        # so the probe leaves the processor to it; the first file settles meanwhile.
        await self._pipeline_up.wait()
        try:
            await self._probe.start(load)
        except WorkerError as error:
            log.warning("worker.failed", role=self._probe.name, error=error.message, retry_in_seconds=0)
        await self.gate.keep_looking()

    async def _run_jobs(self) -> None:
        # A start that fails is no measurement's fault and must not cost it an attempt.
        await self._pipeline_up.wait()
        if self._once:
            await self.jobs.keep_running(self.gate)
        else:
            async with asyncio.TaskGroup() as group:
                keeper = group.create_task(self._overseer.keep_pipeline(), name="pipeline")
                try:
                    await self.jobs.keep_running(self.gate)
                finally:
                    keeper.cancel()
        self._finished.set()

    async def _scan_once(self) -> None:
        for folder in self.folders:
            await folder.scan()
        self._scanned.set()

    async def _report_ready(self) -> None:
        """Report that a measurement is noticed and processed from now on: folders are watched, the workers wait."""
        for seen in [self._scanned] if self._once else [folder.ready for folder in self.folders]:
            await seen.wait()
        await self._pipeline_up.wait()
        self._listener.on_ready()
        visible = {folder.folder for folder in self.folders if folder.reachable}
        await self.gate.close_vanished(visible.__contains__)

    async def _keep_tidying(self) -> None:
        """Remove what processes left behind by dying, those of an earlier run first."""
        for folder in self.ledger.untidy():
            self._untidy.put_nowait(pathlib.Path(folder))
        while True:
            await self._tidy(await self._untidy.get())

    async def _tidy(self, folder: pathlib.Path) -> None:
        try:
            removed = await self._inspector.have(os.fspath(folder), remove_leftovers, folder)
        except (OSError, DcnumdError) as error:
            # The folder stays noted, so the next start tries again.
            log.warning("leftover.kept", folder=os.fspath(folder), error=str(error))
            return
        for path in removed:
            log.info("leftover.removed", path=os.fspath(path))
        if self.jobs.running is None and not self.reports.busy:
            self.ledger.note_tidy(os.fspath(folder))
