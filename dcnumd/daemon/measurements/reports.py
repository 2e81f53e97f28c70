"""Reports of results: what rates a result comes at once, its whole report when processors are idle."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import os
import pathlib
from collections.abc import Callable
from typing import Protocol

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.clock import now
from dcnumd.daemon.folders.availability import Availability
from dcnumd.daemon.ledger.records import SURROUNDINGS, Entry, State, job_log, utc_now
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.measurements.backoff import backoff_seconds
from dcnumd.daemon.measurements.indexes import Indexes
from dcnumd.daemon.measurements.report_process import ReportCalls
from dcnumd.daemon.measurements.waiting_reports import WaitingReports
from dcnumd.errors import DcnumdError, WorkerError
from dcnumd.report.calls import export_plot, make_report, rate
from dcnumd.report.request import PlotKind, ReportRequest, ReportSummary
from dcnumd.status import Blocked


class Listener(Protocol):
    """Interface of an object that is notified of reports."""

    def on_change(self) -> None:
        """Handle the end of work on a report or an index."""

    def on_rated(self, entry: Entry, summary: ReportSummary, seconds: float) -> None:
        """Handle a rated result, `seconds` [s] after it was finished."""

    def lacks_plot(self) -> bool:
        """Return whether the plot of the last result is to be drawn again."""

    def on_drawn(self, entry: Entry, summary: ReportSummary) -> None:
        """Handle the plot of an earlier result, which was drawn again."""

    def on_report(self, entry: Entry, summary: ReportSummary | None) -> None:
        """Handle a new report; `summary` is None if the report could not be made."""


class Reporter:
    """Rates results, makes their reports, and keeps the indexes of reports up to date.

    Results are rated one after the other, the most recent first. The process that does this has the priority of the
    pipeline, since the traffic light matters most while the next measurement is recorded. Reports are made in a copy of
    it while no result waits to be rated; on a cluster, each worker can make one at a time. While a folder accepts no
    reports, those for it wait, which costs no attempt.

    Parameters
    ----------
    settings
        Settings with the wanted reports and their folders.
    ledger
        Ledger that records which reports are wanted and made.
    availability
        Checks of the folders of reports.
    process
        Process that makes the reports, or what has them made elsewhere.
    listener
        Object that is notified of each report.
    tidy
        Function that schedules the removal of temporary files which a killed process left in a folder.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        availability: Availability,
        process: ReportCalls,
        listener: Listener,
        tidy: Callable[[pathlib.Path], None],
    ) -> None:
        self.process = process
        self.indexes = Indexes(settings, ledger, availability, process.here)
        self._settings = settings
        self._ledger = ledger
        self._listener = listener
        self._tidy = tidy
        self._unrated: dict[int, None] = {}
        """Rows that are not rated, the most recent last."""
        self._waiting: dict[int, int] = {}
        """Rows whose report is wanted, the most recent last: number of the row → number of failed attempts."""
        self._delayed: set[int] = set()
        self._without_place = WaitingReports(self._try_again)
        self._to_rate, self._all_rated, self._to_make = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._all_rated.set()
        self._makers: set[asyncio.Task[None]] = set()
        self._drawing = False

    @property
    def idle(self) -> bool:
        """Whether nothing is pending, in progress or delayed; what waits for a folder is left to the next start."""
        return not (self._waiting or self._delayed or self.busy) and self.indexes.idle

    @property
    def busy(self) -> bool:
        """Whether a result is being rated, or a report or an index written."""
        return bool(self._makers) or self._to_rate.is_set() or self.indexes.busy

    def blocked(self) -> tuple[Blocked, ...]:
        """Return the folders that currently accept no reports, and for which some wait."""
        return self._without_place.blocked()

    def want(self, entry: Entry) -> None:
        """Request the report of a result, if its row says that one is wanted."""
        if entry.report_state != "wanted":
            return
        if not entry.light:
            self._unrated[entry.id] = None
            self._to_rate.set()
            self._all_rated.clear()
        self._waiting.setdefault(entry.id, 0)
        self._to_make.set()

    async def plot(self, entry: Entry, name: str, kind: PlotKind) -> bytes | None:
        """Draw one plot of the report of a result, and return it as the content of a file; None if there is none.

        Raises
        ------
        ValueError
            If it cannot be drawn now; the text says why.
        """
        if not self._settings.report.enabled:
            raise ValueError("Reports are switched off (report.enabled).")
        if self.process.held:
            raise ValueError("A measurement is being recorded; try again afterwards.")
        if self._drawing:
            raise ValueError("Another plot is being drawn; try again.")
        self._drawing = True
        try:
            return await self.process.call_aside(export_plot, self._request(entry)[0], name, kind)
        except DcnumdError as error:
            raise ValueError(error.message) from error
        finally:
            self._drawing = False

    async def keep_reporting(self) -> None:
        """Rate results, make the wanted reports, and update the indexes, until cancelled."""
        if not self._settings.report.enabled:
            return
        await self.process.start()
        for entry in reversed(self._ledger.wanting_reports()):
            self.want(entry)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_rating(), name="lights")
            group.create_task(self._keep_making(), name="reports")
            group.create_task(self._keep_listing(), name="failures")
            group.create_task(self._draw_last(), name="last plot")

    async def _keep_rating(self) -> None:
        while True:
            await self._to_rate.wait()
            while self._unrated:
                await self._rate(self._unrated.popitem()[0])
            self._to_rate.clear()
            self._all_rated.set()
            self._listener.on_change()

    async def _keep_making(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                await self._to_make.wait()
                await self._all_rated.wait()
                if len(self._makers) >= self.process.capacity:
                    await asyncio.wait(self._makers, return_when=asyncio.FIRST_COMPLETED)
                    continue
                maker = group.create_task(self._report(*self._waiting.popitem()), name="report")
                self._makers.add(maker)
                maker.add_done_callback(self._end_making)
                if not self._waiting:
                    self._to_make.clear()

    def _end_making(self, maker: asyncio.Task[None]) -> None:
        self._makers.discard(maker)
        self._listener.on_change()

    async def _keep_listing(self) -> None:
        while True:
            await self.indexes.update_failures()
            self._listener.on_change()

    async def _draw_last(self) -> None:
        """Draw the plot of the last result for the live page if it has none, as after a start of the daemon."""
        if not self._settings.web.listen or not self._listener.lacks_plot():
            return
        entry = next(iter(self._ledger.history(State.DONE, limit=1)), None)
        if entry is None or entry.report_state != "written":
            return
        request = dataclasses.replace(self._request(entry)[0], formats=())
        # The page works without it, for example if the result was moved.
        with contextlib.suppress(DcnumdError):
            self._listener.on_drawn(entry, await self.process.call_aside(rate, request))

    async def _rate(self, entry_id: int) -> None:
        """Rate one result; after an error, which its report will meet again, this is left to the report."""
        if (entry := self._wanted(entry_id)) is None:
            return
        request, folder = self._request(entry)
        try:
            await self.indexes.make_sure(folder, request.path_report)
        except DcnumdError:
            # Nothing can be written there now, but the result can be rated.
            request = dataclasses.replace(request, formats=())
        try:
            summary = await self._rating(request)
        except DcnumdError as error:
            self._tidy_after(error, request)
            return
        if not self._is_present(entry):
            return
        self._ledger.amend(entry.id, light=summary.light, warnings=" ".join(summary.warnings))
        seconds = _seconds_since(entry.finished_at or utc_now())
        job_log(entry).info("report.rated", light=summary.light, warnings=summary.warnings, seconds=round(seconds, 3))
        self._listener.on_rated(entry, summary, seconds)
        if request.formats:
            await self.indexes.add(entry, request, summary)

    async def _rating(self, request: ReportRequest) -> ReportSummary:
        try:
            return await self.process.call(rate, request)
        except WorkerError as error:
            if error.reason != "worker_killed":
                raise
            # This result need not be the reason why the process died.
            return await self.process.call(rate, request)

    async def _report(self, entry_id: int, attempts: int) -> None:
        """Make one report, and record the outcome."""
        # The measurement may be in processing again, so that its previous result needs no report.
        if (entry := self._wanted(entry_id)) is None:
            self._without_place.forget(entry_id)
            return
        request, folder = self._request(entry)
        place, begin = request.path_report.parent, now()
        if self._without_place.join(place, entry.id, attempts):
            return
        try:
            await self.indexes.make_sure(folder, request.path_report)
            summary = await self.process.call_aside(make_report, request)
            listed = await self.indexes.add(entry, request, summary)
        except DcnumdError as error:
            if error.reason not in SURROUNDINGS:
                self._without_place.release(place, entry.id)
                self._give_up(entry, request, error, attempts + 1)
            elif self._without_place.add(place, entry.id, attempts, error):
                self._log_failure(entry, error, attempts + 1, will_retry=True)
            return
        self._without_place.release(place, entry.id)
        if not listed and attempts + 1 < self._settings.retry.attempts:
            self._delay(entry.id, attempts + 1)
        elif self._is_present(entry):
            self._record(entry, summary, now() - begin)

    def _wanted(self, entry_id: int) -> Entry | None:
        """Return a row whose report is to be made; None if none is wanted any more, or the row was forgotten."""
        try:
            entry = self._ledger.get(entry_id)
        except KeyError:
            return None
        return entry if entry.report_state == "wanted" and entry.output is not None else None

    def _is_present(self, entry: Entry) -> bool:
        """Return whether the result of a row is still the present one, or else another one is to be reported."""
        present = self._wanted(entry.id)
        return present is not None and present.finished_at == entry.finished_at

    def _request(self, entry: Entry) -> tuple[ReportRequest, pathlib.Path]:
        """Return the request for the report of a row, and the folder of its index."""
        path = pathlib.Path(entry.path)
        request = routing.report_request_for(self._settings, path, pathlib.Path(entry.output or ""), entry.job_id)
        return request, routing.index_folder_for(self._settings, path)

    def _record(self, entry: Entry, summary: ReportSummary, seconds: float) -> None:
        paths = [os.fspath(path) for path in summary.paths]
        self._ledger.amend(
            entry.id,
            light=summary.light,
            warnings=" ".join(summary.warnings),
            report=paths[0] if paths else None,
            report_state="written",
        )
        job_log(entry).info(
            "report.written", report=paths, light=summary.light, warnings=summary.warnings, seconds=round(seconds, 3)
        )
        self._listener.on_report(entry, summary)

    def _give_up(self, entry: Entry, request: ReportRequest, error: DcnumdError, attempt: int) -> None:
        """Record that a report could not be made, and schedule another attempt if the error is transient."""
        will_retry = error.transient and attempt < self._settings.retry.attempts
        self._log_failure(entry, error, attempt, will_retry=will_retry)
        self._tidy_after(error, request)
        if will_retry:
            self._delay(entry.id, attempt)
        else:
            self._ledger.amend(entry.id, report_state="failed")
            self._listener.on_report(entry, None)

    def _log_failure(self, entry: Entry, error: DcnumdError, attempt: int, *, will_retry: bool) -> None:
        job_log(entry).warning(
            "report.failed",
            reason=error.reason,
            error=error.message,
            attempt=attempt,
            will_retry=will_retry,
            **({"exc_info": error} if error.reason == "internal" else {}),
        )

    def _tidy_after(self, error: DcnumdError, request: ReportRequest) -> None:
        """Have the temporary files removed that a killed process may have left."""
        if isinstance(error, WorkerError):
            self._tidy(request.path_report.parent)

    def _delay(self, entry_id: int, attempt: int) -> None:
        """Schedule another attempt at a report."""
        self._delayed.add(entry_id)
        pause = backoff_seconds(self._settings.retry, attempt)
        asyncio.get_running_loop().call_later(pause, self._try_again, entry_id, attempt)

    def _try_again(self, entry_id: int, attempts: int) -> None:
        self._delayed.discard(entry_id)
        self._waiting[entry_id] = attempts
        self._to_make.set()


def _seconds_since(moment: str) -> float:
    """Return the time since a moment in the ledger [s]; the clock may have been set back meanwhile."""
    return max(0.0, (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(moment)).total_seconds())
