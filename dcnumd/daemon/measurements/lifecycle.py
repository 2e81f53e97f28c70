"""The lifecycle of measurements; only this module changes their state in the ledger and logs the transitions.

    found -> seen -> settling -> queued -> running -> done, failed or skipped

A transient error leads from running back to queued, and so does the end of the daemon. A file that changes goes back
to settling. `dcnumd.daemon.ledger.records.TRANSITIONS` lists all transitions.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from dcnumd.daemon.measurements.probe import Inspection
from dcnumd.daemon.measurements.queue import JobQueue
from dcnumd.daemon.measurements.tracker import Candidate, Tracker
from dcnumd.errors import DcnumdError, MeasurementError
from dcnumd.logic.job import JobResult, Progress
from dcnumd.logic.stamp import CHANGED, Stamp

log = structlog.get_logger()


class Listener(Protocol):
    """Interface of an object that is notified of the progress of measurements."""

    def on_change(self) -> None:
        """Handle a change of the state of any measurement."""

    def on_failed(self, reason: str) -> None:
        """Handle a failure after which there is no further attempt."""

    def on_skipped(self) -> None:
        """Handle a job that had nothing to do."""

    def on_done(self, entry: Entry, result: JobResult) -> None:
        """Handle a new or recognized result."""


class Lifecycle:
    """Changes the states of measurements, and keeps ledger, tracker and queue consistent.

    Parameters
    ----------
    settings
        Settings of processing and of repeated attempts.
    ledger
        Ledger in which each transition is recorded.
    listener
        Object that is notified of changes.
    """

    def __init__(self, settings: Settings, ledger: Ledger, listener: Listener) -> None:
        self.settings = settings
        self.ledger = ledger
        self.tracker = Tracker(settings, ledger)
        self.queue = JobQueue(settings.resources.order)
        self.failures = 0
        """Number of measurements that failed in this session without a further attempt."""
        self.last_success: str | None = ledger.last_success()
        """Time at which the last result was finished (UTC, ISO 8601)."""
        self._listener = listener
        self._report_state: ReportState = "wanted" if settings.report.enabled else ""
        self._keys = {id(group): settings_key(group) for group in (settings, *settings.groups)}

    # Found and settling

    def recover(self) -> None:
        """Queue the measurements that the previous run left running; call this once, before the first scan."""
        for entry in self.ledger.recover():
            job_log(entry).info("job.recovered")

    def admit(self, path: str, stamp: Stamp, missing: frozenset[str]) -> bool:
        """Continue with a found file from its state in the ledger; return whether there is nothing to do for it.

        `missing` contains the results that are missing and must be made again.
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
        interrupted = entry is not None and entry.stamp == stamp and bool(entry.interrupted)
        if entry is None or entry.content is not None:
            entry = self.ledger.add(path, stamp, uuid.uuid4().hex[:12])
        self.ledger.move(entry.id, State.SETTLING, attempts=0, **stamp._asdict())
        log.info("file.detected", path=path, size=stamp.size)
        self.tracker.wait_for(path, stamp, entry.id, group.watch.settle_seconds, interrupted=interrupted)
        return False

    def note_incomplete(self, candidate: Candidate, verdict: str) -> None:
        """Record that a file is not complete although it has not changed for its settle time."""
        with contextlib.suppress(KeyError):
            self.ledger.amend(candidate.entry_id, stamp=candidate.stamp)
            self.ledger.move(candidate.entry_id, State.SETTLING, verdict)

    def settle(self, candidate: Candidate, found: Inspection, missing: frozenset[str]) -> None:
        """Queue a complete measurement, unless it is done."""
        if found.content is None:
            raise ValueError(f"a complete file has a content: {found}")
        with self.ledger.transaction():
            entry = self.ledger.identify(
                dataclasses.replace(self.ledger.get(candidate.entry_id), **candidate.stamp._asdict()),
                found.content,
                found.ppid,
                found.pphash,
                settings_key=self._keys[id(candidate.settings)],
                settled_at=utc_now(),
                frames=found.frames,
                sample=found.sample,
                interrupted=int(found.interrupted),
            )
            if not candidate.repeated:
                if found.interrupted:
                    log.warning("file.interrupted", path=entry.path, frames=found.frames)
                log.info("file.settled", path=entry.path, **found.log_fields())
            if entry.state is State.RUNNING:
                # The content being processed is unchanged; only the stamp is new, which the end of the job handles.
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
        """Skip a file that is a result of dcnumd rather than a measurement, until it changes."""
        log.info("file.ignored", path=candidate.path, reason="own_output")
        with self.ledger.transaction():
            key = self._keys[id(candidate.settings)]
            self.ledger.amend(candidate.entry_id, stamp=candidate.stamp, settings_key=key)
            self.ledger.close_others(self.ledger.move(candidate.entry_id, State.SKIPPED, "own_output"))
        self.tracker.note_settled(candidate.path, candidate.stamp)
        self.leave(candidate)

    def refuse(self, candidate: Candidate, error: Exception) -> None:
        """Record an error of a candidate."""
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
        """Skip a candidate whose file no longer exists."""
        log.info("file.ignored", path=candidate.path, reason="vanished")
        with contextlib.suppress(KeyError):
            self.ledger.move(candidate.entry_id, State.SKIPPED, "vanished")
        if not self.tracker.is_active(candidate.path):
            self.tracker.leave_queue(candidate.path)
        self.leave(candidate)

    def leave_for_next_run(self, candidate: Candidate) -> None:
        """Stop waiting for a file that is being written; its row is kept for the next run."""
        log.info("file.ignored", path=candidate.path, reason="still_written")
        self.leave(candidate)

    def close(self, entry: Entry, reason: str) -> None:
        """Skip an unfinished row whose file disappeared while it was not tracked."""
        log.info("file.ignored", path=entry.path, reason=reason)
        with contextlib.suppress(KeyError, ValueError):
            self.ledger.move(entry.id, State.SKIPPED, reason)
        self.tracker.leave_queue(entry.path)

    def leave(self, candidate: Candidate) -> None:
        """Stop waiting for a candidate, and notify the listener."""
        self.tracker.stop_waiting(candidate)
        self.announce()

    def announce(self) -> None:
        """Notify the listener that the state of a measurement has changed."""
        self._listener.on_change()

    # Queued and running

    def start(self, entry: Entry, output: pathlib.Path) -> Entry:
        """Record the start of a job, and return the updated row."""
        with self.ledger.transaction():
            self.ledger.note_untidy(os.fspath(output.parent))
            entry = self.ledger.move(entry.id, State.RUNNING, frames_done=0)
        # The measurement may have been queued again while its folder was checked.
        self.queue.remove(entry)
        job_log(entry).info("job.started", attempt=entry.attempts + 1, output=os.fspath(output))
        return entry

    def note_progress(self, entry: Entry, progress: Progress, *, logged: bool) -> None:
        """Record the progress of a job, and log it if `logged` is set."""
        # A failure to write progress is harmless: the next report follows soon, and the end of the job is not skipped.
        with contextlib.suppress(sqlite3.Error):
            self.ledger.amend(entry.id, frames_done=progress.frames_done)
        if logged:
            _log_progress(entry, progress)

    def put_back(self, entry: Entry, reason: str, error: str = "") -> Entry:
        """Queue the measurement of a job that was interrupted or could not write its result; count no attempt."""
        return self.ledger.move(entry.id, State.QUEUED, reason, error)

    def queue_again(self, entry: Entry, reason: str, error: str) -> None:
        """Queue the measurement of a job that the executor lost, for its next turn; count no attempt."""
        job_log(entry).warning("job.returned", reason=reason, error=error)
        self._enqueue(self.put_back(entry, reason, error))

    def finish(self, entry: Entry, result: JobResult) -> None:
        """Record a new result, and notify the listener."""
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
        """Record that a job had nothing to do; if a complete result of the same pipeline exists, it is done."""
        output = os.fspath(result.path_out)
        if result.reason != "output_exists":
            job_log(entry).info("job.skipped", reason=result.reason, output=output, error=result.error)
            self.ledger.move(entry.id, State.SKIPPED, result.reason, result.error, output=output)
            self.leave_queue(entry.path, entry.stamp)
            self._listener.on_skipped()
            return
        # The previous run may have been killed between putting its result in place and recording it.
        interrupted = self.ledger.was_interrupted(entry.id)
        counts = {"frames": result.frames, "events": result.events}
        attempts = entry.attempts + interrupted
        done = self.ledger.finish(
            entry.id, output, reason=result.reason, attempts=attempts, report_state=self._report_state, **counts
        )
        self._leave_done(done)
        event = "job.finished" if interrupted else "job.skipped"
        job_log(done).info(event, reason=result.reason, output=output, **counts)
        self._listener.on_done(done, result)

    def give_back(self, entry: Entry, stamp: Stamp | None, reason: str = "input_changed") -> None:
        """Let a queued or running measurement settle again since its file has changed; skip it if `stamp` is None."""
        with contextlib.suppress(KeyError):
            if self.ledger.get(entry.id).state in FINAL:
                # This row was replaced by one with another content, which is queued under the same path.
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
        """Reject the result of a file that changed during its job, and let the measurement settle again."""
        error = MeasurementError(f"{entry.path}: {CHANGED}", "input_changed")
        _log_failure(entry, error, will_retry=True, discarded=True)
        self.give_back(entry, stamp)

    def fail(self, entry: Entry, error: Exception) -> None:
        """Record and log a failed attempt; schedule another one if the error is transient and attempts are left."""
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
        """Record an unexpected error, which affects this file only; it is not processed until it changes.

        `entry_id` is its row; None means the latest row of `path`. Nothing is recorded if the row was forgotten.
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
        """Remove `path` from the active files; if `stamp` is given, remember that there is nothing to do for it."""
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
        # If a scan has noticed a change of the file already, there is a candidate for it, which settles as usual.
        if entry.stamp is not None and self.tracker.candidate(entry.path) is None:
            interrupted = bool(entry.interrupted)
            self.tracker.wait_for(entry.path, entry.stamp, entry.id, delay, repeated=True, interrupted=interrupted)

    def _leave_done(self, done: Entry) -> None:
        self.last_success = done.finished_at
        self.leave_queue(done.path, done.stamp)


@contextlib.contextmanager
def one_file(lifecycle: Lifecycle, path: str, entry_id: int | None = None) -> Iterator[None]:
    """Record any error of this block as an error of one file, so that others and the daemon continue."""
    try:
        yield
    except sqlite3.Error:
        # An error of the ledger is not the fault of a measurement.
        raise
    except Exception as error:  # noqa: BLE001 -- the boundary of one file
        lifecycle.lose(path, entry_id, error)


def begin_anew(ledger: Ledger, entry: Entry) -> str:
    """Request that a measurement is processed again as if it were new; return a text that says what will happen.

    Raises
    ------
    ValueError
        If the measurement is being processed.
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


def _log_progress(entry: Entry, progress: Progress) -> None:
    told = {"frames_done": progress.frames_done, "frames": progress.frames, "events": progress.events}
    place = {"worker": progress.worker} if progress.worker else {}
    job_log(entry).info("job.progress", stage=progress.stage, **told, **place)


def _log_failure(entry: Entry, error: Exception, *, will_retry: bool, discarded: bool = False) -> str:
    """Log a failed attempt, as a warning if `discarded` is set; return the reason of the error."""
    reason = error.reason if isinstance(error, DcnumdError) else "internal"
    # Only an unexpected error needs a traceback; the message of an expected one is sufficient.
    trace: dict[str, Any] = {} if isinstance(error, DcnumdError) else {"exc_info": error}
    told = {"reason": reason, "error": str(error), "error_type": type(error).__name__, "attempt": entry.attempts + 1}
    if discarded:
        job_log(entry).warning("job.failed", **told, will_retry=will_retry, **trace)
    else:
        job_log(entry).error("job.failed", **told, will_retry=will_retry, **trace)
    return reason
