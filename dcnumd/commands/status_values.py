"""What the command `status` shows: the ledger at one moment, and how fast measurements are processed."""

from __future__ import annotations

import dataclasses
import datetime as dt

from dcnumd.config.values import Settings
from dcnumd.daemon.ledger.records import Entry, State
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.measurements.parking import BlockedFolders, blocked_folders

LISTED = 10
"""Largest number of measurements of each state that are shown."""


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """What the ledger said at one moment."""

    taken: dt.datetime
    has_ledger: bool
    counts: dict[State, int]
    last_success: str | None
    running: list[Entry]
    waiting: list[Entry]
    done: list[Entry]
    failed: list[Entry]
    blocked: BlockedFolders

    @classmethod
    def of(cls, settings: Settings, ledger: Ledger | None) -> Status:
        """Ask the ledger of these settings; None if there is none yet."""
        taken = dt.datetime.now(dt.UTC)
        if ledger is None:
            return cls(taken, False, dict.fromkeys(State, 0), None, [], [], [], [], ())
        return cls(
            taken,
            True,
            ledger.counts(),
            ledger.last_success(),
            ledger.entries(State.RUNNING),
            ledger.entries(State.SETTLING, State.QUEUED, limit=LISTED),
            ledger.history(State.DONE, limit=LISTED),
            ledger.history(State.FAILED, limit=LISTED),
            blocked_folders(settings, ledger),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Pace:
    """How fast a measurement is processed, as far as the ledger knows."""

    share: float
    """Of the frames, 0 to 1."""
    frames_per_second: float | None
    """None while it is being prepared."""
    end: dt.datetime | None
    """When it will probably be done."""

    @classmethod
    def of(cls, entry: Entry, taken: dt.datetime) -> Pace:
        """Return the pace of a running measurement whose row was read at the time `taken`, soon after a change."""
        done, frames = entry.frames_done or 0, entry.frames or 0
        if not done or not frames or not entry.started_at:
            return cls(0.0, None, None)
        begin = dt.datetime.fromisoformat(entry.started_at)
        seconds = (taken - begin).total_seconds()
        if seconds <= 0:
            return cls(min(done / frames, 1.0), None, None)
        return cls(min(done / frames, 1.0), done / seconds, begin + dt.timedelta(seconds=seconds * frames / done))

    def seconds_left(self, now: dt.datetime) -> float | None:
        """Return how long it will take from now on; None if that is not known."""
        return None if self.end is None else max((self.end - now).total_seconds(), 0.0)
