"""Early start: measurements are processed during their settle time, and published when this has passed.

An early job prepares a result under its temporary name. It is started only while nothing else is to be processed, and
gives way to the job of any settled measurement. When its own measurement has settled, the usual job publishes the
prepared result, or, if anything has changed, removes it and processes the measurement. States and attempts in the
ledger are therefore the same with and without early start.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pathlib
import sqlite3
from collections.abc import Callable

from dcnumd.daemon.clock import now
from dcnumd.daemon.ledger.records import Entry, job_log, utc_now
from dcnumd.daemon.measurements.deadline import Deadline
from dcnumd.daemon.measurements.executor import JobExecutor
from dcnumd.daemon.measurements.inspector import Inspector
from dcnumd.daemon.measurements.lifecycle import Lifecycle
from dcnumd.daemon.measurements.parking import OutputFolders
from dcnumd.daemon.measurements.running_job import STOP_SECONDS, RunningJob, job_of
from dcnumd.daemon.measurements.spool_source import with_spool
from dcnumd.daemon.measurements.tracker import Candidate
from dcnumd.errors import DcnumdError, JobCancelledError, WorkerError
from dcnumd.logic.calls import discard_job, prepare_job
from dcnumd.logic.job import Job, JobResult, Progress
from dcnumd.logic.stamp import Stamp

QUIET_SECONDS = 0.5
"""Time without a change after which a file is at rest [s]; a tenth of a longer settle time."""
MAX_PREPARED = 16
"""Largest number of results that are prepared at the same time."""


@dataclasses.dataclass(slots=True)
class EarlyRun:
    """A measurement that is being processed early."""

    candidate: Candidate
    entry: Entry
    """Row of the measurement, with the content that was inspected."""
    stamp: Stamp
    job: Job
    running: RunningJob
    task: asyncio.Task[JobResult]
    stop_reason: str = ""
    """Why the job was asked to stop; empty if it was not."""
    is_due: bool = False
    """Whether the measurement has settled, and its usual job waits for this one."""

    def ask_to_stop(self, reason: str) -> None:
        """Ask the job to stop, unless its result is waited for."""
        if not self.is_due and not self.stop_reason:
            self.stop_reason = reason
            self.running.ask_to_stop()


class EarlyStarts:
    """Starts early jobs, and keeps account of the results that they have prepared.

    Parameters
    ----------
    lifecycle
        Lifecycle with the tracker, whose candidates are processed early.
    executor
        Executor of the jobs, on this computer.
    inspector
        Inspector of files.
    outputs
        Checks of the folders of results.
    tidy
        Function that schedules the removal of temporary files which a killed process left in a folder.
    is_free
        Function that returns whether nothing else is to be processed, and jobs may be started.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        executor: JobExecutor,
        inspector: Inspector,
        outputs: OutputFolders,
        tidy: Callable[[pathlib.Path], None],
        is_free: Callable[[], bool],
    ) -> None:
        self.forced = asyncio.Event()
        """Event that, when set, ends at once a job that was asked to stop."""
        self.wake = asyncio.Event()
        """Set when a job may be started."""
        self._lifecycle = lifecycle
        self._tracker = lifecycle.tracker
        self._ledger = lifecycle.ledger
        self._settings = lifecycle.settings
        self._executor = executor
        self._inspector = inspector
        self._outputs = outputs
        self._tidy = tidy
        self._is_free = is_free
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._rested: dict[str, Candidate] = {}
        self._run: EarlyRun | None = None
        self._prepared: dict[str, EarlyRun] = {}
        self._discarding: set[asyncio.Future[bool]] = set()
        if self._settings.executor.kind == "local":
            self._tracker.observer = self

    @property
    def running(self) -> Entry | None:
        """The measurement that is being processed early; None once its usual job waits for it."""
        return None if self._run is None or self._run.is_due else self._run.entry

    @property
    def busy(self) -> bool:
        """Whether there may be temporary files of early jobs."""
        return self._run is not None or bool(self._prepared) or bool(self._discarding)

    # The files

    def on_found(self, candidate: Candidate) -> None:
        """Wait until a new candidate is at rest."""
        if candidate.settings.watch.early_start and not candidate.repeated:
            self._watch(candidate, quiet_seconds(candidate))

    def on_changed(self, candidate: Candidate) -> None:
        """Discard what was made of the former content; wait again if nothing was."""
        self._rested.pop(candidate.path, None)
        self._discard(candidate.path, "changed")
        if self._run is not None and self._run.candidate is candidate:
            self._run.ask_to_stop("changed")
        if candidate.path not in self._timers:
            self.on_found(candidate)

    def on_left(self, candidate: Candidate) -> None:
        """Discard what was made of a candidate, unless it has settled and is queued."""
        if (timer := self._timers.pop(candidate.path, None)) is not None:
            timer.cancel()
        self._rested.pop(candidate.path, None)
        if not self._tracker.is_active(candidate.path):
            self._discard(candidate.path, "not_processed")
            if self._run is not None and self._run.candidate is candidate:
                self._run.ask_to_stop("not_processed")

    def _watch(self, candidate: Candidate, seconds: float) -> None:
        # One timer runs to its end while a file grows: a recording changes many times a second.
        self._timers[candidate.path] = asyncio.get_running_loop().call_later(seconds, self._look, candidate)

    def _look(self, candidate: Candidate) -> None:
        del self._timers[candidate.path]
        quiet = quiet_seconds(candidate)
        if not candidate.may_start_early or quiet >= candidate.settle_seconds:
            return
        if (left := candidate.changed_at + quiet - now()) > 0:
            self._watch(candidate, left)
        else:
            self._rested[candidate.path] = candidate
            self.wake.set()

    # The usual jobs

    def make_way(self, job: Job) -> asyncio.Task[JobResult] | None:
        """Return the early job whose end a usual job has to wait for; it is asked to stop unless it is of use."""
        if (run := self._run) is None:
            return None
        if run.job == job:
            run.is_due = not run.stop_reason
        else:
            run.ask_to_stop("other_job")
        return run.task

    def end_turn(self, path: str, result: JobResult | None) -> None:
        """Forget what was prepared for a measurement whose usual job has ended, or has not begun."""
        if result is not None and result.early:
            self._prepared.pop(path, None)
        else:
            self._discard(path, "not_used")

    def abandon(self, reason: str) -> None:
        """Discard everything that is not waited for by a usual job."""
        if self._run is not None:
            self._run.ask_to_stop(reason)
        for path in list(self._prepared):
            self._discard(path, reason)

    def on_progress(self, progress: Progress) -> None:
        """Handle a progress report of a job."""
        if self._run is not None and self._run.job.job_id == progress.job_id:
            self._run.running.sign_of_life()

    def hold(self) -> bool:
        """Stop the clock of the early job, if there is one; return whether so."""
        if self._run is not None:
            self._run.running.hold()
        return self._run is not None

    def resume(self) -> None:
        """Start the clock of the early job again."""
        if self._run is not None:
            self._run.running.resume()

    # The early jobs

    async def keep_starting(self) -> None:
        """Start early jobs, one at a time, until cancelled; everything that was prepared is discarded then."""
        try:
            while True:
                await self.wake.wait()
                self.wake.clear()
                while (candidate := self._next()) is not None:
                    await self._start(candidate)
        finally:
            self._tracker.observer = None
            for timer in self._timers.values():
                timer.cancel()
            self.abandon("stopped")
            if self._discarding:
                await asyncio.wait(self._discarding, timeout=STOP_SECONDS)

    def _next(self) -> Candidate | None:
        """Return the next candidate to process; None if there is none, or it may not be processed now."""
        if not self._is_free() or len(self._prepared) >= MAX_PREPARED or not self._rested:
            return None
        candidate = max(self._rested.values(), key=lambda rested: rested.settings.watch.priority)
        return self._rested.pop(candidate.path)

    async def _start(self, candidate: Candidate) -> None:
        """Process a candidate, if it is complete and nothing is known of its content."""
        stamp = candidate.stamp
        candidate.may_start_early = False
        try:
            entry = await self._inspect(candidate, stamp)
        except sqlite3.Error:
            raise
        except Exception:  # noqa: BLE001 -- the usual inspection reports it when the settle time has passed
            return
        if entry is None:
            return
        if not self._is_settling(candidate, stamp):
            self._look_again(candidate)
        elif self._is_free():
            await self._process(candidate, stamp, entry)
        else:
            self._try_again(candidate, stamp)

    async def _inspect(self, candidate: Candidate, stamp: Stamp) -> Entry | None:
        """Return the row of a candidate with its content; None if it is not to be processed early."""
        recorded = self._tracker.may_be_result(candidate.path)
        found = await self._inspector.inspect(candidate.path, stamp.size, recorded=recorded)
        if found.stamp != stamp:
            self._look_again(candidate)
            return None
        if found.content is None:
            # These verdicts need only the first bytes of the file, and a recording ends with a change.
            candidate.may_start_early = found.verdict in {"open_for_writing", "truncated"}
            return None
        if self._ledger.find(candidate.path, found.content, found.pphash) is not None:
            return None
        entry = dataclasses.replace(
            self._ledger.get(candidate.entry_id),
            **stamp._asdict(),
            ppid=found.ppid,
            pphash=found.pphash,
            frames=found.frames,
            sample=found.sample,
            digest=found.content.digest,
            started_at=utc_now(),
        )
        return entry if await self._outputs.check(entry) is None else None

    async def _process(self, candidate: Candidate, stamp: Stamp, entry: Entry) -> None:
        self._discard(candidate.path, "changed")
        job = await with_spool(job_of(self._settings, entry), entry, self._tracker.spools)
        if not self._is_settling(candidate, stamp):
            return
        limit = Deadline(self._settings.resources.job_timeout_seconds, stamp.size)
        running = RunningJob(job, self._executor, limit, self.forced, prepare_job)
        self._ledger.note_untidy(os.fspath(job.path_out.parent))
        task = asyncio.create_task(running.result(), name=f"early {job.job_id}")
        run = self._run = EarlyRun(candidate, entry, stamp, job, running, task)
        job_log(entry).info("early.started", output=os.fspath(job.path_out))
        self._lifecycle.announce()
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            self._run = None
            self._prepared[candidate.path] = run
            self._judge(run)
            self._lifecycle.announce()

    def _judge(self, run: EarlyRun) -> None:
        """Keep a result that was prepared from the present content of its file, and discard any other."""
        path = run.candidate.path
        try:
            result = run.task.result()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 -- the usual job reports it
            self._give_up(run, error)
            return
        if result.outcome != "done":
            self._give_up(run, DcnumdError(result.reason, result.reason))
        elif run.stop_reason or not self._tracker.is_current(path, run.stamp):
            self._discard(path, run.stop_reason or "changed")
        else:
            told = {"frames": result.frames, "events": result.events, "seconds": round(result.seconds, 3)}
            job_log(run.entry).info("early.prepared", **told)

    def _give_up(self, run: EarlyRun, error: BaseException) -> None:
        """Forget a job that has prepared nothing."""
        del self._prepared[run.candidate.path]
        reason = error.reason if isinstance(error, DcnumdError) else "internal"
        if isinstance(error, JobCancelledError):
            reason = run.stop_reason or "stopped"
        job_log(run.entry).info("early.discarded", reason=reason)
        if reason == "other_job":
            self._try_again(run.candidate, run.stamp)
        if isinstance(error, WorkerError):
            self._tidy(run.job.path_out.parent)

    def _try_again(self, candidate: Candidate, stamp: Stamp) -> None:
        """Let a candidate wait for another early start, because it was none of its faults that this one ended."""
        if self._is_settling(candidate, stamp):
            candidate.may_start_early = True
            self._rested[candidate.path] = candidate

    def _look_again(self, candidate: Candidate) -> None:
        """Wait until a candidate is at rest that has changed while it was inspected, as at the end of a recording."""
        candidate.may_start_early = True
        if self._tracker.is_waiting(candidate) and candidate.path not in self._timers:
            self._watch(candidate, quiet_seconds(candidate))

    def _is_settling(self, candidate: Candidate, stamp: Stamp) -> bool:
        return self._tracker.is_waiting(candidate) and candidate.stamp == stamp

    def _discard(self, path: str, reason: str) -> None:
        """Remove what was prepared for a path, if there is anything."""
        if (run := self._prepared.pop(path, None)) is None:
            return
        job_log(run.entry).info("early.discarded", reason=reason)
        future = asyncio.wrap_future(self._executor.pool.submit(discard_job, run.job.job_id))
        self._discarding.add(future)
        future.add_done_callback(lambda done: self._note_discarded(done, run.job.path_out.parent))
        self.wake.set()

    def _note_discarded(self, done: asyncio.Future[bool], folder: pathlib.Path) -> None:
        """Have the temporary file removed if the process that had prepared it was lost."""
        self._discarding.discard(done)
        if done.cancelled() or done.exception() is not None or not done.result():
            self._tidy(folder)


def quiet_seconds(candidate: Candidate) -> float:
    """Return the time without a change after which a candidate is at rest [s]."""
    return max(QUIET_SECONDS, candidate.settle_seconds / 10)
