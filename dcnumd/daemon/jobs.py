"""Takes measurements from the queue and has the pipeline process them, one after the other."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import errno
import os
import pathlib
import shutil
import time
import uuid
from collections.abc import Callable

import structlog

from dcnumd.config import Settings
from dcnumd.daemon.child import Child
from dcnumd.daemon.ledger import Ledger
from dcnumd.daemon.records import Entry, Stamp, State
from dcnumd.daemon.settle import Gate, job_log
from dcnumd.errors import DcnumdError, JobCancelledError, ResultError, WorkerError
from dcnumd.logic.executor import run_job
from dcnumd.logic.job import Job, JobResult, Progress

log = structlog.get_logger()

PROGRESS_SECONDS = 5.0
"""A running job is mentioned in the log at most so often."""
STOP_SECONDS = 2.5
"""A job that was asked to stop has so long before its process is killed."""
DISK_SECONDS = 10.0
"""Free space is looked at so often while it is short."""
UNREACHABLE = frozenset(
    {errno.EIO, errno.ENOENT, errno.ESTALE, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ENOTCONN}
)
"""What the system says of a share that is down; it may come back."""


class JobRunner:
    """The queue, and the one job that is running.

    Parameters
    ----------
    settings
        How jobs are made, limited and repeated.
    ledger
        Where their way is recorded.
    on_end
        Called whenever a job has ended.
    once
        A full disk fails a job instead of making it wait.
    """

    def __init__(self, settings: Settings, ledger: Ledger, on_end: Callable[[], None], *, once: bool = False) -> None:
        self._worker_pids: set[int] = set()
        self.running: Entry | None = None
        self.last_success: str | None = ledger.last_success()
        self.forced = asyncio.Event()
        """Set to end a stopping job without further patience."""
        self.pipeline = Child("pipeline", settings.log, settings.resources.nice, self._on_progress)
        self._settings = settings
        self._ledger = ledger
        self._on_end = on_end
        self._once = once
        self._waiting: collections.deque[tuple[Entry, float]] = collections.deque()
        self._filled = asyncio.Event()
        self._stopping = False
        self._reported_at = 0.0
        self._disk_low = False

    def enqueue(self, entry: Entry) -> None:
        """Append a measurement to the queue."""
        self._waiting.append((entry, time.monotonic()))
        self._filled.set()

    @property
    def queue_length(self) -> int:
        """Number of measurements that wait for their turn."""
        return len(self._waiting)

    def oldest_wait(self) -> float:
        """Return for how long the first in the queue has been waiting [s]."""
        return time.monotonic() - self._waiting[0][1] if self._waiting else 0.0

    async def keep_running(self, gate: Gate) -> None:
        """Process what the queue holds, until cancelled; a running job is then put back."""
        while not self._stopping:
            self._filled.clear()
            if not self._waiting:
                await self._filled.wait()
                continue
            if self._settings.resources.pause_while_acquiring:
                await gate.quiet.wait()
            if not self._once:
                await self._have_pipeline()
            queued, _ = self._waiting[0]
            try:
                entry = self._ledger.get(queued.id)
                # What was queued may have been replaced by another content since.
                if entry.state is State.QUEUED:
                    await self._process(entry, gate)
            except KeyError:
                # It was forgotten since; the next scan finds it anew.
                gate.leave_queue(queued.path)
            except ValueError as error:
                # Its row went another way meanwhile; whatever the mistake, it costs this row and not the daemon.
                job_log(queued).error(
                    "job.failed",
                    reason="internal",
                    error=str(error),
                    error_type=type(error).__name__,
                    attempt=queued.attempts + 1,
                    will_retry=False,
                    exc_info=error,
                )
                gate.leave_queue(queued.path)
            finally:
                if self._waiting and self._waiting[0][0] is queued:
                    self._waiting.popleft()
                self.running = None
            self._on_end()

    async def _have_pipeline(self) -> None:
        """Start the pipeline process again if it is gone: a start that fails costs no measurement an attempt."""
        while True:
            try:
                await self.pipeline.start()
            except DcnumdError as error:
                seconds = self._settings.retry.backoff_seconds
                log.warning("worker.failed", role=self.pipeline.name, error=error.message, retry_in_seconds=seconds)
                await asyncio.sleep(seconds)
            else:
                return

    async def _process(self, entry: Entry, gate: Gate) -> None:
        """Process one measurement and record what came of it."""
        stamp = await asyncio.to_thread(Stamp.at, entry.path)
        if stamp != entry.stamp or stamp is None:
            self._give_back(entry, stamp, gate)
            return
        try:
            await self._wait_for_room(self._job(entry), stamp.size)
        except Exception as error:  # noqa: BLE001 -- the boundary of one job: no job may stop the others
            self._give_up(entry, error, gate)
            return
        # That may have taken long, and another content may have taken the place of this one.
        stamp = await asyncio.to_thread(Stamp.at, entry.path)
        entry = self._ledger.get(entry.id)
        if entry.state is not State.QUEUED:
            return
        if stamp != entry.stamp:
            self._give_back(entry, stamp, gate)
            return
        job = self._job(entry)
        try:
            entry = self.running = self._ledger.move(entry.id, State.RUNNING, frames_done=0)
            self._waiting.popleft()
            self._reported_at = time.monotonic()
            job_log(entry).info("job.started", attempt=entry.attempts + 1, output=os.fspath(job.path_out))
            result = await self._supervise(job)
        except JobCancelledError as error:
            if self._stopping:
                self._ledger.move(entry.id, State.QUEUED, "interrupted")
            else:
                # Nobody here asked for it, so the line to the process must be broken.
                gate.fail(entry, WorkerError(error.message, error.reason, transient=True))
        except Exception as error:  # noqa: BLE001 -- the boundary of one job: no job may stop the others
            self._give_up(entry, error, gate)
        else:
            await self._record(entry, result, gate)

    def _give_up(self, entry: Entry, error: Exception, gate: Gate) -> None:
        """Record a failure, unless it is about a file that is another one now."""
        entry = self._ledger.get(entry.id)
        if entry.state not in {State.QUEUED, State.RUNNING}:
            return
        if (now := Stamp.at(entry.path)) == entry.stamp:
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
        job = self._settings.job_for(pathlib.Path(entry.path), entry.job_id)
        return dataclasses.replace(job, existing="replace") if entry.replace_output else job

    async def _supervise(self, job: Job) -> JobResult:
        """Run a job in the pipeline process within its time, and end it when this task is cancelled."""
        call_id = uuid.uuid4().hex
        call = asyncio.create_task(self.pipeline.call(run_job, job, call_id), name=f"job {job.job_id}")
        limit = self._settings.resources.job_timeout_seconds
        try:
            await asyncio.wait([call], timeout=limit or None)
        except asyncio.CancelledError:
            # From here on this task ends by itself, so that the ledger is written whatever happens.
            self._stopping = True
            await self._end(call, call_id)
            if _was_killed(call):
                raise JobCancelledError(f"{job.path_in}: stopped") from None
            return call.result()
        if not call.done():
            await self._end(call, call_id)
            if call.exception() is not None:
                message = f"{job.path_in}: not finished after {limit:g} s (resources.job_timeout_seconds)"
                raise WorkerError(message, "timeout", transient=True)
        return call.result()

    async def _end(self, call: asyncio.Task[JobResult], call_id: str) -> None:
        """End the running job: ask, then kill."""
        self.pipeline.ask_to_stop(call_id)
        forced = asyncio.create_task(self.forced.wait(), name="forced stop")
        await asyncio.wait([call, forced], timeout=STOP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()
        if not call.done():
            self.pipeline.kill()
            await asyncio.wait([call])

    async def _record(self, entry: Entry, result: JobResult, gate: Gate) -> None:
        # The gate amends the stamp when it finds the same content under a new date.
        entry = self._ledger.get(entry.id)
        if result.reason == "output_exists" and self._ledger.was_interrupted(entry.id):
            # The previous run was killed after it had put its result in place, and before it could say so.
            done = self._ledger.finish(entry.id, os.fspath(result.path_out), attempts=entry.attempts + 1)
            self.last_success = done.finished_at
            gate.leave_queue(entry.path, entry.stamp)
            job_log(done).info("job.finished", reason=result.reason, frames=done.frames, output=done.output)
            return
        if result.outcome == "skipped":
            job_log(entry).info("job.skipped", reason=result.reason, output=os.fspath(result.path_out))
            self._ledger.move(entry.id, State.SKIPPED, result.reason, output=os.fspath(result.path_out))
            gate.leave_queue(entry.path, entry.stamp)
            return
        now = await asyncio.to_thread(Stamp.at, entry.path)
        if now != entry.stamp:
            # Whatever comes between, a result that may mix two states of the file is not kept.
            self._ledger.amend(entry.id, replace_output=1)
            if self._stopping:
                self._ledger.move(entry.id, State.QUEUED, "interrupted")
                return
            now = await self._look_again(entry, now, gate)
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
        )
        self.last_success = done.finished_at
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

    async def _look_again(self, entry: Entry, now: Stamp | None, gate: Gate) -> Stamp | None:
        """Return the stamp of a file that changed; it becomes that of its row if only its date is new."""
        try:
            found = await gate.look_into(entry.path)
        except DcnumdError:
            return now
        if found.verdict == "complete" and found.content == entry.content:
            self._ledger.amend(entry.id, stamp=found.stamp)
        return found.stamp

    def _on_progress(self, progress: Progress) -> None:
        entry = self.running
        now = time.monotonic()
        if entry is None or entry.job_id != progress.job_id or now - self._reported_at < PROGRESS_SECONDS:
            return
        self._reported_at = now
        self._ledger.amend(entry.id, frames_done=progress.frames_done)
        job_log(entry).info(
            "job.progress",
            stage=progress.stage,
            frames_done=progress.frames_done,
            frames=progress.frames,
            events=progress.events,
        )

    async def _wait_for_room(self, job: Job, size: int) -> None:
        """Wait until the disk has room for a result as large as its measurement, and then some.

        Raises
        ------
        ResultError
            If the place of the result cannot be reached; with ``--once``, instead of waiting.
        """
        needed = size + self._settings.resources.min_free_gb * 1e9
        while True:
            folder, free = await asyncio.to_thread(_room_for, job.path_out)
            if free >= needed:
                break
            if self._once:
                raise ResultError(
                    f"{folder}: {free / 1e9:.1f} GB are free, {needed / 1e9:.1f} GB are needed "
                    "(the measurement and resources.min_free_gb)",
                    "no_space",
                )
            if not self._disk_low:
                log.warning("disk.low", folder=os.fspath(folder), free_bytes=free, needed_bytes=int(needed))
            self._disk_low = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.forced.wait(), DISK_SECONDS)
        if self._disk_low:
            log.info("disk.ok", folder=os.fspath(folder), free_bytes=free)
        self._disk_low = False


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


def _room_for(path_out: pathlib.Path) -> tuple[pathlib.Path, int]:
    """Return the folder that is there already for a result, and how many bytes are free in it."""
    try:
        folder = next(parent for parent in path_out.parents if parent.exists())
        return folder, shutil.disk_usage(folder).free
    except OSError as error:
        raise ResultError(
            f"{path_out.parent}: cannot be reached: {error.strerror}",
            "output_unreachable",
            transient=error.errno in UNREACHABLE,
        ) from error


def _was_killed(call: asyncio.Task[JobResult]) -> bool:
    return isinstance(call.exception(), WorkerError)
