"""The texts of the live page: headlines with cause and cure, warnings, numbers and times."""

from __future__ import annotations

import datetime as dt
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

from dcnumd.errors import printable
from dcnumd.reasons import CATALOGUE
from dcnumd.report import wording
from dcnumd.status import Blocked, Ended, Snapshot, Unacknowledged
from dcnumd.words import UNKNOWN, duration

LONG_WAIT_SECONDS = 3600.0
"""Waiting time of a complete measurement after which the headline says so [s]."""
BEHIND = "This computer does not keep up with the recordings; it catches up when less is recorded."

STAGES = {"background": "Background", "segmentation": "Cells", "writing": "Writing"}
"""Name of each stage of a job, in their order."""

LIGHTS = wording.LIGHTS | {"": "No report"}
"""Text of each traffic light; the empty key stands for no report."""


class Headline(NamedTuple):
    """The state of the daemon: a colour, a short title, and one or two sentences."""

    light: str
    title: str
    text: str


def headline(snapshot: Snapshot, names: Mapping[str, str]) -> Headline:
    """Return the headline for a state: the most urgent thing that the operator has to know.

    Parameters
    ----------
    snapshot
        State of the daemon.
    names
        The name to show for each path.
    """
    lost = [folder.path for folder in snapshot.folders if not folder.reachable]
    running = snapshot.running
    if snapshot.stopping:
        return Headline("grey", "Stopping", "dcnumd was asked to end. What waits is processed after the next start.")
    if not snapshot.healthy:
        text = "Nothing is processed. Ask the engineer; the log says what is wrong. It goes on by itself if it can."
        return Headline("red", "Out of order", text)
    if not snapshot.ready:
        return Headline("grey", "Starting", "This takes some seconds, and a minute the first time.")
    if lost:
        text = f"{', '.join(map(printable, lost))} cannot be reached. Connect the share or disk; it goes on by itself."
        return Headline("red" if len(lost) == len(snapshot.folders) else "yellow", "A folder is missing", text)
    if snapshot.blocked:
        light = "red" if len(snapshot.blocked) >= len(snapshot.outputs) else "yellow"
        return Headline(light, "No place for results", " ".join(map(_why_blocked, snapshot.blocked)))
    if snapshot.paused:
        text = "No measurement is started until somebody resumes."
        return Headline("yellow", "Paused", f"{names[running.path]} is finished first. {text}" if running else text)
    if snapshot.unacknowledged.latest is not None:
        latest = snapshot.unacknowledged.latest
        return _unacknowledged(snapshot.unacknowledged, latest, names[latest.path])
    if snapshot.oldest_wait_seconds > LONG_WAIT_SECONDS and not (running and running.held):
        text = f"{number(snapshot.queue)} wait, the first for {duration(snapshot.oldest_wait_seconds)}. {BEHIND}"
        return Headline("yellow", "Measurements wait long", text)
    if running:
        if running.held:
            return Headline("green", "Recording", "The processing stands still until the recording has ended.")
        return Headline("green", "Processing", names[running.path])
    if snapshot.recording:
        return Headline("green", "Recording", "It is processed as soon as it is complete.")
    if snapshot.waiting:
        return Headline("green", "Waiting", _why_all_wait(snapshot))
    return Headline("green", "Ready", "Everything is processed. Record the next measurement.")


def _unacknowledged(news: Unacknowledged, latest: Ended, name: str) -> Headline:
    """Return the headline for failures and red lights that nobody has acknowledged."""
    cause = wording.cause_of(latest.reason) if latest.state == "failed" else None
    what = f"{cause.what}. {cause.cure}" if cause else f"{warning_words(latest.warnings)}. Look at its report."
    return Headline("yellow", wording.news_in_words(news.failed, news.red), f"{name}: {what}")


def _why_blocked(blocked: Blocked) -> str:
    cause = wording.cause_of(blocked.reason)
    who = f"{number(blocked.waiting)} {'measurement waits' if blocked.waiting == 1 else 'measurements wait'}"
    return f"{printable(blocked.folder)}: {cause.what}, {who}. {cause.cure}"


def _why_all_wait(snapshot: Snapshot) -> str:
    reasons = {waiting.reason for waiting in snapshot.waiting}
    if len(reasons) == 1 and (cause := CATALOGUE.get(reasons.pop())) is not None:
        return f"{cause.what}. {cause.cure}"
    return "The next measurement is about to be processed."


def warning_words(names: tuple[str, ...]) -> str:
    """Return the checks that warn, in words."""
    return ", ".join(wording.WARNINGS.get(name, name.replace("_", " ")) for name in names)


def folder_name(path: str) -> str:
    """Return the folder of a path."""
    return printable(str(pathlib.PurePath(path).parent))


def number(value: float | None) -> str:
    """Return a number, rounded, with thousands separators; a dash for None."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def size(value: float) -> str:
    """Return a number of bytes as text with a decimal unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def time_left(seconds: float | None) -> str:
    """Return the remaining time as text; it is rounded, being an estimate."""
    if seconds is None:
        return "time left not known yet"
    return "less than 1 s left" if seconds < 1 else f"about {duration(round(seconds))} left"


def clock(time: str | None, now: str) -> str:
    """Return a UTC time as local time; with the date, or the date alone, if it is not on the day of `now`."""
    if not time:
        return UNKNOWN
    local, today = (dt.datetime.fromisoformat(one).astimezone() for one in (time, now))
    if local.date() == today.date():
        return f"{local:%H:%M:%S}"
    return f"{local:%b} {local.day}, {local:%H:%M}" if local.year == today.year else f"{local:%Y-%m-%d}"


def local_day(time: str) -> dt.date:
    """Return the local date of a UTC time."""
    return dt.datetime.fromisoformat(time).astimezone().date()
