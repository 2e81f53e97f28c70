"""The traffic light: each check is turned on by one simulated measurement, and by the usual one it is not."""

from __future__ import annotations

import numpy as np
import pytest

from dcnumd.config.values import ReportLimits
from dcnumd.report.checks import Observations, judge, light_of

pytestmark = pytest.mark.slow

NAMES = {
    "no_events",
    "few_events",
    "flicker",
    "ragged_contours",
    "masks_dropped",
    "background_drift",
    "too_dark",
    "too_bright",
    "border_cells",
    "saturated",
    "clogging",
}
LIMITS = ReportLimits()
UNSMOOTHED = {"mask_kwargs": {"closing_disk": 0}}
"""Fibres survive only this."""
FAULTS = {
    "few": ({"density": 0.1, "frames": 300}, {}, {"few_events": "warning"}),
    "flickering": ({"flicker": 3.0}, {}, {"flicker": "warning"}),
    "fibrous": ({"fibres": 2.0}, UNSMOOTHED, {"masks_dropped": "warning"}),
    "doublets": ({"kinds": ("doublet",), "density": 1.2}, {}, {"ragged_contours": "warning"}),
    "drifting": ({"drift": 12.0}, {}, {"background_drift": "warning"}),
    "dark": ({"light": 0.35}, {}, {"too_dark": "warning"}),
    "bright": ({"light": 1.55}, {}, {"too_bright": "warning", "saturated": "warning"}),
    "misaligned": ({"kinds": ("border",), "density": 0.4}, {}, {"border_cells": "warning", "no_events": "alarm"}),
    "clogged": ({"clog_at": 0.65, "density": 1.2}, {}, {"clogging": "alarm"}),
    "clogging": ({"clog_at": 0.85}, {}, {"clogging": "warning"}),
    "black": ({"light": 0.03}, {}, {"no_events": "alarm", "too_dark": "alarm"}),
    "white": ({"light": 2.5}, {}, {"too_bright": "alarm", "saturated": "alarm"}),
}


def test_interrupted_recording_has_a_further_check():
    """It comes first, names the number of frames, and makes a report without other warnings yellow."""
    first, *others = judge(Observations(1000, interrupted_after=1234), LIMITS)
    assert (first.name, first.state, first.value) == ("interrupted", "warning", 1234)
    assert "interrupted after 1,234 frames" in first.text
    assert {check.name for check in others} == NAMES - {"no_events"}
    assert light_of([first]) == "yellow"


def found_in(checks):
    return {check.name: check.state for check in checks if check.state in {"warning", "alarm"}}


@pytest.mark.parametrize("settings", [{}, UNSMOOTHED], ids=["default", "unsmoothed"])
def test_usual_measurement_turns_nothing_on(simulate, figures_of, settings):
    figures = figures_of(simulate("unsmoothed" if settings else "usual", settings=settings))
    assert {check.name for check in figures.checks} == NAMES - {"no_events"}
    assert {check.state for check in figures.checks} == {"ok"}
    assert figures.light == "green"


@pytest.mark.parametrize("name", FAULTS)
def test_fault_turns_its_check_on(simulate, figures_of, name):
    spec, settings, expected = FAULTS[name]
    figures = figures_of(simulate(name, settings=settings, **spec))
    assert found_in(figures.checks) == expected
    assert figures.light == ("red" if "alarm" in expected.values() else "yellow")
    for check in figures.checks:
        if check.name in expected:
            assert check.value is not None
            assert len(check.text) > 40, "a number and a cure"


def test_limits_are_those_asked_for(simulate, figures_of):
    path = simulate()
    assert found_in(figures_of(path, ReportLimits(min_events=100_000)).checks) == {"few_events": "warning"}
    assert found_in(figures_of(path, ReportLimits(max_brightness=100)).checks) == {"too_bright": "warning"}


def test_few_events_are_no_reason_to_call_contours_ragged():
    """The share is that of a sample, and some measurements have no porosity, or nobody wants to look at it."""

    def check(events, ragged, **limits):
        checks = judge(Observations(events, ragged=ragged), ReportLimits(**limits))
        return next((check.state, check.text) for check in checks if check.name == "ragged_contours")

    assert check(12, 11)[0] == "unknown"
    assert check(60, 48)[0] == "ok"
    assert check(6000, 4800)[0] == "warning"
    assert "80 % of the events have a porosity above 1.05, more than 75 %" in check(6000, 4800)[1]
    assert check(6000, None)[0] == "unknown"
    assert "max_area_ratio is 0" in check(6000, 4800, max_area_ratio=0)[1]


def test_nothing_known_is_grey():
    checks = judge(Observations(1000), LIMITS)
    assert light_of(checks) == "grey"
    assert [check.state for check in checks].count("unknown") == len(NAMES) - 2
    assert all(check.value is None for check in checks if check.state == "unknown")


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({}, "Check that cells flow"),
        ({"online_events": 16}, "The instrument counted 16 events, dcnumd 0."),
        ({"threshold": 6.0, "darkest": (-40.0,)}, "threshold is 6 grey levels. Cells are darker"),
        ({"threshold": -60.0, "darkest": (-40.0, -3.0), "cells": 0, "border_cells": 0}, "a threshold closer to 0"),
        ({"threshold": -6.0, "darkest": (-3.0,), "cells": 0, "border_cells": 0}, "check flow, focus and light"),
        ({"threshold": -6.0, "darkest": (-40.0,), "cells": 9, "border_cells": 9}, "cuts all 9 objects"),
        (
            {"threshold": -6.0, "darkest": (-40.0,), "cells": 9, "border_cells": 2},
            "settings of masks, gate and features",
        ),
    ],
)
def test_no_events_is_red_and_says_why(seen, expected):
    checks = judge(Observations(0, **seen), LIMITS)
    assert light_of(checks) == "red"
    assert (checks[0].name, checks[0].state) == ("no_events", "alarm")
    assert expected in checks[0].text


@pytest.mark.parametrize("background", [(np.nan, np.nan), (np.nan,), ()])
def test_background_without_numbers_is_unknown(background):
    states = {check.name: check.state for check in judge(Observations(1000, background=background), LIMITS)}
    assert {states[name] for name in ("background_drift", "too_dark", "too_bright")} == {"unknown"}


def test_small_sample_of_cells_is_no_reason_to_warn():
    def state(cells, cut):
        checks = judge(Observations(1000, cells=cells, border_cells=cut), LIMITS)
        return next(check.state for check in checks if check.name == "border_cells")

    assert state(60, 33) == "ok"
    assert state(6000, 3300) == "warning"
    assert state(19, 19) == "unknown"
