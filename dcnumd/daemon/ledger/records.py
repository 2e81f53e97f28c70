"""What the ledger records about a measurement, as values."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import hashlib
import json
from typing import Literal, NamedTuple

import structlog

from dcnumd import __version__
from dcnumd.config.values import Settings
from dcnumd.logic.stamp import Stamp
from dcnumd.reasons import codes_of

log = structlog.get_logger()


ReportState = Literal["", "wanted", "written", "failed"]
"""Whether a result has a report; empty: none is wanted."""


class State(enum.StrEnum):
    """Where a measurement is on its way."""

    SEEN = "seen"
    """Its name was found."""
    SETTLING = "settling"
    """It is waited for until it is complete."""
    QUEUED = "queued"
    """It is complete and waits for its turn, or for its next attempt."""
    RUNNING = "running"
    """It is being processed."""
    DONE = "done"
    """Its result is verified and on disk."""
    FAILED = "failed"
    """It cannot be processed; a change of the file or `dcnumd retry` lifts this."""
    SKIPPED = "skipped"
    """There is nothing to do, for the reason given."""


OUTPUT_GONE = "output_gone"
"""Reason of a row that is done and whose result was taken away."""

FINAL = frozenset({State.DONE, State.FAILED, State.SKIPPED})

SURROUNDINGS = codes_of("results")
"""Reasons that are no measurement's fault: it waits until its folder takes results, and this costs it no attempt."""

TRANSITIONS: dict[State, frozenset[State]] = {
    State.SEEN: frozenset({State.SETTLING, State.QUEUED, State.FAILED, State.SKIPPED}),
    State.SETTLING: frozenset({State.QUEUED, State.DONE, State.FAILED, State.SKIPPED}),
    State.QUEUED: frozenset({State.SETTLING, State.RUNNING, State.FAILED, State.SKIPPED}),
    State.RUNNING: frozenset({State.QUEUED, State.SETTLING, State.DONE, State.FAILED, State.SKIPPED}),
    State.DONE: frozenset({State.SEEN, State.SETTLING, State.QUEUED}),
    State.FAILED: frozenset({State.SEEN, State.SETTLING, State.QUEUED}),
    State.SKIPPED: frozenset({State.SEEN, State.SETTLING, State.QUEUED}),
}
"""Where a measurement can go from each state."""


class Content(NamedTuple):
    """What makes a measurement the same one again, wherever it lies."""

    size: int
    md5_5m: str
    """MD5 of the first 5 MiB, by which ledgers before the digest knew a content."""
    identifier: str
    digest: str = ""
    """See `dcnumd.read.content.content_digest`; empty in rows of an earlier version."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One row: a path with a content and a pipeline, and what became of it. Times are UTC, ISO 8601."""

    id: int
    path: str
    state: State
    size: int | None
    mtime_ns: int | None
    ctime_ns: int | None
    inode: int | None
    settings_key: str | None
    content_size: int | None
    md5_5m: str | None
    identifier: str | None
    ppid: str | None
    pphash: str | None
    job_id: str
    reason: str
    error: str
    attempts: int
    replace_output: int
    output: str | None
    frames: int | None
    frames_done: int | None
    events: int | None
    seconds: float | None
    seen_at: str
    settled_at: str | None
    started_at: str | None
    finished_at: str | None
    changed_at: str
    revision: int
    """Order of the changes, whatever the clock says."""
    sample: str = ""
    """What was measured, as the operator called it."""
    light: str = ""
    """What the report's traffic light shows; empty without a report."""
    warnings: str = ""
    """Names of the checks that warn, with blanks between them."""
    report: str | None = None
    """Path of the page, or of what else the report consists of."""
    report_state: ReportState = ""
    digest: str = ""
    """Digest of the content; empty before the file was inspected, and in rows of an earlier version."""

    @property
    def stamp(self) -> Stamp | None:
        """The file's stat when it was last looked at."""
        if self.size is None or self.mtime_ns is None or self.ctime_ns is None or self.inode is None:
            return None
        return Stamp(self.size, self.mtime_ns, self.ctime_ns, self.inode)

    @property
    def content(self) -> Content | None:
        """What is in the file; None before it was inspected."""
        if self.content_size is None or self.md5_5m is None or self.identifier is None:
            return None
        return Content(self.content_size, self.md5_5m, self.identifier, self.digest)


@dataclasses.dataclass(frozen=True, slots=True)
class Transition:
    """One step on a measurement's way."""

    time: str
    state: State
    reason: str
    error: str


def job_log(entry: Entry) -> structlog.typing.FilteringBoundLogger:
    """Return a log in which each event names the job of `entry`."""
    bound: structlog.typing.FilteringBoundLogger = log.bind(
        job_id=entry.job_id, path=entry.path, ppid=entry.ppid, pphash=entry.pphash
    )
    return bound


def settings_key(settings: Settings) -> str:
    """Return a short text that changes when another decision about a file is possible."""
    # What becomes of results that are gone is no decision about a measurement: it is made anew at each scan.
    output = {key: value for key, value in dataclasses.asdict(settings.output).items() if key != "deleted"}
    relevant = (
        __version__,
        dataclasses.asdict(settings.pipeline),
        output,
        settings.watch.allow_basins_outside,
        # reports take a part of what is allowed
        settings.resources.max_memory_mb and (settings.resources.max_memory_mb, settings.report.enabled),
    )
    return hashlib.sha256(json.dumps(relevant, sort_keys=True, default=str).encode()).hexdigest()[:16]


def utc_now() -> str:
    """Return the present time, UTC, ISO 8601."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
