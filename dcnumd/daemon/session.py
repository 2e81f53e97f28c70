"""A session: the work with one set of settings and one open ledger.

A session ends with the daemon, when the config is reloaded, or after an error of the ledger. All of its state is in the
ledger, from which the next session continues.
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
from dcnumd.daemon.folders.locations import LocationMemory
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
from dcnumd.daemon.recordings.recordings import Recordings
from dcnumd.daemon.workers import Workers
from dcnumd.errors import DcnumdError, WorkerError
from dcnumd.logic.job import JobResult
from dcnumd.report.request import ReportSummary
from dcnumd.status import Cluster
from dcnumd.write.result import has_temporaries, remove_leftovers

log = structlog.get_logger()

TIDY_SECONDS = 20.0
"""Time between two attempts to remove the temporary files of a lost worker of a cluster [s]."""


class Listener(Protocol):
    """Interface of an object that is notified of events in a session."""

    def on_ready(self) -> None:
        """Handle the end of the start-up, once: all folders have been scanned and are watched."""

    def on_change(self) -> None:
        """Handle the start or end of a job or a report, or a file that has settled."""

    def lacks_plot(self) -> bool:
        """Return whether the plot of the last result is to be drawn again."""

    def on_report(self, entry: Entry, summary: ReportSummary) -> None:
        """Handle a result that was rated, or a new report."""


class Session:
    """Creates the parts that find, settle, process and report measurements, and runs them concurrently.

    Parameters
    ----------
    settings
        Settings of the session.
    ledger
        Open ledger in which everything is recorded.
    workers
        Child processes that do the work.
    counters
        Counts over all sessions.
    listener
        Object that is notified of events.
    once
        Whether to scan the folders once instead of watching them.
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
        self.reports = Reporter(settings, ledger, availability, workers.report_calls(settings), self, tidy)
        live = workers.live_process(settings)
        self.recordings = Recordings(settings, self.lifecycle, live, self.reports.process, counters, self.on_change)
        self.lifecycle.tracker.spools = self.recordings
        self._events = FileEvents(courteous=settings.resources.pause_while_acquiring)
        self.folders = [self._watch(folder, group) for group in settings.groups for folder in group.watch.folders]
        self.recordings.shares = lambda: {one.folder for one in self.folders if one.is_share}
        self._probed = asyncio.Event()
        self._scanned = asyncio.Event()
        self._finished = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Whether no work is left for files, jobs and reports."""
        return self.settling.idle and self.jobs.idle and self.reports.idle

    @property
    def cluster(self) -> Cluster | None:
        """State of the cluster that runs the jobs; None if they run on this computer."""
        return self._workers.executor.cluster

    def request_scan(self) -> None:
        """Request a scan of all folders."""
        for folder in self.folders:
            folder.request_scan()

    def pause(self, *, paused: bool) -> None:
        """Start no further jobs, and read no further recordings, if `paused` is set; otherwise do so again."""
        self.jobs.pause(paused=paused)
        self.recordings.paused = paused

    def finish_up(self) -> None:
        """Start no further jobs, and end the session when the running ones have ended."""
        self.jobs.finish_up()
        if not self.jobs.running:
            self._finished.set()

    def force(self) -> None:
        """End at once the jobs that were asked to stop."""
        self.jobs.early.forced.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, or until `finish_up` was called and the running jobs have ended."""
        async with asyncio.TaskGroup() as group:
            # Within the group, so that an error of the ledger is one of the group, like those of the tasks.
            self.lifecycle.recover()
            self._workers.executor.load(self._settings)
            tasks = [group.create_task(work, name=name) for name, work in self._work().items()]
            ends = [asyncio.create_task(event.wait()) for event in (stop, self._finished)]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (*ends, *tasks):
                    task.cancel()

    def on_change(self) -> None:
        """Lower the priority of reports while jobs run on this computer, and notify the daemon."""
        working = bool(self.jobs.running) or self.jobs.early.running is not None
        self.reports.process.give_way(idle=working and self._workers.executor.local)
        self._listener.on_change()

    def on_failed(self, reason: str) -> None:
        """Count a measurement that failed without a further attempt, and update the indexes of reports."""
        self.counters.failed[reason] += 1
        self.reports.indexes.note_failure()

    def on_skipped(self) -> None:
        """Count a measurement for which there was nothing to do."""
        self.counters.skipped += 1

    def on_done(self, entry: Entry, result: JobResult) -> None:
        """Count a result, and request its report."""
        if result.outcome == "done":
            self.counters.add(entry, result)
        else:
            self.counters.skipped += 1
        self.recordings.on_done(entry, result)
        self.reports.want(entry)

    def on_rated(self, entry: Entry, summary: ReportSummary, seconds: float) -> None:
        """Count the time until the result was rated."""
        self.counters.light_latency = self.counters.light_latency.with_one(seconds)
        self._listener.on_report(entry, summary)

    def lacks_plot(self) -> bool:
        """Return whether the plot of the last result is to be drawn again."""
        return self._listener.lacks_plot()

    def on_drawn(self, entry: Entry, summary: ReportSummary) -> None:
        """Show the plot of an earlier result."""
        self._listener.on_report(entry, summary)

    def on_report(self, entry: Entry, summary: ReportSummary | None) -> None:
        """Count a report, or a failed one if `summary` is None."""
        if summary is None:
            self.counters.reports_failed += 1
        else:
            self.counters.lights[summary.light] += 1
            self._listener.on_report(entry, summary)

    def _watch(self, folder: pathlib.Path, group: Settings) -> FolderWatch:
        places, trusted = LocationMemory(self.ledger), self._settings.trusted_folders()
        return FolderWatch(folder, group, self.settling.offer, places, trusted, self._events)

    def _work(self) -> dict[str, Coroutine[Any, Any, None]]:
        work: dict[str, Coroutine[Any, Any, None]] = {
            "admit": self.settling.keep_admitting(),
            "settle": self.settling.keep_settling(),
            "results": self.results.keep_checking(self.settling.make_again),
            "inspect": self._run_inspections(),
            "jobs": self._run_jobs(),
            "early": self._run_early_jobs(),
            "outputs": self.jobs.outputs.keep_checking(),
            "ready": self._report_ready(),
            "reports": self._run_reports(),
            "tidy": self._keep_tidying(),
        }
        if self._settings.resources.pause_while_acquiring:
            work["courtesy"] = self.keep_courteous()
        if self._once:
            self.recordings.clear()
            return {**work, "scan": self._scan_once()}
        work["recordings"] = self._read_recordings()
        work["space"] = self.jobs.outputs.keep_measuring()
        for folder in self.folders:
            work[f"watch {folder.folder}"] = folder.keep_watching()
        return work

    async def keep_courteous(self) -> None:
        """Suspend reports, and jobs on this computer, while a watched file is being written."""
        tracker = self.lifecycle.tracker
        while True:
            await tracker.written.wait()
            # Where jobs run may change until the end of the recording; what was suspended must be resumed.
            patient = self.jobs.patient
            running = self.jobs.running if patient else ()
            if patient:
                self.jobs.hold()
            self.reports.process.hold()
            begin, written = now(), tracker.being_written()
            for entry in running:
                job_log(entry).info("pipeline.held", written=written[0].path if written else "")
            try:
                await tracker.quiet.wait()
            finally:
                if patient:
                    self.jobs.resume()
                self.reports.process.resume()
            for entry in running:
                job_log(entry).info("pipeline.resumed", seconds=round(now() - begin, 1))

    async def _run_inspections(self) -> None:
        # Wait for the executor, which checks the configured methods: a missing one is not the fault of a measurement.
        # The probe starts after it, not at the same time, to leave the processors to it; files settle meanwhile.
        await self._workers.ready.wait()
        try:
            await self._workers.probe.start(load)
        except WorkerError as error:
            log.warning("worker.failed", role=self._workers.probe.name, error=error.message, retry_in_seconds=0)
        self._probed.set()
        await self.settling.keep_inspecting()

    async def _run_reports(self) -> None:
        # The process starts before the first result, but after those that are needed before.
        await self._probed.wait()
        await self.reports.keep_reporting()

    async def _read_recordings(self) -> None:
        # The process starts after those that every measurement needs.
        await self._probed.wait()
        await self.recordings.keep_reading()

    async def _run_jobs(self) -> None:
        # Wait for the executor: its failure to start must not count as an attempt of a measurement.
        await self._workers.ready.wait()
        if self._once:
            await self.jobs.keep_running()
        else:
            async with asyncio.TaskGroup() as group:
                keeper = group.create_task(self.jobs.starter.keep_ready(), name="executor")
                try:
                    await self.jobs.keep_running()
                finally:
                    keeper.cancel()
        self._finished.set()

    async def _run_early_jobs(self) -> None:
        await self._probed.wait()
        await self.jobs.early.keep_starting()

    async def _scan_once(self) -> None:
        for folder in self.folders:
            await folder.scan()
        self._scanned.set()

    async def _report_ready(self) -> None:
        """Notify the listener when the folders are watched and the workers are ready; skip rows of vanished files."""
        for seen in [self._scanned] if self._once else [folder.ready for folder in self.folders]:
            await seen.wait()
        await self._workers.ready.wait()
        self._listener.on_ready()
        await self.settling.close_vanished(frozenset(folder.folder for folder in self.folders if folder.reachable))

    async def _keep_tidying(self) -> None:
        """Remove temporary files that killed processes left behind, beginning with those of an earlier run."""
        for folder in self.ledger.untidy():
            self._untidy.put_nowait(pathlib.Path(folder))
        while True:
            await self._tidy(await self._untidy.get())

    async def _tidy(self, folder: pathlib.Path) -> None:
        try:
            removed = await self._inspector.have(os.fspath(folder), remove_leftovers, folder)
            kept = await self._inspector.have(os.fspath(folder), has_temporaries, folder)
        except (OSError, DcnumdError) as error:
            # The folder stays in the ledger, so that the next start tries again.
            log.warning("leftover.kept", folder=os.fspath(folder), error=str(error))
            return
        for path in removed:
            log.info("leftover.removed", path=os.fspath(path))
        if kept and not self._workers.executor.local:
            # A worker that was lost may still be at work, and may be killed later.
            asyncio.get_running_loop().call_later(TIDY_SECONDS, self._untidy.put_nowait, folder)
        elif not (self.jobs.running or self.jobs.early.busy or self.reports.busy):
            self.ledger.note_tidy(os.fspath(folder))
