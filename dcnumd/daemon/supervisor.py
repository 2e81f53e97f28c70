"""The daemon: owns the ledger and the child processes, handles signals, and runs one session after the other.

This process loads no numerical code and opens no measurement; code that may crash or block runs in its children.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import signal
import sqlite3
import time
from collections.abc import Iterator

import structlog

from dcnumd import __version__
from dcnumd.config.file import reread_settings
from dcnumd.config.values import Settings
from dcnumd.daemon import logs
from dcnumd.daemon.ledger.opening import open_ledger
from dcnumd.daemon.ledger.records import Entry
from dcnumd.daemon.ledger.store import Ledger, is_damage, ledger_path
from dcnumd.daemon.live.answers import keep_answering
from dcnumd.daemon.live.server import PageKeeper
from dcnumd.daemon.live.view import View
from dcnumd.daemon.measurements.counters import Counters
from dcnumd.daemon.ownership import LOCK_NAME, owner_lock, temporary_folder
from dcnumd.daemon.session import Session
from dcnumd.daemon.state_folder import StateFolder
from dcnumd.daemon.systemd import Notifier
from dcnumd.daemon.workers import Workers
from dcnumd.errors import ConfigError, DcnumdError, WorkerError
from dcnumd.logic.job import Progress
from dcnumd.report.request import ReportSummary
from dcnumd.report.wording import told_of_blocked
from dcnumd.status import Fault
from dcnumd.words import distinct_names

log = structlog.get_logger()

HEARTBEAT_SECONDS = 60.0
LEDGER_SECONDS = 5.0
"""Time between two attempts to reopen a ledger that could not be written [s]."""


def run_daemon(settings: Settings, *, once: bool = False) -> int:
    """Run until a signal requests the end or, with `once`, until all present measurements have been handled.

    Returns
    -------
    code
        The exit code: 0, or with `once` 1 if a measurement failed.

    Raises
    ------
    DcnumdError
        If the ledger cannot be used, for example because another daemon owns it.
    """
    # `retry` and `forget` send SIGUSR1 to the owner of the ledger, even while no handler is installed.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # This variable would override the locking that readers request; a lock makes the instrument's next write fail.
    os.environ.pop("HDF5_USE_FILE_LOCKING", None)
    folder = settings.state_folder()
    # matplotlib, which draws reports, caches a list of fonts, and the service's user may have no home folder.
    os.environ.setdefault("MPLCONFIGDIR", os.fspath(folder / "matplotlib"))
    with owner_lock(folder), temporary_folder(folder):
        return asyncio.run(Supervisor(settings, once=once).run())


class Supervisor:
    """Runs the daemon: child processes, live page, signals, and one session after the other."""

    def __init__(self, settings: Settings, *, once: bool) -> None:
        self._settings = settings
        self._next_settings: Settings | None = None
        self._once = once
        self._notifier = Notifier.from_environment()
        self._stop = asyncio.Event()
        self._ready = self._ledger_lost = False
        self._end_error: DcnumdError | None = None
        self._state = StateFolder(settings.state_folder())
        self._failures = 0
        self._session: Session | None = None
        self._reloads = asyncio.Event()
        self._losses_before = 0
        self._workers = Workers.of(settings, self._on_progress, self._on_executor_change)
        self._counters = Counters()
        self._view = View(settings, self._counters, self._faults, self._losses)
        self._page = PageKeeper(settings.web, self._view)
        self.lacks_plot = self._view.lacks_plot

    async def run(self) -> int:
        """Run the daemon, and return its exit code."""
        log.info(
            "daemon.started",
            version=__version__,
            pid=os.getpid(),
            config=os.fspath(self._settings.source) if self._settings.source else None,
            state_folder=os.fspath(self._settings.state_folder()),
            folders=[os.fspath(folder) for folder in self._settings.folders()],
        )
        self._state.remember(self._settings.state_folder() / LOCK_NAME)
        ledger = self._open_ledger()
        try:
            await self._run_tasks(ledger)
        except Exception as error:
            log.critical("daemon.stopped", failures=self._failures, error=repr(error), exc_info=error)
            return 1
        if isinstance(self._end_error, ConfigError):
            raise ConfigError(f"{self._settings.source}: pipeline: {self._end_error.message}") from self._end_error
        if self._end_error is not None:
            log.critical("daemon.stopped", failures=self._failures, error=self._end_error.message)
            return 1
        log.info("daemon.stopped", failures=self._failures)
        return 1 if self._once and self._failures else 0

    async def _run_tasks(self, ledger: Ledger) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self._signals())
            stack.push_async_callback(self._close_workers)
            async with asyncio.TaskGroup() as group:
                # The workers take longest to start, so they are started first.
                self._starting = group.create_task(self._start_workers(), name="start")
                work = group.create_task(self._work_in_sessions(ledger), name="sessions")
                tasks = [
                    self._starting,
                    group.create_task(self._beat(), name="heartbeat"),
                    group.create_task(self._keep_reloading(), name="reload"),
                    group.create_task(self._notifier.keep_alive(self._is_alive), name="watchdog"),
                    group.create_task(self._page.keep_serving(), name="page"),
                    group.create_task(keep_answering(self._settings.state_folder(), self._view), name="answers"),
                    group.create_task(self._keep_state(), name="state"),
                ]
                await self._stop.wait()
                log.info("daemon.stopping")
                self._notifier.stopping()
                self._view.stopping = True
                self._view.touch()
                await asyncio.wait([work])
                for task in tasks:
                    task.cancel()

    async def _close_workers(self) -> None:
        # Why not register `self._workers.close` itself? A reload may have replaced the workers.
        await self._workers.close()

    async def _start_workers(self) -> None:
        """Start the executor of jobs; end the daemon if that fails."""
        try:
            await self._workers.start(self._settings, again=not self._once)
        except (ConfigError, WorkerError) as error:
            self._end(error)

    def _end(self, error: DcnumdError) -> None:
        self._end_error = error
        self._stop.set()

    async def _keep_state(self) -> None:
        self._lose_state(await self._state.wait_until_gone())

    def _lose_state(self, gone: pathlib.Path) -> None:
        """End the daemon: further records would be lost, and another dcnumd may own the present state folder."""
        problem = "was deleted, moved or replaced while dcnumd was running, so nothing more can be recorded"
        error = DcnumdError(f"{gone}: {problem}; put it back if it was moved, and start dcnumd again", "state_folder")
        self._end(error)

    async def _work_in_sessions(self, ledger: Ledger | None) -> None:
        """Run sessions until the end; after an error of the ledger or a reload, a new session continues."""
        try:
            while not self._stop.is_set() and (ledger := ledger or await self._wait_for_ledger()) is not None:
                while self._next_settings is not None and not self._stop.is_set():
                    await self._take_over(self._next_settings)
                with ledger:
                    await self._work_with(ledger)
                    self._failures += self._session.lifecycle.failures if self._session else 0
                ledger = None
        finally:
            self._stop.set()

    async def _work_with(self, ledger: Ledger) -> None:
        self._session = Session(self._settings, ledger, self._workers, self._counters, self, once=self._once)
        self._view.attach(self._session)
        try:
            await self._session.run(self._stop)
        except BaseExceptionGroup as group:
            faults, others = group.split(sqlite3.DatabaseError)
            if faults is None or others is not None:
                raise
            self._lose_ledger(next(_leaves(faults)))
        finally:
            self._view.attach(None)

    def _lose_ledger(self, error: BaseException) -> None:
        if self._once:
            self._end(DcnumdError(f"{ledger_path(self._settings.state_folder())}: {error}", "ledger"))
        elif not is_damage(error) and not self._ledger_lost:
            self._ledger_lost = True
            log.error("ledger.unwritable", error=f"{ledger_path(self._settings.state_folder())}: {error}")

    async def _wait_for_ledger(self) -> Ledger | None:
        """Open the ledger as soon as it is writable, and return it; return None if the daemon ends first."""
        while not self._stop.is_set():
            # Also before the first attempt: what is freed by closing a ledger may suffice to open it, but not to write.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEDGER_SECONDS if self._ledger_lost else 0):
                    await self._stop.wait()
            if (gone := self._state.gone()) is not None:
                # Opening would create an empty ledger, and all records would be lost silently.
                self._lose_state(gone)
                return None
            try:
                ledger = self._open_ledger()
            except (DcnumdError, sqlite3.Error) as error:
                self._lose_ledger(error)
            else:
                if self._ledger_lost:
                    log.info("ledger.recovered")
                self._ledger_lost = False
                return ledger
        return None

    def _open_ledger(self) -> Ledger:
        folder = self._settings.state_folder()
        ledger = open_ledger(folder)
        self._state.remember(ledger_path(folder))
        return ledger

    async def _keep_reloading(self) -> None:
        while True:
            await self._reloads.wait()
            self._reloads.clear()
            if self._ready:
                self._notifier.reloading()
            await self._reload()
            if self._ready:
                self._notifier.ready()

    async def _reload(self) -> None:
        """Read the config again; apply it from the next measurement on, or reject it as a whole."""
        try:
            settings = reread_settings(self._settings)
            if settings.state_folder() != self._settings.state_folder():
                raise ConfigError(f"{settings.source}: state.folder: cannot change while dcnumd runs; restart it")
            await self._workers.check_methods(settings)
        except (ConfigError, WorkerError) as error:
            log.warning("config.refused", error=error.message)
            return
        log.info("config.reloaded", config=os.fspath(settings.source) if settings.source else None)
        self._next_settings = settings
        if self._session is not None:
            self._session.finish_up()

    async def _take_over(self, settings: Settings) -> None:
        """Apply new settings; restart the processes only if settings that are fixed at their start have changed."""
        before, self._settings, self._next_settings = self._settings, settings, None
        logs.configure(settings.log)
        self._view.settings = settings
        self._page.use(settings.web)
        if _fixed(before) != _fixed(settings) and not self._stop.is_set():
            self._starting.cancel()
            await asyncio.wait([self._starting])
            await self._close_workers()
            self._losses_before = self._losses()
            self._workers = Workers.of(settings, self._on_progress, self._on_executor_change)
            # Do not wait for the start if the daemon is asked to stop.
            stop = asyncio.create_task(self._stop.wait())
            self._starting = asyncio.create_task(self._start_workers(), name="start")
            await asyncio.wait([stop, self._starting], return_when=asyncio.FIRST_COMPLETED)
            if self._starting.done():
                # Nobody else asks whether it failed for a reason that nobody foresaw.
                self._starting.result()
            for task in (stop, self._starting):
                task.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            if (session := self._session) is None:
                continue
            jobs, lifecycle = session.jobs, session.lifecycle
            log.info(
                "daemon.heartbeat",
                queue=len(lifecycle.queue),
                oldest_wait_seconds=round(lifecycle.queue.oldest_wait(), 1),
                settling=len(lifecycle.tracker.candidates),
                running=jobs.running[0].path if jobs.running else None,
                **_cluster_fields(session),
                **_live_fields(session),
                last_success=lifecycle.last_success,
                blocked=[dataclasses.asdict(blocked) for blocked in jobs.outputs.blocked()],
            )
            self._tell_status()

    def _tell_status(self) -> None:
        if self._session is not None:
            # that of another session, if the config is read again before
            self._notifier.status_soon(lambda: _status_of(self._session) if self._session is not None else "")

    def _is_alive(self) -> bool:
        """Return whether the daemon works or waits for something that may recover."""
        return self._workers.executor.alive or self._ledger_lost or not self._workers.ready.is_set()

    def _faults(self) -> tuple[Fault, ...]:
        return ("ledger.unwritable",) if self._ledger_lost else self._workers.faults(works=self._is_alive())

    def _losses(self) -> int:
        return self._losses_before + self._workers.losses

    def _on_executor_change(self) -> None:
        if self._session is not None:
            # The executor may take more jobs than before.
            self._session.lifecycle.queue.filled.set()
        self._view.touch()

    def _on_progress(self, progress: Progress) -> None:
        self._view.note_progress(progress)
        if self._session is not None:
            self._session.jobs.on_progress(progress)

    def on_report(self, entry: Entry, summary: ReportSummary) -> None:
        """Show the plot of the last recording, and its traffic light."""
        self._view.note_report(entry, summary)

    def on_ready(self) -> None:
        """Log and announce that measurements are found and processed from now on."""
        if not self._ready:
            log.info("daemon.ready", seconds=round(seconds_since_start(), 2))
            self._notifier.ready()
        self._ready = self._view.ready = True
        self.on_change()

    def on_change(self) -> None:
        """Update status and live page; with ``--once``, stop when nothing is left to do."""
        self._tell_status()
        self._view.touch()
        if self._once and self._ready and self._session is not None and self._session.idle:
            self._stop.set()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Handle signals within this block.

        The first SIGTERM or SIGINT stops the daemon, the second ends jobs at once; SIGUSR1 scans, SIGHUP reloads.
        """
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGTERM: self._on_stop_signal,
            signal.SIGINT: self._on_stop_signal,
            signal.SIGUSR1: self._on_rescan_signal,
            signal.SIGHUP: self._reloads.set,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)
            for number in (signal.SIGUSR1, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)

    def _on_stop_signal(self) -> None:
        if self._stop.is_set() and self._session is not None:
            self._session.force()
        self._stop.set()

    def _on_rescan_signal(self) -> None:
        if self._session is not None:
            self._session.request_scan()


def _fixed(settings: Settings) -> tuple[object, ...]:
    """Return the settings that a process cannot change once it runs."""
    resources = settings.resources
    processes = resources.nice, resources.cpus, resources.num_workers, settings.live.enabled
    return settings.log, settings.executor, *processes


def _cluster_fields(session: Session) -> dict[str, object]:
    """Return the fields of a heartbeat about the cluster that processes measurements; none without one."""
    if session.cluster is None:
        return {}
    also_running = [entry.path for entry in session.jobs.running[1:]]
    cluster = session.cluster
    workers = {"workers": cluster.workers, "workers_excluded": len(cluster.excluded)}
    return {"also_running": also_running, **workers, "fallback": cluster.fallback}


def _live_fields(session: Session) -> dict[str, object]:
    """Return the fields of a heartbeat about recordings that are processed while they grow; none without any."""
    paths = session.recordings.paths
    return {"live": paths} if paths else {}


def _status_of(session: Session) -> str:
    """Return the status line that ``systemctl status`` shows."""
    names = ", ".join(distinct_names(entry.path for entry in session.jobs.running).values())
    queued, settling = len(session.lifecycle.queue), len(session.lifecycle.tracker.candidates)
    told = [f"{f'processing {names}' if names else 'waiting'}; {queued} queued, {settling} settling"]
    blocked = session.jobs.outputs.blocked()
    return "; ".join([*told, *(told_of_blocked(one.problem, one.reason, one.error, one.waiting) for one in blocked)])


def seconds_since_start() -> float:
    """Return the age of this process [s], which includes the start of Python."""
    # Fields of proc(5) from the third on, since the second may contain spaces; field 22 is the start time.
    fields = pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[22 - 3]) / os.sysconf("SC_CLK_TCK")


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
