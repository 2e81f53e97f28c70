"""The state of the daemon as frozen dataclasses, which are sufficient to show it.

Times are UTC, ISO 8601.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

Fault = Literal["ledger.unwritable", "worker.failed", "executor.unreachable"]
"""Why nothing can be processed; the names are those of the log events."""


@dataclasses.dataclass(frozen=True, slots=True)
class Course:
    """A quantity over time: the middle of each interval [s since the start], and its value.

    Intervals without a known value are left out.
    """

    time_s: tuple[float, ...] = ()
    values: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class LiveCheck:
    """Check of the traffic light that warns during a recording."""

    name: str
    """Name of the check, such as ``clogging``."""
    state: Literal["warning", "alarm"]
    text: str
    """What is wrong, and what to do."""
    since: str
    """When the check began to warn."""


@dataclasses.dataclass(frozen=True, slots=True)
class Live:
    """What is known of a measurement while it is recorded."""

    frames: int
    """Number of frames that were recorded."""
    frames_done: int
    """Number of these that were processed."""
    frames_again: int
    """Number of times that a frame was processed again, because its background had changed."""
    events: int
    seconds: float
    """Time from the first to the last recorded frame [s]."""
    lag_seconds: float
    """Time from the last processed to the last recorded frame [s]."""
    lagging: bool
    """Whether the camera is faster than the processing, so that some frames are processed after the end."""
    spool_bytes: int
    """Size of the file with the events [bytes]."""
    spool_full: bool
    """Whether this file has its largest size, so that further frames are processed again after the end."""
    events_per_second: float | None = None
    """Event rate in the last seconds; None if it is not known."""
    yield_per_frame: float | None = None
    """Number of events per processed frame; None before the first."""
    light: str = ""
    """Traffic light as it would be if the recording ended now; empty before it is known."""
    checks: tuple[LiveCheck, ...] = ()
    """The checks that warn."""
    event_rate: Course = Course()
    """Events per second over time."""
    brightness: Course = Course()
    """Brightness of the background over time [grey levels]."""
    plot: int = 0
    """Number of the plot that `Control.live_plot` returns, which increases with each new one; 0 without a plot."""


@dataclasses.dataclass(frozen=True, slots=True)
class Recording:
    """File that is being written."""

    path: str
    size: int
    """Size of the file [bytes]."""
    bytes_per_second: float | None
    """How fast the file grows; None if it is at rest, or has not been observed for long enough."""
    seconds: float
    """Time for which the file has been observed to grow [s]."""
    id: int = 0
    """Number of the measurement."""
    live: Live | None = None
    """What is known of its events; None if it is not processed while it is recorded."""
    not_live: str = ""
    """Code of the reason why it is not; empty if it is."""


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
    """Measurement that waits for its file to be complete, or to be processed."""

    id: int
    path: str
    state: Literal["settling", "queued"]
    since: str
    reason: str
    """Code of the reason why it waits longer than others; usually empty."""
    error: str
    """Message that describes the obstacle."""


@dataclasses.dataclass(frozen=True, slots=True)
class Running:
    """Measurement that is being processed."""

    id: int
    path: str
    sample: str
    stage: str
    frames_done: int
    frames: int
    frames_per_second: float
    seconds_left: float | None
    """Estimated remaining time [s]; None if there is no estimate."""
    started: str
    held: bool
    """Whether the job is suspended because of a recording."""
    worker: str = ""
    """Name of the worker of the cluster that processes it; empty on this computer, and before it begins."""
    early: bool = False
    """Whether the measurement has not settled yet, so that its result may still be discarded."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """Measurement in a final state."""

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
    """Colour of the traffic light: ``green``, ``yellow``, ``red`` or ``grey``; empty as long as it is not known."""
    warnings: tuple[str, ...]
    reason: str
    error: str
    output: str
    has_report: bool
    report_wanted: bool = False
    """Whether the report is still to be made."""


@dataclasses.dataclass(frozen=True, slots=True)
class Folder:
    """Watched folder."""

    path: str
    reachable: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """Folder of results."""

    path: str
    free_bytes: int | None
    """Free space [bytes]; None as long as it is unknown."""


@dataclasses.dataclass(frozen=True, slots=True)
class Blocked:
    """Folder that currently accepts no results, or no reports, and for which measurements wait."""

    folder: str
    problem: Literal["disk.low", "output.blocked", "report.blocked"]
    """Name of the condition; `report.blocked` if it is a folder of reports."""
    reason: str
    error: str
    waiting: int
    """Number of measurements that wait for the folder, or whose reports do."""


@dataclasses.dataclass(frozen=True, slots=True)
class ExcludedWorker:
    """Worker of a cluster that gets few jobs or none, because it could not do what others can."""

    worker: str
    """Name of the worker."""
    reason: str
    """Code of the reason why the last job failed there."""
    error: str


@dataclasses.dataclass(frozen=True, slots=True)
class Cluster:
    """Dask cluster that processes measurements."""

    scheduler: str
    """Address of the scheduler, or file that contains it."""
    connected: bool
    workers: int
    """Number of workers that can process measurements."""
    refused: int
    """Number of workers that have another version of dcnumd, or other kernels."""
    capacity: int
    """Number of measurements of this daemon that may be processed at the same time."""
    fallback: bool = False
    """Whether this computer processes the measurements, because there has been no scheduler or no worker for long."""
    excluded: tuple[ExcludedWorker, ...] = ()
    """The workers that were excluded, and have not completed a job since."""

    @property
    def useful(self) -> bool:
        """Whether the scheduler can be reached, and there is a worker."""
        return self.connected and self.workers > 0


LATENCY_BOUNDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Upper bounds of the intervals in which latencies are counted [s]."""


@dataclasses.dataclass(frozen=True, slots=True)
class Latency:
    """Distribution of a time, such as the one from a complete measurement to its result."""

    counts: tuple[int, ...] = (0,) * len(LATENCY_BOUNDS)
    """Number of times within each of `LATENCY_BOUNDS`, including those within the smaller ones."""
    number: int = 0
    """Number of times."""
    seconds: float = 0.0
    """Sum of the times [s]."""

    def with_one(self, seconds: float) -> Latency:
        """Return this distribution with one more time."""
        counts = (count + (seconds <= bound) for count, bound in zip(self.counts, LATENCY_BOUNDS, strict=True))
        return Latency(tuple(counts), self.number + 1, self.seconds + seconds)


@dataclasses.dataclass(frozen=True, slots=True)
class Totals:
    """Counts since the start of the daemon."""

    finished: int
    failed: Mapping[str, int]
    """Number of failed measurements by reason code."""
    skipped: int
    frames: int
    events: int
    seconds: float
    """Total duration of the processing [s]."""
    reports: int
    reports_failed: int
    worker_losses: int
    lights: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Reports by their traffic light."""
    latency: Latency = Latency()
    """Times from complete measurements to their results."""
    light_latency: Latency = Latency()
    """Times from results to their traffic lights."""
    live_frames: int = 0
    """Number of frames that were processed while they were recorded."""
    live_frames_again: int = 0
    """Number of times that such a frame was processed again, because its background had changed."""
    live_abandoned: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Recordings that were given up while they were read, by reason code."""
    live_latency: Latency = Latency()
    """Times from the last recorded frame to the result, for measurements that were processed during their recording."""


@dataclasses.dataclass(frozen=True, slots=True)
class Unacknowledged:
    """What failed or got a red light since somebody acknowledged it last."""

    failed: int = 0
    """Number of measurements that failed."""
    red: int = 0
    """Number of measurements whose report has a red light."""
    latest: Ended | None = None
    """The latest failure or, without one, the latest measurement with a red light."""


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """State of the daemon at one moment."""

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
    """Number of measurements in each state of the ledger."""
    queue: int
    oldest_wait_seconds: float
    recording: tuple[Recording, ...]
    waiting: tuple[Waiting, ...]
    running: Running | None
    done: tuple[Ended, ...]
    failed: tuple[Ended, ...]
    last_success: str | None
    plot_id: int | None
    """Number of the measurement whose plot `Control.plot` returns."""
    unacknowledged: Unacknowledged = dataclasses.field(default_factory=Unacknowledged)
    """What nobody has acknowledged yet."""
    faults: tuple[Fault, ...] = ()
    """Why nothing is processed; empty if `healthy`."""
    blocked_reports: tuple[Blocked, ...] = ()
    """Folders that accept no reports."""
    also_running: tuple[Running, ...] = ()
    """Further measurements that are being processed, if there are several at the same time."""
    cluster: Cluster | None = None
    """Cluster that processes the measurements; None if this computer does so."""
