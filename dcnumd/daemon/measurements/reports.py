"""Generation of reports, one at a time, in a process that runs at lower priority than measurements."""

from __future__ import annotations

import asyncio
import os
import pathlib
from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

import structlog

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.clock import now
from dcnumd.daemon.folders.availability import Availability
from dcnumd.daemon.ledger.records import Entry, job_log, utc_now
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.measurements.backoff import backoff_seconds
from dcnumd.daemon.measurements.deadline import Deadline
from dcnumd.errors import DcnumdError, WorkerError
from dcnumd.processes.child import Child
from dcnumd.report.request import IndexRow, ReportRequest, ReportSummary
from dcnumd.report.wording import cause_of, explained
from dcnumd.words import duration

P = ParamSpec("P")
R = TypeVar("R")

log = structlog.get_logger()

REPORT_SECONDS = 600.0
"""Time limit for a report [s]; it is large since the process runs only when others leave it processor time."""
QUIET_SECONDS = 1.0
"""Delay before the indexes are updated after a failure [s], so that many failures need only one update."""


class Listener(Protocol):
    """Interface of an object that is notified of reports."""

    def on_change(self) -> None:
        """Handle the end of work on a report or an index."""

    def on_report(self, entry: Entry, summary: ReportSummary | None) -> None:
        """Handle a new report; `summary` is None if the report could not be made."""


class Reporter:
    """Makes the reports of results, and keeps the indexes of reports up to date.

    Parameters
    ----------
    settings
        Settings with the wanted reports and their folders.
    ledger
        Ledger that records which reports are wanted and made.
    availability
        Checks of the folders of reports.
    child
        Process that makes the reports.
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
        child: Child,
        listener: Listener,
        tidy: Callable[[pathlib.Path], None],
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._availability = availability
        self._child = child
        self._listener = listener
        self._tidy = tidy
        self._waiting: dict[int, int] = {}
        """Rows whose report is wanted: number of the row → number of failed attempts."""
        self._delayed: set[int] = set()
        self._failures_changed = settings.report.enabled
        self._indexes: set[pathlib.Path] = set()
        self._broken_indexes: set[pathlib.Path] = set()
        self._filled = asyncio.Event()
        self._busy = False
        self._deadline: Deadline | None = None
        self._held = False

    @property
    def idle(self) -> bool:
        """Whether no report or update of an index is pending, in progress or delayed."""
        return not (self._waiting or self._delayed or self._busy or self._failures_changed)

    @property
    def busy(self) -> bool:
        """Whether a report or an index is being written."""
        return self._busy

    def want(self, entry: Entry) -> None:
        """Request the report of a result, if its row says that one is wanted."""
        if entry.report_state == "wanted":
            self._waiting.setdefault(entry.id, 0)
            self._filled.set()

    def note_failure(self) -> None:
        """Request an update of the indexes after a measurement failed."""
        if self._settings.report.enabled:
            self._failures_changed = True
            self._filled.set()

    def give_way(self, *, idle: bool) -> None:
        """Run the process only when processors are idle, so that it delays no measurement; or normally again."""
        self._child.give_way(idle=idle)

    def hold(self) -> None:
        """Suspend the process, and the clock of its time limit."""
        self._held = True
        self._child.hold()
        if self._deadline is not None:
            self._deadline.hold()

    def resume(self) -> None:
        """Resume the process, and the clock of its time limit."""
        self._held = False
        self._child.resume()
        if self._deadline is not None:
            self._deadline.resume()

    async def keep_reporting(self) -> None:
        """Make the wanted reports, the most recent results first, and update the indexes, until cancelled."""
        if not self._settings.report.enabled:
            return
        for entry in reversed(self._ledger.wanting_reports()):
            self.want(entry)
        while True:
            self._filled.clear()
            self._busy = True
            if self._waiting:
                await self._report(*self._waiting.popitem())
            elif self._failures_changed:
                await self._tell_failures()
            self._busy = False
            self._listener.on_change()
            if not self._waiting and not self._failures_changed:
                await self._filled.wait()

    async def _report(self, entry_id: int, attempts: int) -> None:
        """Make one report, and record the outcome."""
        try:
            entry = self._ledger.get(entry_id)
        except KeyError:
            # The row was forgotten meanwhile.
            return
        # The measurement may be in processing again, so that its previous result needs no report.
        if entry.report_state != "wanted" or entry.output is None:
            return
        path, result = _paths(entry)
        folder = routing.index_folder_for(self._settings, path)
        request = routing.report_request_for(self._settings, path, result, entry.job_id)
        begin = now()
        try:
            summary = await self._make(request, folder)
            # The measurement may have failed before; its row in the index must then be removed.
            former = _failure_key(entry, self._settings.watched_folder_of(path) or folder)
            row = _row(entry, request, summary, folder)
            listed = await self._update_index(folder, [row], removed=former)
        except DcnumdError as error:
            self._give_up(entry, request, error, attempts + 1)
            return
        if not listed and attempts + 1 < self._settings.retry.attempts:
            self._delay(entry.id, attempts + 1)
        else:
            self._record(entry, summary, now() - begin)

    async def _make(self, request: ReportRequest, folder: pathlib.Path) -> ReportSummary:
        await self._make_sure(folder, request.path_report)
        return await self._call(make_report, request)

    async def _make_sure(self, folder: pathlib.Path, path: pathlib.Path) -> None:
        """Raise a `ResultError` if a file cannot be written to a folder of reports, for example if not mounted."""
        if (obstacle := await self._availability.obstacle(folder, path, 0)) is not None:
            raise obstacle
        self._ledger.note_untidy(os.fspath(path.parent))

    async def _call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function in the process, within a time limit that does not count the time in which it is held.

        Raises
        ------
        DcnumdError
            If the call fails for any reason or exceeds the time limit.
        """
        deadline = self._deadline = Deadline(REPORT_SECONDS, 0)
        deadline.stall_seconds = REPORT_SECONDS
        call = asyncio.create_task(self._child.call(function, *args, **kwargs), name="report")
        if self._held:
            self.hold()
        try:
            outcome = await deadline.wait(call)
            if outcome != "done":
                self._child.kill()
                await asyncio.wait([call])
                raise WorkerError(
                    f"the report is not made after {duration(REPORT_SECONDS)}", "timeout", transient=False
                )
            return call.result()
        except DcnumdError:
            raise
        except Exception as error:  # the boundary of one report: an error must affect nothing else
            raise WorkerError(f"{type(error).__name__}: {error}", "internal") from error
        finally:
            self._deadline = None
            call.cancel()

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
        job_log(entry).warning(
            "report.failed",
            reason=error.reason,
            error=error.message,
            attempt=attempt,
            will_retry=will_retry,
            **({"exc_info": error} if error.reason == "internal" else {}),
        )
        if isinstance(error, WorkerError):
            self._tidy(request.path_report.parent)
        if will_retry:
            self._delay(entry.id, attempt)
        else:
            self._ledger.amend(entry.id, report_state="failed")
            self._listener.on_report(entry, None)

    def _delay(self, entry_id: int, attempt: int) -> None:
        """Schedule another attempt at a report."""
        self._delayed.add(entry_id)
        pause = backoff_seconds(self._settings.retry, attempt)
        asyncio.get_running_loop().call_later(pause, self._try_again, entry_id, attempt)

    def _try_again(self, entry_id: int, attempts: int) -> None:
        self._delayed.discard(entry_id)
        self._waiting[entry_id] = attempts
        self._filled.set()

    async def _tell_failures(self) -> None:
        """Update the failed measurements in all indexes."""
        await asyncio.sleep(QUIET_SECONDS)
        self._failures_changed = False
        failures: dict[pathlib.Path, list[IndexRow]] = {
            routing.index_folder_for(self._settings, folder / "measurement"): [] for folder in self._settings.folders()
        }
        for entry in self._ledger.present_failures():
            path = pathlib.Path(entry.path)
            folder = self._settings.watched_folder_of(path)
            if folder is not None:
                failures[routing.index_folder_for(self._settings, path)].append(_failure(entry, folder))
        for index, rows in failures.items():
            if (rows or index in self._indexes) and not await self._update_index(index, [], rows):
                pause = backoff_seconds(self._settings.retry, 1)
                asyncio.get_running_loop().call_later(pause, self.note_failure)

    async def _update_index(
        self, folder: pathlib.Path, rows: list[IndexRow], failures: list[IndexRow] | None = None, removed: str = ""
    ) -> bool:
        """Update an index; return False if that failed and another attempt may succeed."""
        self._indexes.add(folder)
        try:
            await self._make_sure(folder, folder / "index.html")
            await self._call(update_index, folder, rows, failures, (removed,) if removed else ())
        except DcnumdError as error:
            if folder not in self._broken_indexes:
                log.warning("index.failed", folder=os.fspath(folder), reason=error.reason, error=error.message)
            self._broken_indexes.add(folder)
            return not error.transient
        self._broken_indexes.discard(folder)
        return True


def make_report(request: ReportRequest) -> ReportSummary:
    """Make a report; called in the child process, since the daemon must not load numerical code."""
    from dcnumd.report import make  # noqa: PLC0415 -- numerical code

    return make.make_report(request)


def update_index(
    folder: pathlib.Path, rows: list[IndexRow], failures: list[IndexRow] | None, removed: tuple[str, ...]
) -> None:
    """Update the index of a folder; called in the child process."""
    from dcnumd.report import index  # noqa: PLC0415 -- numerical code

    index.update_index(folder, rows, failures, removed=removed, root=folder)


def _paths(entry: Entry) -> tuple[pathlib.Path, pathlib.Path]:
    return pathlib.Path(entry.path), pathlib.Path(entry.output or "")


def _row(entry: Entry, request: ReportRequest, summary: ReportSummary, folder: pathlib.Path) -> IndexRow:
    """Return the row of a result in the index of a folder."""
    shown = next((path for path in summary.paths if path.suffix == ".html"), request.path_result)
    return IndexRow(
        key=os.path.relpath(request.path_report.with_name(request.path_result.name), folder),
        name=pathlib.PurePath(entry.path).name,
        sample=summary.sample,
        recorded=summary.recorded,
        finished=entry.finished_at or utc_now(),
        state="done",
        events=summary.events,
        light=summary.light,
        texts=summary.texts,
        link=os.path.relpath(shown, folder),
        thumbnail=summary.thumbnail,
    )


def _failure_key(entry: Entry, folder: pathlib.Path) -> str:
    """Return the key of a failed measurement in the index."""
    return os.path.relpath(entry.path, folder)


def _failure(entry: Entry, folder: pathlib.Path) -> IndexRow:
    """Return the row of a failed measurement in the index, with cause, cure and error message."""
    cause = cause_of(entry.reason)
    return IndexRow(
        key=_failure_key(entry, folder),
        name=pathlib.PurePath(entry.path).name,
        sample=entry.sample,
        recorded="",
        finished=entry.finished_at or "",
        state="failed",
        texts=(entry.reason, f"{cause.what}. {cause.cure}".rstrip(), explained(entry.error, entry.path)),
    )
