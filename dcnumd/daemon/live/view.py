"""A view of the daemon for its live page and other clients, and the actions that they may request."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import os
import pathlib
import stat
from collections.abc import Callable
from typing import Literal, NamedTuple

import structlog

from dcnumd import __version__, routing
from dcnumd.config.values import ReportSettings, Settings
from dcnumd.daemon.clock import now
from dcnumd.daemon.folders.hang_guard import in_thread
from dcnumd.daemon.ledger.records import FINAL, Entry, State, utc_now
from dcnumd.daemon.live.growth import Growth
from dcnumd.daemon.live.view_lists import SHOWN_WAITING, Lists, ended_row, waiting_row
from dcnumd.daemon.measurements.counters import Counters
from dcnumd.daemon.measurements.lifecycle import begin_anew
from dcnumd.daemon.session import Session
from dcnumd.logic.job import Progress
from dcnumd.report.request import PlotKind, ReportSummary
from dcnumd.status import Ended, Fault, Folder, Recording, Running, Snapshot, Totals, Waiting

log = structlog.get_logger()

TICK_SECONDS = 1.0
"""Time between two checks for changes without a notification, such as a growing file [s]."""
CLOCK_ERROR = dt.timedelta(days=1)
"""Largest difference between the clocks of the instrument and of this computer that is expected."""
REPORT_BYTES = 2**26
"""Largest size of a report's page that is served [bytes]."""


class Plot(NamedTuple):
    """The scatter plot that is shown."""

    id: int | None = None
    """Number of its measurement."""
    picture: bytes = b""
    """The plot as a PNG."""
    recorded: str = ""
    """Date and time of the recording as the instrument wrote them; may be empty."""
    drawn_with: ReportSettings | None = None
    """Settings of reports with which it was drawn."""


class StageProgress(NamedTuple):
    """The progress of a job in its current stage."""

    progress: Progress
    since: float
    """Time at which the stage began, on the clock of the event loop [s]."""


class View:
    """The daemon as the live page shows it; it outlives sessions and can be queried at any time.

    Parameters
    ----------
    settings
        Settings of the daemon, which name the folders of reports.
    counters
        Counts since the start of the daemon.
    faults
        Function that returns why no measurement can be processed; empty if they can.
    losses
        Function that returns the number of child processes that have died.
    """

    def __init__(
        self,
        settings: Settings,
        counters: Counters,
        faults: Callable[[], tuple[Fault, ...]],
        losses: Callable[[], int],
    ) -> None:
        self.settings = settings
        self.ready = False
        self.stopping = False
        self.version = 0
        """Number that increases with every change."""
        self._counters = counters
        self._faults = faults
        self._losses = losses
        self._session: Session | None = None
        self._paused = False
        self._started = utc_now()
        self._progress: dict[str, StageProgress] = {}
        self._growth = Growth()
        self._plot = Plot()
        self._touched = asyncio.Event()
        self._seen: object = None
        self._lists: tuple[object, Lists] = (None, Lists())

    def attach(self, session: Session | None) -> None:
        """Show a session from now on; None means that there is none at present."""
        self._session = session
        if session is not None and self._paused:
            session.pause(paused=True)
        self.touch()

    def touch(self) -> None:
        """Wake all callers of `changed`."""
        self.version += 1
        self._touched.set()
        self._touched = asyncio.Event()

    def note_progress(self, progress: Progress) -> None:
        """Record the progress of a job."""
        if (last := self._progress.get(progress.job_id)) is None:
            self._forget_ended()
        since = last.since if last is not None and last.progress.stage == progress.stage else now()
        self._progress[progress.job_id] = StageProgress(progress, since)
        self.touch()

    def note_report(self, entry: Entry, summary: ReportSummary) -> None:
        """Record a rated result or a new report; its plot is shown unless a later recording is shown already."""
        # A time in the future is that of an instrument whose clock is wrong; it must not keep later plots away.
        recorded = summary.recorded if summary.recorded <= f"{dt.datetime.now().astimezone() + CLOCK_ERROR}" else ""
        if summary.plot and (not recorded or recorded >= self._plot.recorded):
            self._plot = Plot(entry.id, summary.plot, recorded, self.settings.report)
        self.touch()

    async def changed(self, version: int) -> int:
        """Wait until the version is greater than `version`, and return it."""
        while self.version <= version:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._touched.wait()
            self._notice()
        return self.version

    def snapshot(self) -> Snapshot:
        """Return the current state of the daemon."""
        session, lists, faults = self._session, self._recorded(), self._faults()
        held = session is not None and session.jobs.patient and not session.lifecycle.tracker.quiet.is_set()
        running = self._running(session, held=held)
        return Snapshot(
            version=__version__,
            pid=os.getpid(),
            started=self._started,
            time=utc_now(),
            ready=self.ready,
            healthy=not faults,
            faults=faults,
            stopping=self.stopping,
            paused=self._paused,
            held_for_recording=held,
            folders=_folders(session),
            outputs=session.jobs.outputs.free() if session else (),
            blocked=session.jobs.outputs.blocked() if session else (),
            blocked_reports=session.reports.blocked() if session else (),
            counts=lists.counts,
            queue=len(session.lifecycle.queue) if session else 0,
            oldest_wait_seconds=round(session.lifecycle.queue.oldest_wait(), 1) if session else 0.0,
            recording=self._recording(session),
            waiting=self._waiting(session, lists),
            running=running[0] if running else None,
            also_running=running[1:],
            done=lists.done,
            failed=lists.failed,
            unacknowledged=lists.unacknowledged,
            last_success=session.lifecycle.last_success if session else None,
            plot_id=self._plot.id,
            cluster=session.cluster if session else None,
        )

    def totals(self) -> Totals:
        """Return the counts since the start of the daemon."""
        counters = self._counters
        return Totals(
            finished=counters.finished,
            failed=dict(counters.failed),
            skipped=counters.skipped,
            frames=counters.frames,
            events=counters.events,
            seconds=counters.seconds,
            reports=counters.lights.total(),
            reports_failed=counters.reports_failed,
            worker_losses=self._losses(),
            lights=dict(counters.lights),
            latency=counters.latency,
            light_latency=counters.light_latency,
            live_frames=counters.live_frames,
            live_frames_again=counters.live_frames_again,
            live_abandoned=dict(counters.live_abandoned),
            live_latency=counters.live_latency,
        )

    def lacks_plot(self) -> bool:
        """Return whether there is no plot, or one that was drawn with other settings."""
        return self._plot.drawn_with != self.settings.report

    def plot(self) -> bytes:
        """Return the scatter plot of the last recording with a report, a PNG; empty if there is none."""
        return self._plot.picture

    def live_plot(self, entry_id: int) -> bytes:
        """Return the scatter plot of a measurement that is being recorded, a PNG; empty if there is none."""
        return self._session.recordings.plot(entry_id) if self._session is not None else b""

    def entry(self, entry_id: int) -> Ended | Waiting | Running | None:
        """Return a measurement by the number of its row; None if there is none."""
        entry = self._row(entry_id)
        if self._session is None or entry is None:
            return None
        if entry.state is State.RUNNING:
            running = self._running(self._session, held=False)
            return next((one for one in running if one.id == entry_id), None) or waiting_row(entry)
        return ended_row(entry) if entry.state in FINAL else waiting_row(entry)

    def history(self, *, limit: int, before: int | None = None, state: str | None = None) -> list[Ended]:
        """Return finished measurements, the most recent first; see `LedgerQueries.history`."""
        if self._session is None:
            return []
        states = (State(state),) if state else ()
        return [ended_row(entry) for entry in self._session.ledger.history(*states, before=before, limit=limit)]

    def retry(self, entry_id: int) -> str:
        """Request that a measurement is processed again; return a text that says what will happen.

        Raises
        ------
        KeyError
            If there is no such measurement.
        ValueError
            If it cannot be processed again now; the message says why.
        """
        if self._session is None:
            raise ValueError("the ledger cannot be used at this moment; try again")
        ledger = self._session.ledger
        outcome = begin_anew(ledger, ledger.get(entry_id))
        self._session.lifecycle.tracker.doubt()
        self._session.request_scan()
        self.touch()
        return outcome

    def acknowledge(self) -> int:
        """Record that somebody has seen what failed or got a red light; return the number of measurements.

        Raises
        ------
        ValueError
            If the ledger cannot be used now.
        """
        if self._session is None:
            raise ValueError("the ledger cannot be used at this moment; try again")
        number = self._session.ledger.acknowledge()
        log.info("daemon.acknowledged", number=number)
        self.touch()
        return number

    def pause(self) -> None:
        """Start no further jobs; running jobs continue to their end."""
        self._set_paused(paused=True)

    def resume(self) -> None:
        """Start jobs again."""
        self._set_paused(paused=False)

    async def report(self, entry_id: int, ending: Literal[".html", ".json"], name: str = "") -> bytes | None:
        """Return the page or the data of a report; None if it is missing or, with `name`, has another file name."""
        entry = self._row(entry_id)
        if entry is None or entry.report is None or not entry.report.endswith(".html"):
            return None
        path = pathlib.Path(entry.report.removesuffix(".html") + ending)
        if name not in ("", path.name):
            return None
        root = routing.index_folder_for(self.settings, pathlib.Path(entry.path))
        try:
            return await in_thread(os.fspath(root), _read_inside, path, root)
        except OSError:
            return None

    async def plot_of(self, entry_id: int, name: str, kind: PlotKind) -> bytes | None:
        """Draw a plot of a measurement's report; None if there is none. ValueError says why it cannot be drawn now."""
        if self._session is None:
            raise ValueError("The daemon is about to continue with another config or ledger; try again.")
        entry = self._row(entry_id)
        if entry is None or entry.state is not State.DONE or entry.output is None:
            return None
        return await self._session.reports.plot(entry, name, kind)

    def _row(self, entry_id: int) -> Entry | None:
        """Return a row of the ledger by its number; None if there is none, or no session."""
        if self._session is None:
            return None
        try:
            return self._session.ledger.get(entry_id)
        except (KeyError, OverflowError):
            return None

    def _set_paused(self, *, paused: bool) -> None:
        if paused != self._paused:
            log.info("daemon.paused" if paused else "daemon.resumed")
        self._paused = paused
        if self._session is not None:
            self._session.pause(paused=paused)
        self.touch()

    def _notice(self) -> None:
        """Check for changes that come without a notification."""
        session = self._session
        if session is None:
            return
        written = [(candidate.path, candidate.stamp.size) for candidate in session.lifecycle.tracker.being_written()]
        outputs = session.jobs.outputs
        seen = session.ledger.changes(), written, _folders(session), outputs.free(), outputs.blocked(), self._faults()
        if seen != self._seen:
            self._seen = seen
            self.touch()

    def _recorded(self) -> Lists:
        """Return the lists of measurements from the ledger, which is queried only after a change."""
        if self._session is not None:
            ledger = self._session.ledger
            key = ledger.changes()
            if key != self._lists[0]:
                self._lists = key, Lists.of(ledger)
        return self._lists[1]

    def _recording(self, session: Session | None) -> tuple[Recording, ...]:
        moment = now()
        if session is None:
            return ()
        written = session.lifecycle.tracker.being_written()
        rates = self._growth.rates({candidate.path: candidate.stamp.size for candidate in written}, moment)
        return tuple(
            Recording(
                one.path,
                one.stamp.size,
                rates[one.path].bytes_per_second,
                rates[one.path].seconds,
                one.entry_id,
                *session.recordings.shown(one),
            )
            for one in written
        )

    def _waiting(self, session: Session | None, lists: Lists) -> tuple[Waiting, ...]:
        shown = {candidate.path for candidate in session.lifecycle.tracker.being_written()} if session else set()
        if session is not None and (early := session.jobs.early.running) is not None:
            shown.add(early.path)
        return tuple(waiting for waiting in lists.waiting if waiting.path not in shown)[:SHOWN_WAITING]

    def _running(self, session: Session | None, *, held: bool) -> tuple[Running, ...]:
        early = session.jobs.early.running if session else None
        self._forget_ended()
        rows = (_running_row(one, self._progress.get(one.job_id), held=held) for one in _running_entries(session))
        return tuple(dataclasses.replace(row, early=early is not None and row.id == early.id) for row in rows)

    def _forget_ended(self) -> None:
        running = {entry.job_id for entry in _running_entries(self._session)}
        self._progress = {job_id: known for job_id, known in self._progress.items() if job_id in running}


def _running_entries(session: Session | None) -> tuple[Entry, ...]:
    """Return the measurements that are being processed, including the one that is processed early."""
    if session is None:
        return ()
    early = session.jobs.early.running
    return (*session.jobs.running, *([early] if early is not None else []))


def _folders(session: Session | None) -> tuple[Folder, ...]:
    """Return the watched folders; one that a new session has not scanned yet counts as reachable."""
    watched = session.folders if session is not None else ()
    return tuple(Folder(one.folder, one.reachable or not one.ready.is_set()) for one in watched)


def _running_row(entry: Entry, known: StageProgress | None, *, held: bool) -> Running:
    """Return a running measurement in the form that the live page shows."""
    if known is None:
        known = StageProgress(Progress(entry.job_id, "background", 0, entry.frames or 0, 0), now())
    progress, seconds = known.progress, now() - known.since
    segmenting = progress.stage == "segmentation" and progress.frames_done > 0 and seconds > 0
    rate = progress.frames_done / seconds if segmenting else 0.0
    return Running(
        id=entry.id,
        path=entry.path,
        sample=entry.sample,
        stage=progress.stage,
        frames_done=progress.frames_done,
        frames=progress.frames,
        frames_per_second=round(rate, 1),
        seconds_left=round((progress.frames - progress.frames_done) / rate, 1) if rate else None,
        started=entry.started_at or "",
        held=held,
        worker=progress.worker,
    )


def _read_inside(path: pathlib.Path, root: pathlib.Path) -> bytes | None:
    """Return the content of a file; None if it is outside of `root` (through a link), irregular or too large."""
    real = pathlib.Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(root)):
        return None
    descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        return file.read() if stat.S_ISREG(status.st_mode) and status.st_size <= REPORT_BYTES else None
