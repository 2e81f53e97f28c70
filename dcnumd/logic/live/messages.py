"""What the daemon and its process for live recordings tell each other; this module imports no numerical code."""

from __future__ import annotations

import dataclasses
import pathlib

from dcnumd.logic.job import Job


@dataclasses.dataclass(frozen=True, slots=True)
class LiveRequest:
    """A recording to process while it grows."""

    job: Job
    """The job that will make the result when the recording has ended."""
    spool: pathlib.Path
    """File for the events; it is created."""
    spool_bytes: int
    """Largest size of this file [bytes]."""
    view_seconds: float = 2.0
    """Largest delay with which frames are shown, if the processing is fast enough [s]."""


@dataclasses.dataclass(frozen=True, slots=True)
class LiveProgress:
    """State of a recording that is processed while it grows."""

    frames: int
    """Number of recorded frames that all features have."""
    frames_done: int
    """Number of these frames that were processed, each counted once."""
    frames_again: int
    """Number of frames that were processed again, because their background changed."""
    events: int
    """Number of events in the frames that were processed."""
    seconds: float
    """Recording time of the newest frame since the first one [s]."""
    lag_seconds: float
    """Recording time from the newest frame that was processed to the newest frame [s]."""
    lagging: bool
    """Whether more frames wait than the time allows to process, and only a part of them is shown at once."""
    spool_bytes: int
    """Size of the spool [bytes]."""
    spool_full: bool
    """Whether the spool has no room for more events, so that they will be computed again for the result."""
    ended: bool
    """Whether the recording program has closed the file."""
