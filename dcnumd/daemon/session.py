"""A session: the work under one set of settings, with one ledger, until the end, a new config, or a ledger's fault.

What it knows is in the ledger, so the next one goes on from there.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
from collections.abc import Coroutine
from typing import Any, Protocol

import structlog

from dcnumd.config.values import Settings
from dcnumd.daemon.clock import now
from dcnumd.daemon.folders.availability import Availability
from dcnumd.daemon.folders.events import FileEvents
from dcnumd.daemon.folders.places import PlaceMemory
from dcnumd.daemon.folders.watch import FolderWatch
from dcnumd.daemon.ledger.records import Entry, job_log
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.measurements.counters import Counters
from dcnumd.daemon.measurements.inspector import Inspector
from dcnumd.daemon.measurements.lifecycle import Lifecycle
from dcnumd.daemon.measurements.parking import OutputFolders
from dcnumd.daemon.measurements.probe import load
from dcnumd.daemon.measurements.reports import Reporter
from dcnumd.daemon.measurements.results import Results
from dcnumd.daemon.measurements.runner import JobRunner
from dcnumd.daemon.measurements.settle import Settling
from dcnumd.daemon.workers import Workers
from dcnumd.errors import DcnumdError, WorkerError
from dcnumd.logic.job import JobResult
from dcnumd.report.request import ReportSummary
from dcnumd.write.result import remove_leftovers

log = structlog.get_logger()


class Listener(Protocol):
    """Who wants to know what happens."""

    def on_ready(self) -> None:
        """Take note, once, that what is there was offered and what comes will be noticed."""

    def on_change(self) -> None:
        """Take note that a job or a report began or ended, or that a file has settled."""

    def on_report(self, entry: Entry, summary: ReportSummary) -> None:
        """Take note of a new report."""


class Session:
    """Owns what finds, settles, runs and reports measurements, and lets them work at the same time.

    Parameters
    ----------
    settings, ledger
        What to do, and where it is recorded.
    workers
        Who does it.
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
        workers: Workers,
        counters: Counters,
        listener: Listener,
        *,
        once: bool,
    ) -> None:
        self.ledger = ledger
        self.counters = counters
        self._settings = settings
        self._workers = workers
        self._listener = listener
        self._once = once
        self._untidy: asyncio.Queue[pathlib.Path] = asyncio.Queue()
        availability = Availability(settings, ledger)
        tidy = self._untidy.put_nowait
        self._inspector = inspector = Inspector(settings, workers.probe)
        self.lifecycle = Lifecycle(settings, ledger, self)
        self.results = Results(settings, ledger, availability, self.on_change)
        self.settling = Settling(self.lifecycle, inspector, self.results, once=once)
        outputs = OutputFolders(settings, ledger, availability, self.lifecycle.queue)
        self.jobs = JobRunner(self.lifecycle, workers.executor, inspector, outputs, tidy, once=once)
        self.reports = Reporter(settings, ledger, availability, workers.report, self, tidy)
        self._events = FileEvents(courteous=settings.resources.pause_while_acquiring)
        self.folders = [self._watch(folder, group) for group in settings.groups for folder in group.watch.folders]
        self._scanned = asyncio.Event()
        self._finished = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        return self.settling.idle and self.jobs.idle and self.reports.idle

    def look_again(self) -> None:
        """Scan all folders now."""
        for folder in self.folders:
            folder.look_again()

    def finish_up(self) -> None:
        """End when the running jobs have ended."""
        self.jobs.finish_up()
        if not self.jobs.running:
            self._finished.set()

    def force(self) -> None:
        """End jobs at once that were asked to end."""
        self.jobs.forced.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, or until `finish_up` was called and the running jobs have ended."""
        self.lifecycle.recover()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work, name=name) for name, work in self._work().items()]
            ends = [asyncio.create_task(event.wait()) for event in (stop, self._finished)]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (*ends, *tasks):
                    task.cancel()

    def on_change(self) -> None:
        """Have reports give way to jobs, and tell the daemon."""
        self.reports.give_way(idle=bool(self.jobs.running))
        self._listener.on_change()

    def on_failed(self, reason: str) -> None:
        """Count a measurement that failed for good, and have the index tell of it."""
        self.counters.failed[reason] += 1
        self.reports.note_failure()

    def on_skipped(self) -> None:
        """Count a measurement for which there was nothing to do."""
        self.counters.skipped += 1

    def on_done(self, entry: Entry, result: JobResult) -> None:
        """Count a result, and have a report made of it."""
        if result.outcome == "done":
            self.counters.add(result)
        else:
            self.counters.skipped += 1
        self.reports.want(entry)

    def on_report(self, entry: Entry, summary: ReportSummary | None) -> None:
        """Count a report; None if it could not be made."""
        if summary is None:
            self.counters.reports_failed += 1
        else:
            self.counters.reports += 1
            self._listener.on_report(entry, summary)

    def _watch(self, folder: pathlib.Path, group: Settings) -> FolderWatch:
        places, trusted = PlaceMemory(self.ledger), self._settings.trusted_folders()
        return FolderWatch(folder, group, self.settling.offer, places, trusted, self._events)

    def _work(self) -> dict[str, Coroutine[Any, Any, None]]:
        work: dict[str, Coroutine[Any, Any, None]] = {
            "admit": self.settling.keep_admitting(),
            "settle": self.settling.keep_settling(),
            "results": self.results.keep_looking(self.settling.make_again),
            "look": self._run_looks(),
            "jobs": self._run_jobs(),
            "outputs": self.jobs.outputs.keep_looking(),
            "ready": self._report_ready(),
            "reports": self.reports.keep_reporting(),
            "tidy": self._keep_tidying(),
        }
        if self._settings.resources.pause_while_acquiring:
            work["courtesy"] = self.keep_courteous()
        if self._once:
            return {**work, "scan": self._scan_once()}
        work["space"] = self.jobs.outputs.keep_measuring()
        for folder in self.folders:
            work[f"watch {folder.folder}"] = folder.keep_watching()
        return work

    async def keep_courteous(self) -> None:
        """Have jobs and reports stand still while a watched file is being written."""
        tracker = self.lifecycle.tracker
        while True:
            await tracker.written.wait()
            self.jobs.hold()
            self.reports.hold()
            begin, running, written = now(), self.jobs.running, tracker.being_written()
            for entry in running:
                job_log(entry).info("pipeline.held", written=written[0].path if written else "")
            try:
                await tracker.quiet.wait()
            finally:
                self.jobs.resume()
                self.reports.resume()
            for entry in running:
                job_log(entry).info("pipeline.resumed", seconds=round(now() - begin, 1))

    async def _run_looks(self) -> None:
        # Methods that do not exist are no measurement's fault. The executor alone decides when the daemon is ready,
        # so the probe leaves the processor to it; the first file settles meanwhile.
        await self._workers.ready.wait()
        try:
            await self._workers.probe.start(load)
        except WorkerError as error:
            log.warning("worker.failed", role=self._workers.probe.name, error=error.message, retry_in_seconds=0)
        await self.settling.keep_looking()

    async def _run_jobs(self) -> None:
        # A start that fails is no measurement's fault and must not cost it an attempt.
        await self._workers.ready.wait()
        patient = self._settings.resources.pause_while_acquiring
        if self._once:
            await self.jobs.keep_running(patient=patient)
        else:
            async with asyncio.TaskGroup() as group:
                keeper = group.create_task(self.jobs.keep_ready(), name="executor")
                try:
                    await self.jobs.keep_running(patient=patient)
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
        await self._workers.ready.wait()
        self._listener.on_ready()
        await self.settling.close_vanished(frozenset(folder.folder for folder in self.folders if folder.reachable))

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
        if not self.jobs.running and not self.reports.busy:
            self.ledger.note_tidy(os.fspath(folder))
