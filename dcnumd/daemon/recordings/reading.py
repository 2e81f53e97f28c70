"""The state of one recording that is processed while it grows."""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib

from dcnumd.logic.live.messages import LiveProgress
from dcnumd.logic.stamp import Stamp
from dcnumd.report.request import LiveReport
from dcnumd.status import Live, LiveCheck

LAG_SECONDS = 5.0
"""Time for which no fewer frames must wait before the camera counts as faster than the processing [s]."""
NOTHING = LiveProgress(0, 0, 0, 0, 0.0, 0.0, False, 0, False, False)
"""Progress before the first step."""


@dataclasses.dataclass(slots=True, eq=False)
class Reading:
    """A recording that is processed while it grows, or was until its end."""

    path: str
    """Name of its file, which may change."""
    entry_id: int
    """Number of the measurement's row."""
    inode: int
    """Number of the file, which it keeps under another name."""
    key: str
    """Its name in calls of the live process."""
    spool: pathlib.Path
    """File with its events."""
    grew_at: float
    """When a frame was recorded last, on the clock of the event loop [s]."""
    told_at: float
    """When its progress was logged last, on the same clock [s]."""
    lost: tuple[str, str] | None = None
    """How the file lost its name, as reason code and text; None while it has it."""
    lost_at: float = 0.0
    """When that was found, on the same clock [s]."""
    draw_at: float = 0.0
    """When its plot is to be drawn again, on the same clock [s]."""
    pid: int | None = None
    """Process ID of the live process that reads it."""
    progress: LiveProgress = NOTHING
    report: LiveReport | None = None
    """Checks and plot; None before the first."""
    since: dict[str, str] = dataclasses.field(default_factory=dict)
    """Time at which each check began to warn."""
    plot: int = 0
    """Number of the plot."""
    drawing: asyncio.Task[None] | None = None
    """Task that judges and draws the events."""
    lagging_since: float | None = None
    """Since when only a part of the frames is shown, and no fewer of them wait, on the same clock [s]."""
    fewest_waiting: int = 0
    """Number of frames that waited then."""
    falls_behind: bool = False
    """Whether the camera is faster than the processing."""
    lagged: bool = False
    """Whether that was logged."""
    wanted: bool = False
    """Whether the job of the measurement waits for the events."""
    complete: bool = False
    """Whether the file with the events is complete."""
    has_events: bool = False
    """Whether there were enough frames to fill it."""
    end: Stamp | None = None
    """Stamp of the recording when this file was completed; None if it was at rest."""
    over: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    """Set when this file is complete, or the reading was given up."""

    def note_progress(self, progress: LiveProgress, moment: float) -> None:
        """Record the progress."""
        if progress.frames > self.progress.frames:
            self.grew_at = moment
        waiting, has_begun = progress.frames - progress.frames_done, bool(self.progress.frames_done)
        if not progress.lagging:
            self.lagging_since = None
        elif self.lagging_since is None or waiting < self.fewest_waiting or not has_begun:
            # At first, the processing catches up with what was recorded before.
            self.lagging_since, self.fewest_waiting = moment, waiting
        self.falls_behind = self.lagging_since is not None and moment - self.lagging_since >= LAG_SECONDS
        self.progress = progress

    def note_report(self, report: LiveReport, now: str) -> None:
        """Record what the events say; `now` is the present time (UTC, ISO 8601)."""
        self.since = {name: self.since.get(name, now) for name, _, _ in report.warnings}
        self.report = report
        self.plot += bool(report.plot)

    def shown(self) -> Live:
        """Return the state as the live page shows it."""
        progress, report = self.progress, self.report
        live = Live(
            frames=progress.frames,
            frames_done=progress.frames_done,
            frames_again=progress.frames_again,
            events=progress.events,
            seconds=round(progress.seconds, 1),
            lag_seconds=round(progress.lag_seconds, 2),
            lagging=self.falls_behind,
            spool_bytes=progress.spool_bytes,
            spool_full=progress.spool_full,
            yield_per_frame=round(progress.events / progress.frames_done, 4) if progress.frames_done else None,
        )
        if report is None:
            return live
        return dataclasses.replace(
            live,
            events_per_second=report.events_per_second,
            light=report.light,
            checks=tuple(LiveCheck(name, state, text, self.since[name]) for name, state, text in report.warnings),
            event_rate=report.event_rate,
            brightness=report.brightness,
            plot=self.plot,
        )
