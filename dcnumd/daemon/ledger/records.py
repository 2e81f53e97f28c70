"""The records of the ledger as values: rows, transitions and states."""

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
"""State of the report of a result; empty if no report is wanted."""


class State(enum.StrEnum):
    """State of a measurement."""

    SEEN = "seen"
    """The file was found."""
    SETTLING = "settling"
    """The file is not known to be complete yet."""
    QUEUED = "queued"
    """The file is complete; the measurement waits to be processed, or for its next attempt."""
    RUNNING = "running"
    """The measurement is being processed."""
    DONE = "done"
    """The result is verified and on disk."""
    FAILED = "failed"
    """Processing failed; the measurement is tried again when the file changes or after `dcnumd retry`."""
    SKIPPED = "skipped"
    """There is nothing to do; the row gives the reason."""


OUTPUT_GONE = "output_gone"
"""Reason of a row that is done and whose result has been removed since."""

FINAL = frozenset({State.DONE, State.FAILED, State.SKIPPED})
"""States in which nothing is left to do for a measurement."""

SURROUNDINGS = codes_of("results")
"""Reasons that lie in the folder of results: the measurement waits for the folder, and no attempt is counted."""

TRANSITIONS: dict[State, frozenset[State]] = {
    State.SEEN: frozenset({State.SETTLING, State.QUEUED, State.FAILED, State.SKIPPED}),
    State.SETTLING: frozenset({State.QUEUED, State.DONE, State.FAILED, State.SKIPPED}),
    State.QUEUED: frozenset({State.SETTLING, State.RUNNING, State.FAILED, State.SKIPPED}),
    State.RUNNING: frozenset({State.QUEUED, State.SETTLING, State.DONE, State.FAILED, State.SKIPPED}),
    State.DONE: frozenset({State.SEEN, State.SETTLING, State.QUEUED}),
    State.FAILED: frozenset({State.SEEN, State.SETTLING, State.QUEUED}),
    State.SKIPPED: frozenset({State.SEEN, State.SETTLING, State.QUEUED}),
}
"""The states that may follow each state."""


class Content(NamedTuple):
    """Content of a measurement, which identifies it independently of its path."""

    size: int
    """Size of the file [bytes]."""
    md5_5m: str
    """MD5 of the first 5 MiB, by which versions without a digest identify a content."""
    identifier: str
    digest: str = ""
    """Digest of `dcnumd.read.content.content_digest`; empty in rows of an earlier version."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """Row of the ledger: a path, its content, its pipeline and its state; times are UTC, ISO 8601."""

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
    """Number that increases with every change of any row; unlike `changed_at` it does not depend on the clock."""
    sample: str = ""
    """Name of the sample, as entered by the operator."""
    light: str = ""
    """Colour of the report's traffic light; empty without a report."""
    warnings: str = ""
    """Names of the checks that warn, separated by blanks."""
    report: str | None = None
    """Path of the report's page, or of its first other file if it has no page."""
    report_state: ReportState = ""
    digest: str = ""
    """Digest of the content; empty before the file was inspected, and in rows of an earlier version."""
    interrupted: int = 0
    """Whether the recording was interrupted; `frames` is the number of frames that all features have."""

    @property
    def stamp(self) -> Stamp | None:
        """Stamp of the file when it was last checked; None if it was not checked yet."""
        if self.size is None or self.mtime_ns is None or self.ctime_ns is None or self.inode is None:
            return None
        return Stamp(self.size, self.mtime_ns, self.ctime_ns, self.inode)

    @property
    def content(self) -> Content | None:
        """Content of the file; None before the file was inspected."""
        if self.content_size is None or self.md5_5m is None or self.identifier is None:
            return None
        return Content(self.content_size, self.md5_5m, self.identifier, self.digest)


@dataclasses.dataclass(frozen=True, slots=True)
class Transition:
    """Change of a measurement's state."""

    time: str
    state: State
    reason: str
    error: str


def job_log(entry: Entry) -> structlog.typing.FilteringBoundLogger:
    """Return a logger whose events name the job of `entry`."""
    bound: structlog.typing.FilteringBoundLogger = log.bind(
        job_id=entry.job_id, path=entry.path, ppid=entry.ppid, pphash=entry.pphash
    )
    return bound


def settings_key(settings: Settings) -> str:
    """Return a short hash of everything that influences how a file is handled.

    A file that needs nothing under one key may need processing under another.
    """
    # Not `output.deleted`: whether to remake missing results is decided at each scan, not once per measurement.
    output = {key: value for key, value in dataclasses.asdict(settings.output).items() if key != "deleted"}
    relevant = (
        __version__,
        dataclasses.asdict(settings.pipeline),
        settings.models.folders,
        output,
        settings.watch.allow_basins_outside,
        *([settings.watch.interrupted] if settings.watch.interrupted != "fail" else []),
        # Reports and recordings use a part of the memory limit, so they matter only if there is one.
        settings.resources.max_memory_mb
        and (settings.resources.max_memory_mb, settings.report.enabled, *(["live"] if settings.live.enabled else [])),
    )
    return hashlib.sha256(json.dumps(relevant, sort_keys=True, default=str).encode()).hexdigest()[:16]


def utc_now() -> str:
    """Return the current time (UTC, ISO 8601)."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
