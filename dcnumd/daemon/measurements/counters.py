"""Counts of what has happened since the daemon started."""

from __future__ import annotations

import collections
import dataclasses

from dcnumd.logic.job import JobResult


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
    reports: int = 0
    """Number of reports made."""
    reports_failed: int = 0
    """Number of reports that could not be made."""

    def add(self, result: JobResult) -> None:
        """Add a new result to the counts."""
        self.finished += 1
        self.frames += result.frames
        self.events += result.events
        self.seconds += result.seconds
