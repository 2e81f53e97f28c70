"""What is said and drawn of a measurement while it is recorded."""

from __future__ import annotations

import dataclasses
import io
import pickle

import numpy as np
import pytest
from PIL import Image

from dcnumd.config.values import PlotSettings, ReportLimits
from dcnumd.report.calls import summarize_live
from dcnumd.report.live_values import LiveValues
from dcnumd.report.request import LiveReportRequest
from dcnumd.report.scatter import PICTURE_SIZE

REQUEST = LiveReportRequest(ReportLimits(), PlotSettings(), draw=True)


def steady(seconds=60, rate=50.0, **changes):
    """Return the values of a good measurement after some seconds."""
    random = np.random.default_rng(1)
    count = int(seconds * rate)
    features = {
        "area_um": random.normal(60, 8, count),
        "deform": random.normal(0.05, 0.01, count),
        "area_ratio": random.uniform(1.0, 1.04, count),
        "bg_off": random.normal(0, 0.1, count),
    }
    return dataclasses.replace(
        LiveValues(
            features=features,
            time=np.arange(count) / rate,
            events=count,
            seconds=float(seconds),
            events_per_second=np.full(seconds, rate),
            brightness=np.full(seconds, 120.0),
            masks_dropped=0,
            border_events=count // 10,
            channel_width=20.0,
        ),
        **changes,
    )


def summary_of(values, request=REQUEST):
    return summarize_live(pickle.dumps(values), request)


def warnings_of(values):
    return {name: state for name, state, _ in summary_of(values).warnings}


def test_a_good_recording_has_a_green_light_and_a_plot():
    """The plot has the form of the report's; the courses have one value for each second."""
    found = summary_of(steady())
    assert (found.light, found.warnings, found.events_per_second) == ("green", (), 50.0)
    assert Image.open(io.BytesIO(found.plot)).size == PICTURE_SIZE
    assert found.event_rate.time_s == tuple(np.arange(60) + 0.5)
    assert set(found.event_rate.values) == {50.0}
    assert set(found.brightness.values) == {120.0}
    assert summary_of(steady(), dataclasses.replace(REQUEST, draw=False)).plot == b""


@pytest.mark.parametrize(
    ("changes", "warnings"),
    [
        ({"events_per_second": np.r_[np.full(40, 50.0), np.zeros(20)]}, {"clogging": "alarm"}),
        ({"events_per_second": np.r_[np.full(53, 50.0), np.zeros(7)]}, {"clogging": "warning"}),
        ({"events_per_second": np.r_[np.full(53, 50.0), np.full(7, np.nan)]}, {}),
        ({"brightness": np.linspace(120, 112, 60)}, {"background_drift": "warning"}),
        ({"brightness": np.full(60, 30.0)}, {"too_dark": "warning"}),
        ({"brightness": np.full(60, np.nan)}, {}),
        ({"masks_dropped": 2000}, {"masks_dropped": "warning"}),
        ({"border_events": 2000}, {"border_cells": "warning"}),
        ({"border_events": None, "masks_dropped": None}, {}),
    ],
)
def test_the_checks_are_those_of_the_report(changes, warnings):
    """A flow that stops and a light that changes are noticed; what is not known is no cause for a warning."""
    assert warnings_of(steady(**changes)) == warnings


def test_features_of_the_latest_events_count_for_all():
    """Also where more events were found than are kept; and where a feature is missing."""
    values = steady(events=100_000)
    ragged = {**values.features, "area_ratio": np.full(3000, 1.3)}
    assert warnings_of(dataclasses.replace(values, features=ragged)) == {"ragged_contours": "warning"}
    flickering = {**values.features, "bg_off": np.random.default_rng(2).normal(0, 3, 3000)}
    assert warnings_of(dataclasses.replace(values, features=flickering)) == {"flicker": "warning"}
    bare = summary_of(dataclasses.replace(values, features={}))
    assert (bare.warnings, bare.plot) == ((), b"")


def test_noise_of_few_events_is_no_drift():
    """Drift is judged in intervals that have as many events as those of the report."""
    noise = np.random.default_rng(3).normal(120, 1.5, 60)
    assert warnings_of(steady(rate=2.0, brightness=noise)) == {}
    assert warnings_of(steady(rate=50.0, brightness=noise)) == {"background_drift": "warning"}


@pytest.mark.parametrize(("seconds", "light"), [(0, "grey"), (1, "grey"), (8, "grey"), (11, "red")])
def test_no_events_alarm_only_after_some_seconds(seconds, light):
    """The flow needs a moment after the start; few events are no fault as long as more are recorded."""
    nothing = steady(seconds, 0.0, brightness=np.full(seconds, np.nan))
    assert summary_of(nothing).light == light
    few = steady(seconds=20, rate=1.0)
    assert warnings_of(few) == {}
    assert summary_of(few).plot


def test_a_long_recording_has_short_courses():
    """The page needs no value for each second of an hour, and intervals without values are left out."""
    rates = np.arange(3600.0)
    rates[60:120] = np.nan
    found = summary_of(steady(seconds=60, events_per_second=rates, brightness=rates))
    assert len(found.event_rate.values) == 59
    assert found.event_rate.time_s[:2] == (30.0, 150.0)
    assert found.event_rate.values[0] == pytest.approx(29.5)
    assert found.events_per_second == 3598.0
