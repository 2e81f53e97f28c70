"""The way of a measurement, step by step: nobody else moves its state in the ledger, or logs its steps.

    found -> seen -> settling -> queued -> running -> done, failed or skipped

A fault that may pass leads from running back to queued, and so does the end of the daemon. A file that changes on the
way goes back to settling. `dcnumd.daemon.ledger.records.TRANSITIONS` has all steps that there are.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
import uuid
from collections.abc import Iterator
from typing import Any, Protocol

import structlog

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.ledger.records import FINAL, TRANSITIONS, Entry, ReportState, State, job_log, settings_key, utc_now
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.measurements.backoff import backoff_seconds
from dcnumd.daemon.measurements.probe import Look
from dcnumd.daemon.measurements.queue import JobQueue
from dcnumd.daemon.measurements.tracker import Candidate, Tracker
from dcnumd.errors import DcnumdError, MeasurementError
from dcnumd.logic.job import JobResult, Progress
from dcnumd.logic.stamp import CHANGED, Stamp

log = structlog.get_logger()


class Listener(Protocol):
    """Who wants to know where measurements are."""

    def on_change(self) -> None:
        """Take note that a measurement is somewhere else on its way."""

    def on_failed(self, reason: str) -> None:
        """Take note that one has failed for good."""

    def on_skipped(self) -> None:
        """Take note that there was nothing to do for a job."""

    def on_done(self, entry: Entry, result: JobResult) -> None:
        """Take note of a result."""


class Lifecycle:
    """Moves measurements along.

    Parameters
    ----------
    settings
        How they are processed, and when attempts are repeated.
    ledger
        Where each step is recorded.
    listener
        Hears of the steps.
    """

    def __init__(self, settings: Settings, ledger: Ledger, listener: Listener) -> None:
        self.settings = settings
        self.ledger = ledger
        self.tracker = Tracker(settings, ledger)
        self.queue = JobQueue(settings.resources.order)
        self.failures = 0
        """Measurements that failed for good in this session."""
        self.last_success: str | None = ledger.last_success()
        """When the last result was made, UTC, ISO 8601."""
        self._listener = listener
        self._report_state: ReportState = "wanted" if settings.report.enabled else ""
        self._keys = {id(group): settings_key(group) for group in (settings, *settings.groups)}

    # Found and settling

    def recover(self) -> None:
        """Put back what a previous run left running; called once, before anything is found."""
        for entry in self.ledger.recover():
            job_log(entry).info("job.recovered")

    def admit(self, path: str, stamp: Stamp, missing: frozenset[str]) -> bool:
        """Have a found file go on where the ledger left it; return whether there is nothing to do for it.

        `missing` are results that are gone and are to be made again.
        """
        group = self.tracker.group_of(path)
        entry = self.ledger.latest(path)
        if entry is not None and entry.stamp == stamp and entry.settings_key == self._keys[id(group)]:
            own_output = entry.state is State.SKIPPED and entry.reason == "own_output"
            has_output = entry.state in {State.DONE, State.SKIPPED} and entry.output and entry.output not in missing
            if entry.state is State.FAILED or own_output or has_output:
                self.tracker.note_settled(path, stamp)
                return True
            if entry.state is State.QUEUED:
                self._enqueue(entry)
                return False
        if entry is None or entry.content is not None:
            entry = self.ledger.add(path, stamp, uuid.uuid4().hex[:12])
        self.ledger.move(entry.id, State.SETTLING, attempts=0)
        self.ledger.amend(entry.id, stamp=stamp)
        log.info("file.detected", path=path, size=stamp.size)
        self.tracker.wait_for(path, stamp, entry.id, group.watch.settle_seconds)
        return False

    def note_incomplete(self, candidate: Candidate, verdict: str) -> None:
        """Record that a quiet file is not complete yet."""
        with contextlib.suppress(KeyError):
            self.ledger.amend(candidate.entry_id, stamp=candidate.stamp)
            self.ledger.move(candidate.entry_id, State.SETTLING, verdict)

    def settle(self, candidate: Candidate, found: Look, missing: frozenset[str]) -> None:
        """Hand on a complete measurement, unless it is done."""
        if found.content is None:
            raise ValueError(f"a complete file has a content: {found}")
        with self.ledger.transaction():
            self.ledger.amend(candidate.entry_id, stamp=candidate.stamp)
            entry = self.ledger.identify(
                self.ledger.get(candidate.entry_id),
                found.content,
                found.ppid,
                found.pphash,
                settings_key=self._keys[id(candidate.settings)],
                settled_at=utc_now(),
                frames=found.frames,
                sample=found.sample,
            )
            if not candidate.repeated:
                log.info("file.settled", path=entry.path, size=found.content.size, frames=found.frames)
            if entry.state is State.RUNNING:
                # Its content is the one being processed: only its stamp is new, and the job's end minds that.
                self.tracker.note_active(entry.path, candidate.stamp)
            elif entry.state is State.DONE and entry.output and entry.output not in missing:
                log.info("file.ignored", path=entry.path, reason="already_done", output=entry.output)
                self.tracker.note_settled(entry.path, candidate.stamp)
            else:
                attempts = entry.attempts if candidate.repeated else 0
                output = routing.output_for(self.settings, pathlib.Path(entry.path))
                replace = int(self.ledger.must_replace(entry, os.fspath(output)))
                self._enqueue(self.ledger.move(entry.id, State.QUEUED, attempts=attempts, replace_output=replace))
            self.ledger.close_others(entry)
        self.leave(candidate)

    def pass_over(self, candidate: Candidate) -> None:
        """Leave a result that was made here alone until it changes: it is no measurement."""
        log.info("file.ignored", path=candidate.path, reason="own_output")
        with self.ledger.transaction():
            key = self._keys[id(candidate.settings)]
            self.ledger.amend(candidate.entry_id, stamp=candidate.stamp, settings_key=key)
            self.ledger.close_others(self.ledger.move(candidate.entry_id, State.SKIPPED, "own_output"))
        self.tracker.note_settled(candidate.path, candidate.stamp)
        self.leave(candidate)

    def refuse(self, candidate: Candidate, error: Exception) -> None:
        """Record what is wrong with a file that is waited for."""
        try:
            self.ledger.amend(candidate.entry_id, stamp=candidate.stamp)
            entry = self.ledger.get(candidate.entry_id)
        except KeyError:
            self.leave(candidate)
            return
        self.tracker.stop_waiting(candidate)
        self.fail(entry, error)
        self.announce()

    def drop(self, candidate: Candidate) -> None:
        """Close the row of a file that is gone before it was complete."""
        log.info("file.ignored", path=candidate.path, reason="vanished")
        with contextlib.suppress(KeyError):
            self.ledger.move(candidate.entry_id, State.SKIPPED, "vanished")
        if not self.tracker.is_active(candidate.path):
            self.tracker.leave_queue(candidate.path)
        self.leave(candidate)

    def leave_for_next_run(self, candidate: Candidate) -> None:
        """Wait no longer for a file that is being written; its row stays for the next run."""
        log.info("file.ignored", path=candidate.path, reason="still_written")
        self.leave(candidate)

    def close(self, entry: Entry, reason: str) -> None:
        """Close the row of a file that went away while nobody looked."""
        log.info("file.ignored", path=entry.path, reason=reason)
        with contextlib.suppress(KeyError, ValueError):
            self.ledger.move(entry.id, State.SKIPPED, reason)
        self.tracker.leave_queue(entry.path)

    def leave(self, candidate: Candidate) -> None:
        """Wait for a file no longer."""
        self.tracker.stop_waiting(candidate)
        self.announce()

    def announce(self) -> None:
        """Tell that something is elsewhere on its way."""
        self._listener.on_change()

    # Queued and running

    def start(self, entry: Entry, output: pathlib.Path) -> Entry:
        """Record that the job of a measurement begins."""
        with self.ledger.transaction():
            self.ledger.note_untidy(os.fspath(output.parent))
            entry = self.ledger.move(entry.id, State.RUNNING, frames_done=0)
        # It may have been queued again while its folder was looked at.
        self.queue.remove(entry)
        job_log(entry).info("job.started", attempt=entry.attempts + 1, output=os.fspath(output))
        return entry

    def note_progress(self, entry: Entry, progress: Progress, *, logged: bool) -> None:
        """Record how far a job is, and log it if that is due."""
        # What cannot be written now is told again soon; if it is the ledger's fault, the job's end will meet it.
        with contextlib.suppress(sqlite3.Error):
            self.ledger.amend(entry.id, frames_done=progress.frames_done)
        if logged:
            told = {"frames_done": progress.frames_done, "frames": progress.frames, "events": progress.events}
            job_log(entry).info("job.progress", stage=progress.stage, **told)

    def put_back(self, entry: Entry, reason: str, error: str = "") -> Entry:
        """Put back a job that was ended since everything ends, or whose result found no place: it costs no attempt."""
        return self.ledger.move(entry.id, State.QUEUED, reason, error)

    def finish(self, entry: Entry, result: JobResult) -> None:
        """Record a new result."""
        done = self.ledger.finish(
            entry.id,
            os.fspath(result.path_out),
            frames=result.frames,
            frames_done=result.frames,
            events=result.events,
            seconds=result.seconds,
            attempts=entry.attempts + 1,
            report_state=self._report_state,
        )
        self._leave_done(done)
        job_log(done).info("job.finished", **result.log_fields())
        self._listener.on_done(done, result)

    def skip(self, entry: Entry, result: JobResult) -> None:
        """Record that a job had nothing to do; a whole result of the same pipeline means that it is done."""
        output = os.fspath(result.path_out)
        if result.reason != "output_exists":
            job_log(entry).info("job.skipped", reason=result.reason, output=output, error=result.error)
            self.ledger.move(entry.id, State.SKIPPED, result.reason, result.error, output=output)
            self.leave_queue(entry.path, entry.stamp)
            self._listener.on_skipped()
            return
        # Perhaps the previous run was killed after it had put its result in place, and before it could say so.
        interrupted = self.ledger.was_interrupted(entry.id)
        counts = {"frames": result.frames, "events": result.events}
        done = self.ledger.finish(
            entry.id,
            output,
            reason=result.reason,
            attempts=entry.attempts + interrupted,
            report_state=self._report_state,
            **counts,
        )
        self._leave_done(done)
        event = "job.finished" if interrupted else "job.skipped"
        job_log(done).info(event, reason=result.reason, output=output, **counts)
        self._listener.on_done(done, result)

    def give_back(self, entry: Entry, stamp: Stamp | None, reason: str = "input_changed") -> None:
        """Have a queued or running measurement settle again, since its file is another one now; or close it."""
        with contextlib.suppress(KeyError):
            if self.ledger.get(entry.id).state in FINAL:
                # What is queued under this path is another content, which took its place.
                return
            if stamp is None:
                job_log(entry).info("job.skipped", reason="vanished")
                self.ledger.move(entry.id, State.SKIPPED, "vanished")
                self.leave_queue(entry.path)
            else:
                self.ledger.move(entry.id, State.SETTLING, reason)
                self.leave_queue(entry.path, comes_back=True)
                self._come_back(entry, 0.0)

    def discard(self, entry: Entry, stamp: Stamp | None) -> None:
        """Give back a measurement that changed during its job, whose result may mix two states of the file."""
        error = MeasurementError(f"{entry.path}: {CHANGED}", "input_changed")
        _log_failure(entry, error, will_retry=True, discarded=True)
        self.give_back(entry, stamp)

    def fail(self, entry: Entry, error: Exception) -> None:
        """Record and report a failed attempt; come back to it later if the fault may pass."""
        attempt = entry.attempts + 1
        transient = isinstance(error, DcnumdError) and error.transient
        will_retry = transient and attempt < self.settings.retry.attempts
        reason = _log_failure(entry, error, will_retry=will_retry)
        text = str(error) or type(error).__name__
        if will_retry:
            self.ledger.move(entry.id, State.QUEUED, reason, text, attempts=attempt)
            self.leave_queue(entry.path, comes_back=True)
            self._come_back(entry, backoff_seconds(self.settings.retry, attempt))
            return
        self.failures += 1
        key = self._keys[id(self.tracker.group_of(entry.path))]
        self.ledger.move(entry.id, State.FAILED, reason, text, attempts=attempt, settings_key=key)
        self.leave_queue(entry.path, entry.stamp)
        self._listener.on_failed(reason)

    def lose(self, path: str, entry_id: int | None, error: Exception) -> None:
        """Record a mistake of dcnumd itself, which costs this file alone: it is left alone until it changes.

        `entry_id` is its row; None: the latest one of `path`. If the row was forgotten meanwhile it was no mistake.
        """
        candidate = self.tracker.candidate(path)
        if candidate is not None and entry_id in (None, candidate.entry_id):
            self.tracker.stop_waiting(candidate)
            self.ledger.amend(candidate.entry_id, stamp=candidate.stamp)
        self.leave_queue(path)
        with contextlib.suppress(KeyError):
            entry = self.ledger.latest(path) if entry_id is None else self.ledger.get(entry_id)
            if entry is not None and State.FAILED in TRANSITIONS[entry.state]:
                self.fail(entry, error)
            elif entry is not None:
                _log_failure(entry, error, will_retry=False)
                self.leave_queue(path, entry.stamp)
        self._listener.on_change()

    def leave_queue(self, path: str, stamp: Stamp | None = None, *, comes_back: bool = False) -> None:
        """Forget that `path` was queued; with its stamp, remember that it needs no further look."""
        self.tracker.leave_queue(path, comes_back=comes_back)
        if stamp is not None:
            self.tracker.note_settled(path, stamp)
        candidate = self.tracker.candidate(path)
        if candidate is not None and self.ledger.has_ended(candidate.entry_id):
            self.leave(candidate)

    def _enqueue(self, entry: Entry) -> None:
        if entry.stamp is not None:
            self.tracker.note_active(entry.path, entry.stamp)
        job_log(entry).info("job.queued")
        self.queue.put(entry, self.tracker.group_of(entry.path).watch.priority)

    def _come_back(self, entry: Entry, delay: float) -> None:
        # A scan may have noticed a change of the file already, and then it settles anew as it is.
        if entry.stamp is not None and self.tracker.candidate(entry.path) is None:
            self.tracker.wait_for(entry.path, entry.stamp, entry.id, delay, repeated=True)

    def _leave_done(self, done: Entry) -> None:
        self.last_success = done.finished_at
        self.leave_queue(done.path, done.stamp)


@contextlib.contextmanager
def one_file(lifecycle: Lifecycle, path: str, entry_id: int | None = None) -> Iterator[None]:
    """Have whatever goes wrong with one file in this block stop no other, nor the daemon."""
    try:
        yield
    except sqlite3.Error:
        # No measurement is to blame for the ledger.
        raise
    except Exception as error:  # noqa: BLE001 -- the boundary of one file
        lifecycle.lose(path, entry_id, error)


def begin_anew(ledger: Ledger, entry: Entry) -> str:
    """Have a measurement processed as if it were new, and return in words what will happen to it.

    Raises
    ------
    ValueError
        It is being processed now.
    """
    if entry.state is State.RUNNING:
        raise ValueError("is being processed now; wait, or stop the daemon first")
    if entry.state in FINAL:
        replace = int(entry.state is State.DONE or bool(entry.replace_output))
        ledger.move(entry.id, State.SEEN, "retry", attempts=0, replace_output=replace)
        return f"will be processed again (was {entry.state})"
    if entry.attempts:
        ledger.amend(entry.id, attempts=0)
        return "will be tried again now"
    return f"is {entry.state} already"


def _log_failure(entry: Entry, error: Exception, *, will_retry: bool, discarded: bool = False) -> str:
    """Log a failed attempt; return its reason. If only its result is discarded, it was nobody's fault."""
    reason = error.reason if isinstance(error, DcnumdError) else "internal"
    # Only a bug needs a traceback; a foreseen fault says what and where itself.
    trace: dict[str, Any] = {} if isinstance(error, DcnumdError) else {"exc_info": error}
    told = {"reason": reason, "error": str(error), "error_type": type(error).__name__, "attempt": entry.attempts + 1}
    if discarded:
        job_log(entry).warning("job.failed", **told, will_retry=will_retry, **trace)
    else:
        job_log(entry).error("job.failed", **told, will_retry=will_retry, **trace)
    return reason
