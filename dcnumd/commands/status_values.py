"""What the command `status` shows: the state of the ledger, and the speed of processing."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os

from dcnumd.config.values import Settings
from dcnumd.daemon.ledger.records import Entry, State
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.live.answers import Answer, ask
from dcnumd.daemon.live.view_lists import ended_row
from dcnumd.daemon.measurements.parking import BlockedFolders, blocked_folders
from dcnumd.report.conditions import of_blocked, of_news
from dcnumd.report.wording import count_of, news_in_words, warning_words
from dcnumd.status import Live, Unacknowledged
from dcnumd.words import distinct_names

LISTED = 10
"""Largest number of waiting, finished and failed measurements to show, each."""


IN_LEDGER = frozenset({"disk.low", "output.blocked", "failures"})
"""Conditions that the ledger contains, so that they are known without the daemon, too."""


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """The contents of the ledger at one moment."""

    taken: dt.datetime
    has_ledger: bool
    counts: dict[State, int]
    last_success: str | None
    running: list[Entry]
    waiting: list[Entry]
    done: list[Entry]
    failed: list[Entry]
    blocked: BlockedFolders
    failed_news: int = 0
    """Number of failures that nobody has acknowledged."""
    red_news: int = 0
    """Number of red lights that nobody has acknowledged."""
    latest_news: Entry | None = None
    """The latest of them."""

    @property
    def news(self) -> str:
        """The failures and red lights that nobody has acknowledged, in words; empty without any."""
        return news_in_words(self.failed_news, self.red_news)

    @property
    def names(self) -> dict[str, str]:
        """The names of all measurements shown, by path."""
        return distinct_names(entry.path for entry in (*self.running, *self.waiting, *self.done, *self.failed))

    @classmethod
    def of(cls, settings: Settings, ledger: Ledger | None) -> Status:
        """Return the present status.

        Parameters
        ----------
        settings
            The settings of the daemon.
        ledger
            Its ledger; None if there is none yet.
        """
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
            *ledger.unacknowledged(),
        )


def present_state(settings: Settings, status: Status, owner: int | None) -> tuple[Answer, bool]:
    """Return what the daemon tells of itself, or else the conditions as far as they are in the ledger.

    Returns
    -------
    told, answered
        Conditions and workers; and whether they are the daemon's answer. If it does not run, there is nothing to ask,
        and the ledger says all.
    """
    if owner is not None and (told := ask(settings.state_folder())) is not None:
        return told, True
    latest = status.latest_news
    news = Unacknowledged(status.failed_news, status.red_news, ended_row(latest) if latest else None)
    name = status.names.get(latest.path, os.path.basename(latest.path)) if latest else ""  # noqa: PTH119 -- no need to parse it
    return Answer((*of_blocked(status.blocked), *of_news(news, name))), owner is None


def live_in_words(live: Live) -> str:
    """Return events, event rate, lag and warnings of a recording as one line."""
    rate = "" if live.events_per_second is None else f", {live.events_per_second:,.0f}/s"
    warnings = warning_words(check.name for check in live.checks)
    verdict = f"; {warnings}" if warnings else ""
    return f"{count_of(live.events, 'event')}{rate}, {live.lag_seconds:.1f} s behind the camera{verdict}"


@dataclasses.dataclass(frozen=True, slots=True)
class Pace:
    """Progress and speed of a running measurement, computed from its row in the ledger."""

    share: float
    """Share of the frames that is processed, 0 to 1."""
    frames_per_second: float | None
    """Frames processed per second; None before the first frame is done."""
    end: dt.datetime | None
    """Estimated time of completion; None if not known."""

    @classmethod
    def of(cls, entry: Entry, taken: dt.datetime) -> Pace:
        """Return the pace of a running measurement whose row was read at the time `taken`."""
        done, frames = entry.frames_done or 0, entry.frames or 0
        if not done or not frames or not entry.started_at:
            return cls(0.0, None, None)
        begin = dt.datetime.fromisoformat(entry.started_at)
        seconds = (taken - begin).total_seconds()
        if seconds <= 0:
            return cls(min(done / frames, 1.0), None, None)
        return cls(min(done / frames, 1.0), done / seconds, begin + dt.timedelta(seconds=seconds * frames / done))

    def seconds_left(self, now: dt.datetime) -> float | None:
        """Return the estimated time from `now` to completion [s]; None if not known."""
        return None if self.end is None else max((self.end - now).total_seconds(), 0.0)
