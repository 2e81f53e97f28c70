"""Processes recordings in SWMR mode while they grow, so that their result is there soon after their end.

What comes of it is a file with events (spool), which the job of the measurement uses after the end, as far as it holds
for the complete file. So nothing here can make a result wrong, and whatever goes wrong here only costs time.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import pathlib
from collections.abc import Callable, Collection

import structlog

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.clock import now
from dcnumd.daemon.ledger.records import Entry, job_log
from dcnumd.daemon.measurements.counters import Counters
from dcnumd.daemon.measurements.lifecycle import Lifecycle
from dcnumd.daemon.measurements.report_process import ReportCalls
from dcnumd.daemon.measurements.tracker import Candidate
from dcnumd.daemon.recordings.drawing import Drawing
from dcnumd.daemon.recordings.process import LiveProcess
from dcnumd.daemon.recordings.reading import Reading
from dcnumd.daemon.recordings.readings import LOST, Readings
from dcnumd.daemon.recordings.spools import Spools
from dcnumd.errors import DcnumdError, WorkerError
from dcnumd.logic.job import JobResult
from dcnumd.logic.live.messages import LiveRequest
from dcnumd.report.live_calls import (
    LiveStep,
    advance_recording,
    drop_recording,
    finish_recording,
    open_recording,
)
from dcnumd.status import Live

log = structlog.get_logger()

MOST = 4
"""Largest number of recordings that are processed at the same time."""
STEP_SECONDS = 0.5
"""Approximate time of one step in the processing of a recording [s]."""
PAUSE_SECONDS = 0.25
"""Time between two steps if nothing is left to do [s]."""
IDLE_SECONDS = 1.0
"""Time between two looks at recordings that are complete, or are not read [s]."""
CHECK_SECONDS = 2.0
"""Time between two looks at whether a recording has changed to SWMR mode [s]."""
DRAW_SECONDS = 0.75
"""Shortest time between two plots of a recording [s]; with whole steps in between, there is one each second."""
TELL_SECONDS = 10.0
"""Time between two log lines about the progress of a recording [s]."""
FINISH_SECONDS = 30.0
"""Longest time that a job waits for the events of its recording [s]."""
LEAST_BYTES = 10**6
"""Smallest useful size of the file with the events [bytes]."""


class Recordings:
    """Reads recordings while they grow, and keeps their events for the jobs of the measurements.

    Parameters
    ----------
    settings
        All settings.
    lifecycle
        Lifecycle with the tracker, which knows the files that grow.
    process
        The process that reads recordings; None if none are read.
    reports
        What judges and draws their events.
    counters
        Counts over all sessions.
    on_change
        Called when there is something new to show.
    """

    def __init__(
        self,
        settings: Settings,
        lifecycle: Lifecycle,
        process: LiveProcess | None,
        reports: ReportCalls,
        counters: Counters,
        on_change: Callable[[], object],
    ) -> None:
        self.paused = False
        """Whether no further recording is read, because somebody has paused the processing."""
        self.shares: Callable[[], Collection[str]] = tuple
        """Function that returns the watched folders that are on network shares."""
        self._settings = settings
        self._tracker = lifecycle.tracker
        self._ledger = lifecycle.ledger
        self._process = process
        self._counters = counters
        self._on_change = on_change
        self._drawing = Drawing(settings, reports, MOST, on_change)
        self.plot = self._drawing.plot
        most, free = settings.live.spool_mb * 10**6, int(settings.resources.min_free_gb * 1e9)
        self._spools = Spools(settings.state_folder(), most, free)
        self._readings = Readings(lifecycle)
        self._refused: dict[str, tuple[int, str, float]] = {}
        """Recordings that are not read: inode of the file, reason, and time from which on it is considered again."""
        self._wake = asyncio.Event()

    # What others ask

    def shown(self, candidate: Candidate) -> tuple[Live | None, str]:
        """Return what is known of a file that grows, and else the reason why it is not read."""
        if (reading := self._readings.at(candidate.path)) is not None:
            return reading.shown(), ""
        reason = "live_off" if self._process is None else ""
        return None, reason or self._refused.get(candidate.path, (0, "", 0.0))[1]

    @property
    def paths(self) -> list[str]:
        """The recordings that are read at present."""
        return [reading.path for reading in self._readings if not reading.complete]

    async def spool_for(self, path: str, inode: int | None) -> pathlib.Path | None:
        """Return the file with the events of a measurement, and complete it if need be; None if there is none.

        The measurement is complete, and its job is about to begin.
        """
        if (reading := await self._readings.of(path, inode)) is None:
            return None
        reading.wanted = True
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS):
                await reading.over.wait()
        return reading.spool if reading.complete and reading.has_events else None

    def on_done(self, entry: Entry, result: JobResult) -> None:
        """Log that the result of a recording is there, if it was processed while it grew."""
        reading = self._readings.at(entry.path)
        if reading is None or not reading.complete:
            return
        seconds = now() - reading.grew_at
        self._counters.live_latency = self._counters.live_latency.with_one(seconds)
        job_log(entry).info(
            "live.finished",
            seconds=round(seconds, 3),
            frames=result.frames,
            frames_known=result.frames_known,
            frames_again=reading.progress.frames_again,
        )
        self._forget(reading)

    # The work

    def clear(self) -> None:
        """Remove the files with events that an earlier session has left behind."""
        self._spools.clear()

    async def keep_reading(self) -> None:
        """Read recordings until cancelled; those that are not over are then given up."""
        self.clear()
        if self._process is None:
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._process.keep_ready(), name="live process")
                while True:
                    busy = await self._take_turns(self._process, group)
                    await self._wait(busy=busy)
        finally:
            for reading in self._readings:
                if not reading.complete:
                    self._give_up(reading, "interrupted", "the daemon stops, or its settings have changed")
                self._forget(reading)

    async def _wait(self, *, busy: bool) -> None:
        """Wait until there may be something to do."""
        if busy:
            return
        if not self._readings:
            await self._tracker.written.wait()
        at_rest = self._readings and all(reading.complete for reading in self._readings)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_SECONDS if at_rest else PAUSE_SECONDS):
                await self._wake.wait()
        self._wake.clear()

    async def _take_turns(self, process: LiveProcess, group: asyncio.TaskGroup) -> bool:
        """Make one step with each recording; return whether more is to be done at once."""
        busy = False
        for reading in self._readings:
            try:
                busy |= await self._take_turn(process, reading, group)
            except DcnumdError as error:
                self._give_up(reading, error.reason, error.message)
        for path, (inode, *_) in list(self._refused.items()):
            if (known := self._tracker.candidate(path)) is None or known.stamp.inode != inode:
                del self._refused[path]
        for candidate in self._tracker.being_written():
            path, inode = candidate.path, candidate.stamp.inode
            if self._readings.at(path) is None and await self._readings.of(path, inode) is None:
                await self._consider(process, candidate)
        return busy

    async def _take_turn(self, process: LiveProcess, reading: Reading, group: asyncio.TaskGroup) -> bool:
        """Make one step with a recording; return whether more is to be done at once."""
        why = self._readings.why_unneeded(reading)
        if not reading.complete and process.pid != reading.pid:
            self._give_up(reading, "worker_killed", "the live process ended")
        elif why is not None and not (why[0] in LOST and self._readings.seek(reading, why)):
            self._end(reading, *why)
        elif reading.complete:
            if await self._is_written_again(reading):
                self._forget(reading)
        elif reading.wanted:
            await self._finish(process, reading)
        else:
            busy = await self._advance(process, reading, group)
            # After the end of the recording, what is left is processed until the job wants the events.
            if busy or not reading.progress.ended:
                return busy
            await self._finish(process, reading)
        return False

    async def _finish(self, process: LiveProcess, reading: Reading) -> None:
        """Complete the file with the events of a recording."""
        reading.has_events = await process.call(finish_recording, reading.key)
        candidate = self._readings.candidate_of(reading)
        reading.complete, reading.end = True, candidate.stamp if candidate is not None else None
        reading.over.set()
        self._on_change()

    async def _advance(self, process: LiveProcess, reading: Reading, group: asyncio.TaskGroup) -> bool:
        draw = reading.drawing is None and now() >= reading.draw_at
        before, begin = reading.progress, now()
        step: LiveStep = await process.call(advance_recording, reading.key, STEP_SECONDS, want_values=draw)
        progress, moment = step.progress, now()
        reading.note_progress(progress, moment)
        self._counters.live_frames += max(0, progress.frames_done - before.frames_done)
        self._counters.live_frames_again += max(0, progress.frames_again - before.frames_again)
        if reading.falls_behind and not reading.lagged:
            reading.lagged = True
            log.warning("live.lagging", path=reading.path, lag_seconds=round(progress.lag_seconds, 2))
        if moment - reading.told_at >= TELL_SECONDS:
            reading.told_at = moment
            self._tell(reading)
        if step.values:
            reading.draw_at = moment + DRAW_SECONDS
            reading.drawing = group.create_task(self._drawing.draw(reading, step.values), name=f"draw {reading.path}")
        # A step that ends early has nothing to do until more is recorded.
        return moment - begin >= STEP_SECONDS / 2

    def _tell(self, reading: Reading) -> None:
        progress = reading.progress
        log.info(
            "live.progress",
            path=reading.path,
            frames=progress.frames,
            frames_done=progress.frames_done,
            frames_again=progress.frames_again,
            events=progress.events,
            lag_seconds=round(progress.lag_seconds, 2),
        )

    # Beginning and end

    async def _consider(self, process: LiveProcess, candidate: Candidate) -> None:
        """Begin to read a file that grows, if that is possible."""
        inode, path = candidate.stamp.inode, candidate.path
        *_, again_at = self._refused.get(path, (0, "", 0.0))
        if self.paused or not process.ready or now() < again_at or self._tracker.may_be_result(path):
            return
        try:
            superblock = await self._tracker.superblock_now(path)
        except OSError:
            return
        reason = ""
        if superblock is None or not superblock.open_in_swmr_mode:
            reason = "live_mode"
        elif candidate.folder in self.shares():
            # HDF5 does not promise a consistent file where parts of it may arrive in another order.
            reason = "live_share"
        elif len(self.paths) >= MOST:
            reason = "live_many"
        if reason:
            # An instrument may create a file first, and change to SWMR mode then; nothing is said of that moment.
            told = reason if path in self._refused else ""
            self._refused[path] = inode, told, now() + CHECK_SECONDS
        else:
            await self._begin(process, candidate)

    async def _begin(self, process: LiveProcess, candidate: Candidate) -> None:
        path, moment = candidate.path, now()
        try:
            entry = self._ledger.get(candidate.entry_id)
            spool = self._spools.new(entry.job_id)
        except (KeyError, OSError):
            # The row was forgotten, which the next scan notices; or the state folder is gone, which ends the daemon.
            return
        job = routing.watched_job_for(self._settings, pathlib.Path(path), entry.job_id)
        limit, key = self._spools.limit(MOST), spool.stem
        reading = Reading(path, entry.id, candidate.stamp.inode, key, spool, grew_at=moment, told_at=moment)
        # before the call, so that what it opens is closed if the session ends meanwhile
        reading.pid = process.pid
        self._readings.add(reading)
        try:
            if limit < LEAST_BYTES:
                raise WorkerError(f"{os.fspath(spool.parent)}: the disk is full", "no_space")
            request = LiveRequest(job, spool, limit, self._settings.live.view_seconds)
            await process.call(open_recording, key, request)
        except DcnumdError as error:
            self._give_up(reading, error.reason, error.message)
            return
        reading.pid = process.pid
        log.info("live.started", path=path, spool_limit_bytes=limit)
        self._on_change()

    async def _is_written_again(self, reading: Reading) -> bool:
        """Return whether a recording that had ended grows again, so that its events are not all of them."""
        candidate = self._readings.candidate_of(reading)
        if candidate is None or candidate.stamp == reading.end:
            return False
        with contextlib.suppress(OSError):
            superblock = await self._tracker.superblock_now(reading.path)
            return superblock is not None and superblock.open_in_swmr_mode
        return False

    def _end(self, reading: Reading, reason: str, error: str) -> None:
        """End a reading whose events nobody needs."""
        if reading.complete and reason not in LOST:
            # The log says already what became of the measurement.
            self._forget(reading)
        else:
            self._give_up(reading, reason, error)

    def _give_up(self, reading: Reading, reason: str, error: str) -> None:
        """Stop to read a recording; its measurement is processed after the end like any other."""
        self._counters.live_abandoned[reason] += 1
        log.warning("live.abandoned", path=reading.path, reason=reason, error=error)
        self._refused[reading.path] = reading.inode, reason, math.inf
        self._forget(reading)

    def _forget(self, reading: Reading) -> None:
        """Remove all that is known of a recording, and the file with its events."""
        self._readings.remove(reading)
        reading.over.set()
        if self._process is not None and self._process.pid == reading.pid and not reading.complete:
            self._process.submit(drop_recording, reading.key)
        reading.complete = False
        self._spools.remove(reading.spool)
        self._on_change()
