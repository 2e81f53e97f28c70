"""The view of the daemon, as far as no session is needed."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from dcnumd.config.values import LogSettings, ReportSettings, Settings
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.live.view import View
from dcnumd.daemon.measurements.counters import Counters
from dcnumd.logic.job import Progress
from dcnumd.logic.stamp import Stamp
from dcnumd.report.request import ReportSummary
from tests.support.loop import in_loop

MORNING, NOON = "2026-11-21 08:00:00", "2026-11-21 12:00:00"
FUTURE = f"{dt.date.today() + dt.timedelta(days=400)} 12:00:00"  # noqa: DTZ011 -- the instrument's time is local


def summary(recorded: str, plot: bytes) -> ReportSummary:
    """Return the summary of a report of a measurement that was recorded at this time."""
    return ReportSummary((), "green", (), (), "", recorded, 10, 20, b"", plot)


@pytest.mark.parametrize(
    ("recorded", "shown"),
    [
        ([MORNING, NOON], 2),
        ([NOON, MORNING], 1),
        ([NOON, ""], 2),
        ([FUTURE, MORNING], 2),
        ([NOON, FUTURE, MORNING], 3),
    ],
)
def test_plot_is_that_of_the_last_recording(tmp_path, recorded, shown):
    """Reports of a backlog come in another order; a time that is missing or in the future keeps no plot away."""
    view = View(Settings(), Counters(), tuple, int)
    with Ledger.open(tmp_path) as ledger:
        for number, time in enumerate(recorded, start=1):
            entry = ledger.add(f"/in/M{number}.rtdc", Stamp(1, 2, 3, 4), "job")
            view.note_report(entry, summary(time, f"plot {number}".encode()))
    assert view.plot() == f"plot {shown}".encode()


def test_plot_is_drawn_again_only_where_it_is_missing_or_looks_different(tmp_path):
    """After a start, or after a reload of a config that changes the reports; not after any other reload."""
    view = View(Settings(), Counters(), tuple, int)
    assert view.lacks_plot()
    with Ledger.open(tmp_path) as ledger:
        view.note_report(ledger.add("/in/M1.rtdc", Stamp(1, 2, 3, 4), "job"), summary(NOON, b"plot"))
    assert not view.lacks_plot()
    view.settings = dataclasses.replace(Settings(), log=LogSettings(level="debug"))
    assert not view.lacks_plot()
    view.settings = dataclasses.replace(Settings(), report=ReportSettings(gallery=0))
    assert view.lacks_plot()


@in_loop
async def test_progress_of_jobs_that_have_ended_is_forgotten():
    """A daemon may process any number of measurements, and nobody may ever look at its page."""
    view = View(Settings(), Counters(), tuple, int)
    for number in range(100):
        view.note_progress(Progress(f"{number}", "writing", 10, 10, 5))
    assert len(view._progress) == 1
