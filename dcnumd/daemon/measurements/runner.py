"""Takes measurements from the queue and has the pipeline process them, one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import sqlite3
import time
from collections.abc import Callable

import structlog

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.folders.availability import Availability
from dcnumd.daemon.folders.threads import in_thread
from dcnumd.daemon.ledger.records import SURROUNDINGS, Entry, State, job_log
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.measurements.counters import Counters
from dcnumd.daemon.measurements.inspector import Inspector
from dcnumd.daemon.measurements.parking import OutputFolders
from dcnumd.daemon.measurements.pipeline import Overseer
from dcnumd.daemon.measurements.queue import JobQueue, Waiting
from dcnumd.daemon.measurements.reports import Reporter
from dcnumd.daemon.measurements.settle import Gate
from dcnumd.errors import DcnumdError, JobCancelledError, MeasurementError, ResultError, WorkerError
from dcnumd.logic.job import Job, JobResult, KnownContent, Progress
from dcnumd.logic.stamp import Stamp

log = structlog.get_logger()

PROGRESS_SECONDS = 5.0
"""Smallest time between two log lines about the progress of a job [s]."""
NOTE_SECONDS = 2.0
"""Smallest time between two notes of it in the ledger, which `dcnumd status` reads [s]."""


class JobRunner:
    """The queue, and the one job that is running.

    Parameters
    ----------
    settings
        How jobs are made, limited and repeated.
    ledger
        Where their way is recorded.
    overseer
        Has the work done.
    inspector
        Looks into a file that has changed meanwhile.
    availability
        Whether a result has a place.
    reporter
        Has a report made of each result.
    counters
        Counts the results.
    tidy
        Has removed what a killed process left in a folder.
    on_change
        Called whenever a job begins or has ended.
    once
        A folder that takes no result fails a job instead of making it wait.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        overseer: Overseer,
        inspector: Inspector,
        availability: Availability,
        reporter: Reporter,
        counters: Counters,
        tidy: Callable[[pathlib.Path], None],
        on_change: Callable[[], None],
        *,
        once: bool = False,
    ) -> None:
        self.running: Entry | None = None
        self.last_success: str | None = ledger.last_success()
        self.last_job = asyncio.Event()
        """Set to start no further job; `keep_running` ends then."""
        self._settings = settings
        self._ledger = ledger
        self._overseer = overseer
        self._inspector = inspector
        self._reporter = reporter
        self._counters = counters
        self._tidy = tidy
        self._on_change = on_change
        self._once = once
        self._queue = JobQueue(settings.resources.order)
        self._outputs = OutputFolders(settings, ledger, availability, self._queue, self._job)
        self._worker_pids: set[int] = set()
        self._filled = asyncio.Event()
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._has_turn = False
        self._reported_at = self._noted_at = 0.0

    def enqueue(self, entry: Entry) -> None:
        """Add a measurement to the queue."""
        group = self._settings.group_of(pathlib.Path(entry.path))
        self._queue.put(entry, group.watch.priority)
        self._filled.set()

    @property
    def queue_length(self) -> int:
        """Number of measurements that wait for their turn."""
        return len(self._queue)

    @property
    def outputs(self) -> OutputFolders:
        """The folders that results go to."""
        return self._outputs

    @property
    def idle(self) -> bool:
        """Whether no measurement waits or has its turn."""
        return not self._queue and not self._has_turn

    def oldest_wait(self) -> float:
        """Return for how long one has been waiting that waits longest [s]."""
        return self._queue.oldest_wait()

    def pause(self, *, paused: bool) -> None:
        """Start no job from now on, or start jobs again."""
        if paused:
            self._wanted.clear()
        else:
            self._wanted.set()

    def finish_up(self) -> None:
        """Start no further job; `keep_running` ends when the running one has."""
        self.last_job.set()
        self._filled.set()

    async def keep_running(self, gate: Gate) -> None:
        """Process what the queue holds, until cancelled; a running job is then put back."""
        while not self._overseer.stopping and not self.last_job.is_set():
            self._filled.clear()
            waiting = self._queue.take()
            if waiting is None:
                await self._filled.wait()
                continue
            self._has_turn = True
            await self._wanted.wait()
            if self._settings.resources.pause_while_acquiring:
                await gate.quiet.wait()
            if not self._once:
                await self._overseer.have_pipeline()
            await self._take_turn(waiting, gate)
            self._has_turn = False
            self._on_change()

    async def keep_courteous(self, gate: Gate) -> None:
        """Hold the running job while a watched file is being written."""
        while True:
            await gate.written.wait()
            self._overseer.hold()
            self._reporter.hold()
            begin, job, written = time.monotonic(), self.running, gate.candidates.written()
            if job is not None:
                job_log(job).info("pipeline.held", written=written.path if written else "")
            try:
                await gate.quiet.wait()
            finally:
                self._overseer.resume()
                self._reporter.resume()
            if job is not None:
                job_log(job).info("pipeline.resumed", seconds=round(time.monotonic() - begin, 1))

    async def keep_outputs(self) -> None:
        """Let measurements go on whose folder takes results again."""
        await self._outputs.keep_looking(self._filled.set)

    def on_progress(self, progress: Progress) -> None:
        """Take note of what the pipeline process says about the running job."""
        self._overseer.sign_of_life()
        entry = self.running
        now = time.monotonic()
        if entry is None or entry.job_id != progress.job_id:
            return
        if now - self._noted_at >= NOTE_SECONDS:
            self._noted_at = now
            # What cannot be written now is told again soon; if it is the ledger's fault, the job's end will meet it.
            with contextlib.suppress(sqlite3.Error):
                self._ledger.amend(entry.id, frames_done=progress.frames_done)
        if now - self._reported_at < PROGRESS_SECONDS:
            return
        self._reported_at = now
        job_log(entry).info(
            "job.progress",
            stage=progress.stage,
            frames_done=progress.frames_done,
            frames=progress.frames,
            events=progress.events,
        )

    async def _take_turn(self, waiting: Waiting, gate: Gate) -> None:
        """Process one measurement if it is still what was queued."""
        queued = waiting.entry
        self._reporter.give_way(idle=True)
        try:
            entry = self._ledger.get(queued.id)
            # What was queued may have been replaced by another content since.
            if entry.state is State.QUEUED:
                await self._process(dataclasses.replace(waiting, entry=entry), gate)
        except sqlite3.Error:
            # No measurement is to blame for the ledger.
            raise
        except Exception as error:  # noqa: BLE001 -- its row went another way, for example, or was forgotten
            gate.lose(queued.path, queued.id, error)
        finally:
            self.running = None
            self._reporter.give_way(idle=False)

    async def _process(self, waiting: Waiting, gate: Gate) -> None:
        """Process one measurement and record what came of it."""
        entry = waiting.entry
        if not await self._is_as_queued(entry, gate):
            return
        if (obstacle := await self._outputs.look(entry)) is not None:
            if self._once:
                gate.fail(entry, obstacle)
            else:
                self._outputs.park(waiting, obstacle)
            return
        # That may have taken long, and another content may have taken the place of this one.
        entry = self._ledger.get(entry.id)
        if entry.state is not State.QUEUED or not await self._is_as_queued(entry, gate):
            return
        await self._attempt(dataclasses.replace(waiting, entry=entry), gate)

    async def _attempt(self, waiting: Waiting, gate: Gate) -> None:
        """Run the job of a measurement, whatever comes of it."""
        entry, job = waiting.entry, self._job(waiting.entry)
        try:
            with self._ledger.transaction():
                self._ledger.note_untidy(os.fspath(job.path_out.parent))
                entry = self.running = self._ledger.move(entry.id, State.RUNNING, frames_done=0)
            # It may have been queued again while its folder was looked at.
            self._queue.remove(entry)
            self._reported_at = self._noted_at = time.monotonic()
            job_log(entry).info("job.started", attempt=entry.attempts + 1, output=os.fspath(job.path_out))
            self._on_change()
            result = await self._overseer.run(job, entry.size or 0)
        except JobCancelledError as error:
            if self._overseer.stopping:
                self._ledger.move(entry.id, State.QUEUED, "interrupted")
            else:
                # Nobody here asked for it, so the line to the process must be broken.
                await self._give_up(entry, WorkerError(error.message, error.reason, transient=True), gate)
        except ResultError as error:
            if error.reason not in SURROUNDINGS or self._once:
                await self._give_up(entry, error, gate)
            else:
                entry = self._ledger.move(entry.id, State.QUEUED, error.reason, error.message)
                self._outputs.park(dataclasses.replace(waiting, entry=entry), error, failed=True)
        except sqlite3.Error:
            # No measurement is to blame for the ledger.
            raise
        except Exception as error:  # noqa: BLE001 -- the boundary of one job: no job may stop the others
            await self._give_up(entry, error, gate)
            if isinstance(error, WorkerError) and not self._overseer.stopping:
                self._tidy(job.path_out.parent)
        else:
            await self._record(entry, result, gate)

    async def _is_as_queued(self, entry: Entry, gate: Gate) -> bool:
        """Return whether the file is still the one that was queued; if not, give it back to the gate."""
        try:
            stamp = await in_thread(self._folder_of(entry), Stamp.at, entry.path)
        except OSError:
            gate.settle_again(entry, "unreachable")
            return False
        if stamp == entry.stamp and stamp is not None:
            return True
        self._give_back(entry, stamp, gate)
        return False

    async def _give_up(self, entry: Entry, error: Exception, gate: Gate) -> None:
        """Record a failure, unless it is about a file that is another one now."""
        entry = self._ledger.get(entry.id)
        if entry.state not in {State.QUEUED, State.RUNNING}:
            return
        try:
            now = await in_thread(self._folder_of(entry), Stamp.at, entry.path)
        except OSError:
            now = entry.stamp
        # A scan may have noticed already what the job has met.
        changed = isinstance(error, MeasurementError) and error.reason == "changed"
        if now == entry.stamp and not changed:
            gate.fail(entry, error)
        else:
            self._give_back(entry, now, gate)

    def _give_back(self, entry: Entry, stamp: Stamp | None, gate: Gate) -> None:
        """Return a measurement to the gate because its file is gone or another one now."""
        if stamp is not None:
            gate.settle_again(entry, "input_changed")
            return
        job_log(entry).info("job.skipped", reason="vanished")
        self._ledger.move(entry.id, State.SKIPPED, "vanished")
        gate.leave_queue(entry.path)

    def _job(self, entry: Entry) -> Job:
        job = routing.watched_job_for(self._settings, pathlib.Path(entry.path), entry.job_id)
        if entry.stamp is not None and entry.digest:
            job = dataclasses.replace(job, known=KnownContent(entry.stamp, entry.digest))
        return dataclasses.replace(job, existing="replace") if entry.replace_output else job

    async def _record(self, entry: Entry, result: JobResult, gate: Gate) -> None:
        # The gate amends the stamp when it finds the same content under a new date.
        entry = self._ledger.get(entry.id)
        if result.outcome == "skipped":
            self._record_skipped(entry, result, gate)
            return
        self._outputs.succeeded(entry)
        now = await self._stamp(entry)
        if now != entry.stamp:
            # Whatever comes between, a result that may mix two states of the file is not kept.
            self._ledger.amend(entry.id, replace_output=1)
            if self._overseer.stopping:
                self._ledger.move(entry.id, State.QUEUED, "interrupted")
                return
            now = await self._look_again(entry, now)
            entry = self._ledger.get(entry.id)
        if now != entry.stamp:
            job_log(entry).warning(
                "job.failed",
                reason="input_changed",
                error="the measurement changed while it was processed",
                error_type="MeasurementError",
                attempt=entry.attempts + 1,
                will_retry=True,
            )
            self._give_back(entry, now, gate)
            return
        done = self._ledger.finish(
            entry.id,
            os.fspath(result.path_out),
            frames=result.frames,
            frames_done=result.frames,
            events=result.events,
            seconds=result.seconds,
            attempts=entry.attempts + 1,
            report_state=self._reporter.state_of_new,
        )
        self.last_success = done.finished_at
        self._reporter.want(done)
        self._counters.add(result)
        for pid in set(result.worker_pids) - self._worker_pids:
            log.info("worker.started", pid=pid, role="segmenter")
        self._worker_pids = set(result.worker_pids)
        gate.leave_queue(entry.path, entry.stamp)
        job_log(done).info(
            "job.finished",
            frames=result.frames,
            events=result.events,
            seconds=round(result.seconds, 3),
            frames_per_second=round(result.frames / result.seconds, 1) if result.seconds else 0.0,
            output=os.fspath(result.path_out),
            masks_dropped=result.masks_dropped,
            **_time_spent(result),
        )

    async def _look_again(self, entry: Entry, now: Stamp | None) -> Stamp | None:
        """Return the stamp of a file that changed; it becomes that of its row if only its date is new."""
        try:
            found = await self._inspector.look_into(entry.path, entry.size or 0)
        except DcnumdError:
            return now
        if found.verdict == "complete" and found.content == entry.content:
            self._ledger.amend(entry.id, stamp=found.stamp)
        return found.stamp

    def _record_skipped(self, entry: Entry, result: JobResult, gate: Gate) -> None:
        """Record that there was nothing to do; a whole result of the same pipeline means that it is done."""
        output = os.fspath(result.path_out)
        if result.reason == "output_exists":
            # Perhaps the previous run was killed after it had put its result in place, and before it could say so.
            interrupted = self._ledger.was_interrupted(entry.id)
            counts = {"frames": result.frames, "events": result.events}
            entry = self._ledger.finish(
                entry.id,
                output,
                reason=result.reason,
                attempts=entry.attempts + interrupted,
                report_state=self._reporter.state_of_new,
                **counts,
            )
            self._reporter.want(entry)
            self.last_success = entry.finished_at
            event = "job.finished" if interrupted else "job.skipped"
            job_log(entry).info(event, reason=result.reason, output=output, **counts)
        else:
            job_log(entry).info("job.skipped", reason=result.reason, output=output, error=result.error)
            self._ledger.move(entry.id, State.SKIPPED, result.reason, result.error, output=output)
        self._counters.skipped += 1
        gate.leave_queue(entry.path, entry.stamp)

    def _folder_of(self, entry: Entry) -> str:
        path = pathlib.Path(entry.path)
        return os.fspath(self._settings.watched_folder_of(path) or path.parent)

    async def _stamp(self, entry: Entry) -> Stamp | None:
        """Return the stamp of a file after the work; one that cannot be reached is taken for unchanged."""
        try:
            return await in_thread(self._folder_of(entry), Stamp.at, entry.path)
        except OSError:
            return entry.stamp


def _time_spent(result: JobResult) -> dict[str, object]:
    """Return where the time of a job went, for its log line."""
    total = sum(result.stages.values())
    return {
        "stage_seconds": {stage: round(seconds, 3) for stage, seconds in result.stages.items()},
        "stage_shares": {stage: round(seconds / total, 3) for stage, seconds in result.stages.items()},
        "waiting_seconds": {who: round(seconds, 3) for who, seconds in result.waiting.items()},
        "bottleneck": result.bottleneck,
        "bytes_read": result.bytes_read,
        "bytes_written": result.bytes_written,
    }
