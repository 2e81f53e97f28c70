"""The texts of the live page: headlines with cause and cure, warnings, numbers and times."""

from __future__ import annotations

import datetime as dt
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

from dcnumd.errors import printable
from dcnumd.reasons import CATALOGUE
from dcnumd.report import wording
from dcnumd.report.conditions import Condition, conditions_of
from dcnumd.status import Snapshot
from dcnumd.words import UNKNOWN, duration

STAGES = {"background": "Background", "segmentation": "Cells", "writing": "Writing"}
"""Name of each stage of a job, in their order."""

LIGHTS = wording.LIGHTS | {"": "No report"}
"""Text of each traffic light; the empty key stands for no report."""


class Headline(NamedTuple):
    """The state of the daemon: a colour, a short title, and one or two sentences; and less urgent conditions."""

    light: str
    title: str
    text: str
    others: tuple[Condition, ...] = ()


def headline(snapshot: Snapshot, names: Mapping[str, str]) -> Headline:
    """Return the headline for a state: the most urgent thing that the operator has to know.

    Parameters
    ----------
    snapshot
        State of the daemon.
    names
        The name to show for each path.
    """
    running = snapshot.running
    if found := conditions_of(snapshot, names):
        first, others = found[0], tuple(one for one in found if one.title != found[0].title)
        text = " ".join(one.text for one in found if one.title == first.title)
        return Headline(first.light, first.title, text, others)
    if (doubted := _doubted(snapshot, names)) is not None:
        return doubted
    if running:
        return Headline("green", "Processing", names[running.path])
    if any(one.live for one in snapshot.recording):
        return Headline("green", "Recording", "Its events are shown while they are recorded.")
    if snapshot.recording:
        return Headline("green", "Recording", "It is processed as soon as it is complete.")
    if snapshot.waiting:
        return Headline("green", "Waiting", _why_all_wait(snapshot))
    return Headline("green", "Ready", "Everything is processed. Record the next measurement.")


def _doubted(snapshot: Snapshot, names: Mapping[str, str]) -> Headline | None:
    """Return the headline for the worst recording about which a check warns; None if none does."""
    doubted = [one for one in snapshot.recording if one.live is not None and one.live.checks]
    for light in ("red", "yellow"):
        for one in doubted:
            if one.live is not None and one.live.light == light:
                # Why not the sentences of the checks? They contain numbers, and a headline that changes each second
                # is read out each second.
                told = wording.warning_words(check.name for check in one.live.checks)
                return Headline(light, "Check the recording", f"{names[one.path]}: {told}.")
    return None


def _why_all_wait(snapshot: Snapshot) -> str:
    reasons = {waiting.reason for waiting in snapshot.waiting}
    if len(reasons) == 1 and (cause := CATALOGUE.get(reasons.pop())) is not None:
        return f"{cause.what}. {cause.cure}"
    return "The next measurement is about to be processed."


def folder_name(path: str) -> str:
    """Return the folder of a path."""
    return printable(str(pathlib.PurePath(path).parent))


def number(value: float | None) -> str:
    """Return a number, rounded, with thousands separators; a dash for None."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def short_number(value: float | None) -> str:
    """Return a number with two significant digits, or with all of those before the decimal point; a dash for None."""
    return UNKNOWN if value is None else wording.short(value)


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
