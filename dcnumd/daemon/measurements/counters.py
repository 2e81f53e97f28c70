"""What has happened since the start, counted."""

from __future__ import annotations

import collections
import dataclasses

from dcnumd.logic.job import JobResult


@dataclasses.dataclass(slots=True)
class Counters:
    """Counts that only grow; who looks from time to time sees from them how fast things happen."""

    finished: int = 0
    """Measurements,"""
    frames: int = 0
    """their frames,"""
    events: int = 0
    """what was found in them,"""
    seconds: float = 0.0
    """and how long their processing took."""
    skipped: int = 0
    failed: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Measurements that failed for good, by reason."""
    reports: int = 0
    reports_failed: int = 0

    def add(self, result: JobResult) -> None:
        """Count a new result."""
        self.finished += 1
        self.frames += result.frames
        self.events += result.events
        self.seconds += result.seconds
