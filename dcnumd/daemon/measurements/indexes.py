"""The indexes of reports: one row for each result and each failed measurement of a folder."""

from __future__ import annotations

import asyncio
import os
import pathlib

import structlog

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.folders.availability import Availability
from dcnumd.daemon.ledger.records import Entry, utc_now
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.measurements.backoff import backoff_seconds
from dcnumd.daemon.measurements.report_process import ReportProcess
from dcnumd.errors import DcnumdError
from dcnumd.report.calls import update_index
from dcnumd.report.request import IndexRow, ReportRequest, ReportSummary
from dcnumd.report.wording import cause_of, explained

log = structlog.get_logger()

QUIET_SECONDS = 1.0
"""Delay before the indexes are updated after a failure [s], so that many failures need only one update."""


class Indexes:
    """Keeps the indexes of reports up to date.

    Parameters
    ----------
    settings
        Settings with the folders of reports.
    ledger
        Ledger with the measurements that failed.
    availability
        Checks of the folders of reports.
    process
        Process that writes the indexes.
    """

    def __init__(self, settings: Settings, ledger: Ledger, availability: Availability, process: ReportProcess) -> None:
        self._settings = settings
        self._ledger = ledger
        self._availability = availability
        self._process = process
        self._known: set[pathlib.Path] = set()
        self._broken: set[pathlib.Path] = set()
        self._failures_changed = asyncio.Event()
        if settings.report.enabled:
            self._failures_changed.set()
        self._updating = asyncio.Lock()

    @property
    def busy(self) -> bool:
        """Whether an index is being updated."""
        return self._updating.locked()

    @property
    def idle(self) -> bool:
        """Whether no update is pending or in progress."""
        return not (self.busy or self._failures_changed.is_set())

    def note_failure(self) -> None:
        """Request an update of the indexes after a measurement failed."""
        if self._settings.report.enabled:
            self._failures_changed.set()

    async def add(self, entry: Entry, request: ReportRequest, summary: ReportSummary) -> bool:
        """Add the row of a result, or replace it; return False if that failed and another attempt may succeed."""
        path = pathlib.Path(entry.path)
        folder = routing.index_folder_for(self._settings, path)
        # The measurement may have failed before; that row must then be removed.
        former = _failure_key(entry, self._settings.watched_folder_of(path) or folder)
        async with self._updating:
            return await self._update(folder, [_row(entry, request, summary, folder)], removed=former)

    async def update_failures(self) -> None:
        """Wait until a measurement has failed, then update the failed measurements in all indexes."""
        await self._failures_changed.wait()
        await asyncio.sleep(QUIET_SECONDS)
        # While the ledger says that a measurement failed, no row of its result may be added.
        async with self._updating:
            self._failures_changed.clear()
            await self._list_failures()

    async def _list_failures(self) -> None:
        failures: dict[pathlib.Path, list[IndexRow]] = {
            routing.index_folder_for(self._settings, folder / "measurement"): [] for folder in self._settings.folders()
        }
        for entry in self._ledger.present_failures():
            path = pathlib.Path(entry.path)
            folder = self._settings.watched_folder_of(path)
            if folder is not None:
                failures[routing.index_folder_for(self._settings, path)].append(_failure(entry, folder))
        for index, rows in failures.items():
            if (rows or index in self._known) and not await self._update(index, [], rows):
                pause = backoff_seconds(self._settings.retry, 1)
                asyncio.get_running_loop().call_later(pause, self.note_failure)

    async def make_sure(self, folder: pathlib.Path, path: pathlib.Path) -> None:
        """Raise a `ResultError` if a file cannot be written to a folder of reports, for example if not mounted."""
        if (obstacle := await self._availability.obstacle(folder, path, 0)) is not None:
            raise obstacle
        self._ledger.note_untidy(os.fspath(path.parent))

    async def _update(
        self, folder: pathlib.Path, rows: list[IndexRow], failures: list[IndexRow] | None = None, removed: str = ""
    ) -> bool:
        """Update an index; return False if that failed and another attempt may succeed."""
        self._known.add(folder)
        try:
            await self.make_sure(folder, folder / "index.html")
            await self._process.call(update_index, folder, rows, failures, (removed,) if removed else ())
        except DcnumdError as error:
            if folder not in self._broken:
                log.warning("index.failed", folder=os.fspath(folder), reason=error.reason, error=error.message)
            self._broken.add(folder)
            return not error.transient
        self._broken.discard(folder)
        return True


def _row(entry: Entry, request: ReportRequest, summary: ReportSummary, folder: pathlib.Path) -> IndexRow:
    """Return the row of a result in the index of a folder; it links to the result as long as there is no page."""
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
