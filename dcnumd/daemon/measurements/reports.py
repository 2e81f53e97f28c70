"""Has reports made of results, one after the other, by a process that gives way to measurements."""

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
"""Time after which a report counts as hanging [s]; it is large since the process waits for all others."""
QUIET_SECONDS = 1.0
"""Time from the last failure to the next writing of the index [s], since failures come in numbers."""


class Listener(Protocol):
    """Who wants to know of reports."""

    def on_change(self) -> None:
        """Take note that a report or an index was dealt with."""

    def on_report(self, entry: Entry, summary: ReportSummary | None) -> None:
        """Take note of a report; None if it could not be made."""


class Reporter:
    """The results that wait for their report, and the indexes of their folders.

    Parameters
    ----------
    settings
        Which reports are wanted, and where.
    ledger
        Where it is recorded which are there.
    availability
        Whether there is a place for one.
    child
        The process that makes them.
    listener
        Hears of each.
    tidy
        Has removed what a killed process left in a folder.
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
        """Numbers of rows whose report is wanted, and the attempts that were made."""
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
        """Whether nothing is left to do."""
        return not (self._waiting or self._delayed or self._busy or self._failures_changed)

    @property
    def busy(self) -> bool:
        """Whether something is being written."""
        return self._busy

    def want(self, entry: Entry) -> None:
        """Have a report made of the result of a measurement, if its row says that one is wanted."""
        if entry.report_state == "wanted":
            self._waiting.setdefault(entry.id, 0)
            self._filled.set()

    def note_failure(self) -> None:
        """Have the indexes tell of a measurement that failed."""
        if self._settings.report.enabled:
            self._failures_changed = True
            self._filled.set()

    def give_way(self, *, idle: bool) -> None:
        """Use only the time that nobody else needs, so that no measurement is delayed; or as much as others again."""
        self._child.give_way(idle=idle)

    def hold(self) -> None:
        """Stop the process where it is."""
        self._held = True
        self._child.hold()
        if self._deadline is not None:
            self._deadline.hold()

    def resume(self) -> None:
        """Let it go on."""
        self._held = False
        self._child.resume()
        if self._deadline is not None:
            self._deadline.resume()

    async def keep_reporting(self) -> None:
        """Make what is wanted, the latest first, and keep the indexes up to date."""
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
        """Make one report, whatever comes of it."""
        try:
            entry = self._ledger.get(entry_id)
        except KeyError:
            # It was forgotten meanwhile.
            return
        # Another result may be on its way meanwhile.
        if entry.report_state != "wanted" or entry.output is None:
            return
        path, result = _paths(entry)
        folder = routing.index_folder_for(self._settings, path)
        request = routing.report_request_for(self._settings, path, result, entry.job_id)
        begin = now()
        try:
            summary = await self._make(request, folder)
            # It may have failed before.
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
        """Raise a `ResultError` unless a file can be written in a folder of reports, which may not be mounted."""
        if (obstacle := await self._availability.obstacle(folder, path, 0)) is not None:
            raise obstacle
        self._ledger.note_untidy(os.fspath(path.parent))

    async def _call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Have the process call a function, within a time that does not pass while it is held.

        Raises
        ------
        DcnumdError
            Whatever went wrong.
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
        except Exception as error:  # the boundary of one report: it may cost nothing but itself
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
        """Record that a report could not be made; the result stays what it is."""
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
        """Come back to a report later."""
        self._delayed.add(entry_id)
        pause = backoff_seconds(self._settings.retry, attempt)
        asyncio.get_running_loop().call_later(pause, self._try_again, entry_id, attempt)

    def _try_again(self, entry_id: int, attempts: int) -> None:
        self._delayed.discard(entry_id)
        self._waiting[entry_id] = attempts
        self._filled.set()

    async def _tell_failures(self) -> None:
        """Bring the failed measurements in all indexes up to date."""
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
        """Bring an index up to date; return False if that is worth another attempt."""
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
    """Make a report, in the child: this process loads no numerical code."""
    from dcnumd.report import make  # noqa: PLC0415 -- numerical code

    return make.make_report(request)


def update_index(
    folder: pathlib.Path, rows: list[IndexRow], failures: list[IndexRow] | None, removed: tuple[str, ...]
) -> None:
    """Update the index of a folder, in the child."""
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
    """Return what the row of a measurement is recognised by while it has failed."""
    return os.path.relpath(entry.path, folder)


def _failure(entry: Entry, folder: pathlib.Path) -> IndexRow:
    """Return the row of a failed measurement, with its cause, the cure, and what exactly was wrong."""
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
