"""Counts of what has happened since the daemon started."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt

from dcnumd.daemon.ledger.records import Entry
from dcnumd.logic.job import JobResult
from dcnumd.status import Latency


@dataclasses.dataclass(slots=True)
class Counters:
    """Counts that never decrease, so that rates can be computed from two readings."""

    finished: int = 0
    """Number of measurements processed."""
    frames: int = 0
    """Number of frames in the processed measurements."""
    events: int = 0
    """Number of events in the processed measurements."""
    seconds: float = 0.0
    """Total processing time of the processed measurements [s]."""
    skipped: int = 0
    """Number of jobs that had nothing to do."""
    failed: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Number of measurements that failed without another attempt, by reason."""
    lights: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Number of reports made, by traffic light."""
    reports_failed: int = 0
    """Number of reports that could not be made."""

    live_frames: int = 0
    """Number of frames processed while they were recorded."""
    live_frames_again: int = 0
    """Number of times that such a frame was processed again."""
    live_abandoned: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Number of recordings that were given up while they were read, by reason."""
    live_latency: Latency = dataclasses.field(default_factory=Latency)
    """Times from the last recorded frame to the result, for measurements that were processed during their recording."""

    latency: Latency = dataclasses.field(default_factory=Latency)
    """Times from complete measurements to their results."""
    light_latency: Latency = dataclasses.field(default_factory=Latency)
    """Times from results to their traffic lights."""

    def add(self, entry: Entry, result: JobResult) -> None:
        """Add a new result to the counts."""
        self.finished += 1
        self.frames += result.frames
        self.events += result.events
        self.seconds += result.seconds
        if entry.settled_at is not None and entry.finished_at is not None:
            ended, settled = map(dt.datetime.fromisoformat, (entry.finished_at, entry.settled_at))
            # The ledger has times of day; the clock may have been set back in between.
            self.latency = self.latency.with_one(max(0.0, (ended - settled).total_seconds()))
