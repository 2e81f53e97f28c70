"""What the daemon says of its state, as frozen values: who shows it needs nothing else of the daemon.

Times are UTC, ISO 8601.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal


@dataclasses.dataclass(frozen=True, slots=True)
class Recording:
    """A file that is being written."""

    path: str
    size: int
    """[bytes]"""
    bytes_per_second: float
    seconds: float
    """For how long it has been seen growing [s]."""


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
    """A measurement that waits: to be complete, or for its turn."""

    id: int
    path: str
    state: Literal["settling", "queued"]
    since: str
    reason: str
    """Why it waits longer than others; mostly empty."""
    error: str
    """What exactly is in the way."""


@dataclasses.dataclass(frozen=True, slots=True)
class Running:
    """The measurement that is being processed."""

    id: int
    path: str
    sample: str
    stage: str
    frames_done: int
    frames: int
    frames_per_second: float
    seconds_left: float | None
    """None while nothing can be said."""
    started: str
    held: bool
    """It stands still because something is being recorded."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """A measurement that came to an end."""

    id: int
    path: str
    name: str
    sample: str
    state: Literal["done", "failed", "skipped"]
    ended: str
    frames: int | None
    events: int | None
    seconds: float | None
    light: str
    """``green``, ``yellow``, ``red`` or ``grey``; empty without a report."""
    warnings: tuple[str, ...]
    reason: str
    error: str
    output: str
    has_report: bool
    report_wanted: bool = False
    """It is still to be made."""


@dataclasses.dataclass(frozen=True, slots=True)
class Folder:
    """A watched folder."""

    path: str
    reachable: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """A folder of results."""

    path: str
    free_bytes: int | None
    """Room there; None as long as that is not known."""


@dataclasses.dataclass(frozen=True, slots=True)
class Blocked:
    """A folder that takes no results just now, for which measurements wait."""

    folder: str
    problem: Literal["disk.low", "output.blocked"]
    """The event by which the log told it."""
    reason: str
    error: str
    waiting: int
    """Number of measurements that wait for it."""


LATENCY_BOUNDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Upper bounds of the intervals in which the latency of results is counted [s]."""


@dataclasses.dataclass(frozen=True, slots=True)
class Latency:
    """Distribution of the time from a complete measurement to its result."""

    counts: tuple[int, ...] = (0,) * len(LATENCY_BOUNDS)
    """Number of results within each of `LATENCY_BOUNDS`, including those within the smaller ones."""
    number: int = 0
    """Number of results."""
    seconds: float = 0.0
    """Sum of their latencies [s]."""

    def with_one(self, seconds: float) -> Latency:
        """Return this distribution with one more result."""
        counts = (count + (seconds <= bound) for count, bound in zip(self.counts, LATENCY_BOUNDS, strict=True))
        return Latency(tuple(counts), self.number + 1, self.seconds + seconds)


@dataclasses.dataclass(frozen=True, slots=True)
class Totals:
    """What was counted since the start of the daemon."""

    finished: int
    failed: Mapping[str, int]
    """By reason."""
    skipped: int
    frames: int
    events: int
    seconds: float
    """Time that the processing took [s]."""
    reports: int
    reports_failed: int
    worker_losses: int
    lights: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Reports by their traffic light."""
    latency: Latency = Latency()


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """What is going on at one moment."""

    version: str
    pid: int
    started: str
    time: str
    ready: bool
    healthy: bool
    stopping: bool
    paused: bool
    held_for_recording: bool
    folders: tuple[Folder, ...]
    outputs: tuple[Output, ...]
    blocked: tuple[Blocked, ...]
    counts: Mapping[str, int]
    """Measurements in each state of the ledger."""
    queue: int
    oldest_wait_seconds: float
    recording: tuple[Recording, ...]
    waiting: tuple[Waiting, ...]
    running: Running | None
    done: tuple[Ended, ...]
    failed: tuple[Ended, ...]
    last_success: str | None
    plot_id: int | None
    """The measurement whose plot `Control.plot` returns."""
    also_running: tuple[Running, ...] = ()
    """Further measurements that are being processed, where several are at the same time."""
