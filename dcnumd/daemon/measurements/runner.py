"""The runner: takes measurements from the queue and submits them to the executor, up to its capacity."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
import sqlite3
from collections.abc import Callable, Iterator

import structlog

from dcnumd.daemon.clock import now
from dcnumd.daemon.ledger.records import SURROUNDINGS, Entry, State
from dcnumd.daemon.measurements.deadline import Deadline
from dcnumd.daemon.measurements.early import EarlyStarts
from dcnumd.daemon.measurements.executor import NO_ATTEMPT, JobExecutor
from dcnumd.daemon.measurements.inspector import Inspector
from dcnumd.daemon.measurements.lifecycle import Lifecycle, one_file
from dcnumd.daemon.measurements.parking import OutputFolders
from dcnumd.daemon.measurements.queue import Waiting
from dcnumd.daemon.measurements.running_job import RunningJob, job_of
from dcnumd.daemon.measurements.spool_source import with_spool
from dcnumd.daemon.measurements.starter import Starter
from dcnumd.errors import DcnumdError, JobCancelledError, MeasurementError, ResultError, WorkerError
from dcnumd.logic.job import JobResult, Progress
from dcnumd.logic.stamp import Stamp

log = structlog.get_logger()

PROGRESS_SECONDS = 5.0
"""Shortest time between two log lines about the progress of a job [s]."""
NOTE_SECONDS = 2.0
"""Shortest time between two updates of the progress in the ledger, which `dcnumd status` reads [s]."""


@dataclasses.dataclass(slots=True)
class Run:
    """A measurement that is being processed."""

    entry: Entry
    job: RunningJob
    noted_at: float
    """Time of the last update of the progress in the ledger, on the clock of the event loop [s]."""
    logged_at: float
    """Time of the last log line about the progress, on the clock of the event loop [s]."""


class JobRunner:
    """Checks each measurement from the queue once more, processes it, and records the outcome.

    Parameters
    ----------
    lifecycle
        Lifecycle with the queue, which records the outcome of a job.
    executor
        Executor of the jobs.
    inspector
        Inspector for a file that changed during its job.
    outputs
        Checks of the folders of results; parks measurements whose folder accepts no results.
    tidy
        Function that schedules the removal of temporary files which a killed process left in a folder.
    once
        Whether a job fails, instead of waiting, if its folder accepts no results.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        executor: JobExecutor,
        inspector: Inspector,
        outputs: OutputFolders,
        tidy: Callable[[pathlib.Path], None],
        *,
        once: bool = False,
    ) -> None:
        self.outputs = outputs
        self.early = EarlyStarts(lifecycle, executor, inspector, outputs, tidy, self._is_free)
        """Early starts of measurements that have not settled yet."""
        self.starter = Starter(executor, lifecycle.settings.retry.backoff_seconds)
        """What starts the executor again when it is lost."""
        self._lifecycle = lifecycle
        self._ledger = lifecycle.ledger
        self._settings = lifecycle.settings
        self._executor = executor
        self._inspector = inspector
        self._tidy = tidy
        self._once = once
        self._runs: dict[str, Run] = {}
        self._last_job = asyncio.Event()
        self._turns: set[asyncio.Task[None]] = set()
        self._faults: list[BaseException] = []
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._held = False

    @property
    def running(self) -> tuple[Entry, ...]:
        """The measurements that are being processed, in the order of their start."""
        return tuple(run.entry for run in self._runs.values())

    @property
    def idle(self) -> bool:
        """Whether no measurement is queued or being processed."""
        return not self._lifecycle.queue and not self._turns

    @property
    def patient(self) -> bool:
        """Whether no job is started, and the running ones are suspended, while a watched file is being written."""
        return self._settings.resources.pause_while_acquiring and self._executor.local

    def pause(self, *, paused: bool) -> None:
        """Stop starting jobs if `paused` is set; otherwise start jobs again."""
        if paused:
            self._wanted.clear()
            self.early.abandon("paused")
        else:
            self._wanted.set()
            self.early.wake.set()

    def finish_up(self) -> None:
        """Start no further job; `keep_running` then returns when the running jobs have ended."""
        self._last_job.set()
        self._lifecycle.queue.filled.set()

    def hold(self) -> None:
        """Suspend all jobs, and the clocks of their time limits."""
        self._held = True
        if self.early.hold() or self._runs:
            self._executor.hold()
        for run in self._runs.values():
            run.job.hold()

    def resume(self) -> None:
        """Resume all jobs, and the clocks of their time limits."""
        self._held = False
        self._executor.resume()
        self.early.resume()
        self.early.wake.set()
        for run in self._runs.values():
            run.job.resume()

    async def keep_running(self) -> None:
        """Process the measurements in the queue, until cancelled; running jobs are then ended and queued again."""
        queue = self._lifecycle.queue
        try:
            while self._turns or not self._last_job.is_set():
                queue.filled.clear()
                if self._faults:
                    return
                if (waiting := self._next()) is None:
                    await queue.filled.wait()
                    continue
                turn = asyncio.create_task(self._take_turn(waiting), name=waiting.entry.path)
                self._turns.add(turn)
                turn.add_done_callback(self._end_turn)
        finally:
            for turn in self._turns:
                turn.cancel()
            await asyncio.gather(*self._turns, return_exceptions=True)
            if self._faults:
                raise self._faults[0]

    def on_progress(self, progress: Progress) -> None:
        """Handle a progress report of a job."""
        self.early.on_progress(progress)
        if (run := self._runs.get(progress.job_id)) is None:
            return
        run.job.sign_of_life()
        moment = now()
        logged = moment - run.logged_at >= PROGRESS_SECONDS
        if logged or moment - run.noted_at >= NOTE_SECONDS:
            run.noted_at = moment
            run.logged_at = moment if logged else run.logged_at
            self._lifecycle.note_progress(run.entry, progress, logged=logged)

    def _is_free(self) -> bool:
        """Return whether a measurement that has not settled may be processed, since no other is to be."""
        if self._turns or self._lifecycle.queue.due or self._last_job.is_set():
            return False
        return self._wanted.is_set() and (not self.patient or self._lifecycle.tracker.quiet.is_set())

    def _next(self) -> Waiting | None:
        """Return the next measurement of the queue; None if none can go on, or the executor takes no more jobs."""
        if self._last_job.is_set() or len(self._turns) >= self._executor.capacity:
            return None
        return self._lifecycle.queue.take()

    def _end_turn(self, turn: asyncio.Task[None]) -> None:
        """Make room for another job, and keep what must end the session."""
        self._turns.discard(turn)
        if not turn.cancelled() and (fault := turn.exception()) is not None:
            # Not the fault of one measurement but, for example, of the ledger: it ends the session.
            self._faults.append(fault)
        self._lifecycle.queue.filled.set()
        self.early.wake.set()
        self._lifecycle.announce()

    async def _take_turn(self, waiting: Waiting) -> None:
        """Process one measurement, unless it changed since it was queued."""
        await self._wanted.wait()
        if self.patient:
            await self._lifecycle.tracker.quiet.wait()
        if not self._once:
            await self.starter.ensure()
        queued, result = waiting.entry, None
        try:
            with one_file(self._lifecycle, queued.path, queued.id):
                entry = self._ledger.get(queued.id)
                # The row may have been replaced meanwhile by one with another content.
                if entry.state is State.QUEUED and (
                    checked := await self._check(dataclasses.replace(waiting, entry=entry))
                ):
                    result = await self._attempt(checked)
        finally:
            self.early.end_turn(queued.path, result)

    async def _check(self, waiting: Waiting) -> Waiting | None:
        """Return the measurement if its file is unchanged and its result can be written; None if it must wait."""
        obstacle = await self.outputs.check(waiting.entry)
        # The check of the folder may have taken long, and the file may have changed meanwhile.
        entry = self._ledger.get(waiting.entry.id)
        if entry.state is not State.QUEUED or not await self._is_as_queued(entry):
            return None
        if obstacle is None:
            return dataclasses.replace(waiting, entry=entry)
        if self._once:
            self._lifecycle.fail(entry, obstacle)
        else:
            self.outputs.park(waiting, obstacle)
        return None

    async def _attempt(self, waiting: Waiting) -> JobResult | None:
        """Run the job of a measurement, and record the outcome; return its result, or None if it failed."""
        entry = waiting.entry
        job = await with_spool(job_of(self._settings, entry), entry, self._lifecycle.tracker.spools)
        deadline = Deadline(self._settings.resources.job_timeout_seconds, entry.size or 0)
        before = self.early.make_way(job)
        running = RunningJob(job, self._executor, deadline, self.early.forced, before=before)
        try:
            with self._listed(entry, running) as run:
                self._lifecycle.announce()
                entry = run.entry = self._lifecycle.start(entry, job.path_out)
                result = await running.result(recognize=self._ledger.rebuilt)
        except JobCancelledError as error:
            if running.stopped:
                self._lifecycle.put_back(entry, "interrupted")
            else:
                # The daemon did not ask for it, so the connection to the process must be broken.
                await self._give_up(entry, WorkerError(error.message, error.reason))
        except ResultError as error:
            if error.reason not in SURROUNDINGS or self._once:
                await self._give_up(entry, error)
            else:
                entry = self._lifecycle.put_back(entry, error.reason, error.message)
                self.outputs.park(dataclasses.replace(waiting, entry=entry), error, failed=True)
        except sqlite3.Error:
            # An error of the ledger is not the fault of a measurement.
            raise
        except Exception as error:  # noqa: BLE001 -- the boundary of one job: no job may stop the others
            if isinstance(error, WorkerError) and error.reason in NO_ATTEMPT:
                self._lifecycle.queue_again(entry, error.reason, error.message)
                return None
            await self._give_up(entry, error)
            if isinstance(error, WorkerError) and not running.stopped:
                self._tidy(job.path_out.parent)
        else:
            await self._record(entry, result, stopped=running.stopped)
            return result
        return None

    @contextlib.contextmanager
    def _listed(self, entry: Entry, job: RunningJob) -> Iterator[Run]:
        """List a job among the running ones within this block."""
        run = self._runs[entry.job_id] = Run(entry, job, now(), now())
        if self._held and self.patient:
            self.hold()
        try:
            yield run
        finally:
            del self._runs[entry.job_id]

    async def _is_as_queued(self, entry: Entry) -> bool:
        """Return whether the file is unchanged since it was queued; if not, let it settle again."""
        try:
            stamp = await self._lifecycle.tracker.stamp_now(entry.path)
        except OSError:
            self._lifecycle.give_back(entry, entry.stamp, "unreachable")
            return False
        if stamp == entry.stamp and stamp is not None:
            return True
        self._lifecycle.give_back(entry, stamp)
        return False

    async def _give_up(self, entry: Entry, error: Exception) -> None:
        """Record a failure, unless the file has changed; then let it settle again."""
        entry = self._ledger.get(entry.id)
        if entry.state not in {State.QUEUED, State.RUNNING}:
            return
        stamp = await self._stamp(entry)
        # A scan may have updated the stamp of the row already after the change that the job has met.
        changed = isinstance(error, MeasurementError) and error.reason == "changed"
        if stamp == entry.stamp and not changed:
            self._lifecycle.fail(entry, error)
        else:
            self._lifecycle.give_back(entry, stamp)

    async def _record(self, entry: Entry, result: JobResult, *, stopped: bool) -> None:
        """Record a result, unless the file changed during the job, so that the result may mix two states of it."""
        # The stamp of the row differs if the same content was found with a new date meanwhile.
        entry = self._ledger.get(entry.id)
        if result.outcome == "skipped":
            self._lifecycle.skip(entry, result)
            return
        self.outputs.succeeded(entry)
        stamp = await self._stamp(entry)
        if stamp != entry.stamp:
            # Note this first: even if the daemon ends here, a result that may mix two states must be replaced.
            self._ledger.amend(entry.id, replace_output=1)
            if stopped:
                self._lifecycle.put_back(entry, "interrupted")
                return
            stamp = await self._recheck(entry, stamp)
            entry = self._ledger.get(entry.id)
        if stamp != entry.stamp:
            self._lifecycle.discard(entry, stamp)
        else:
            self._lifecycle.finish(entry, result)

    async def _recheck(self, entry: Entry, stamp: Stamp | None) -> Stamp | None:
        """Inspect a changed file and return its stamp; update the row's stamp if only the date has changed."""
        try:
            found = await self._inspector.inspect(entry.path, entry.size or 0)
        except DcnumdError:
            return stamp
        if found.verdict == "complete" and found.content == entry.content:
            self._ledger.amend(entry.id, stamp=found.stamp)
        return found.stamp

    async def _stamp(self, entry: Entry) -> Stamp | None:
        """Return the current stamp of a file; a file that cannot be reached counts as unchanged."""
        try:
            return await self._lifecycle.tracker.stamp_now(entry.path)
        except OSError:
            return entry.stamp
