"""Fluorescence: what there is of it is named and plotted, and it is said that results do not keep it."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from dcnumd.report.make import make_report
from tests.support.reports import Page, request_for, write_result

pytestmark = pytest.mark.slow

FRAMES = 120
RNG = np.random.default_rng(7)
STORED = {
    "fl1_max": RNG.lognormal(5, 1, FRAMES),
    "fl1_width": RNG.lognormal(2, 0.1, FRAMES),
    "fl3_max": np.where(np.arange(FRAMES) % 2, 100.0, -1.0),
    "trace/fl3_raw": np.zeros((FRAMES, 30), np.int16),
}


@pytest.fixture(scope="module")
def fluorescent(simulate):
    """Return the result of a measurement with fluorescence, which dcnum does not keep."""
    return simulate("fluorescent", frames=FRAMES, stored=STORED)


def page_of(result):
    return Page(make_report(request_for(result, gallery=3)).paths[0].read_text("utf-8"))


def test_channels_of_the_measurement_are_named(fluorescent, figures_of):
    figures = figures_of(fluorescent)
    one, three = figures.fluorescence
    assert (one.number, one.peaks, one.traces) == (1, ("fl1_max", "fl1_width"), ())
    assert (three.number, three.peaks, three.traces) == (3, ("fl3_max",), ("fl3_raw",))
    assert not one.in_result
    assert "channel 1 and channel 3 is in the measurement only: dcnum does not keep it" in figures.fluorescence_text


def test_maximum_of_each_channel_is_plotted_over_area(fluorescent, figures_of):
    """On a logarithmic axis; events without a positive maximum are counted."""
    page = page_of(fluorescent)
    assert len(page.of("div", "panel")) == 3
    assert "Area and FL-1 maximum" in page.text
    assert "FL-3 maximum [a.u.]" in page.source
    with h5py.File(fluorescent) as h5:
        lost = int(np.sum(STORED["fl3_max"][h5["events/basinmap0"][:]] < 0))
    assert f"{lost} events without positive values." in page.text
    assert "Channel 3: peaks (maximum), traces (raw)" in page.text


def test_result_that_has_fluorescence(tmp_path):
    attributes = {"fluorescence:channel 2 name": "593/46", "fluorescence:laser 2 lambda": 561.0}
    result = write_result(tmp_path / "M001_dcn.rtdc", columns={"fl2_max": np.arange(1.0, 301)}, attributes=attributes)
    page = page_of(result)
    assert "The result has the fluorescence of its events." in page.text
    assert "Channel 2: 593/46, laser 561 nm, peaks (maximum)" in page.text
    assert len(page.of("div", "panel")) == 2


def test_fluorescence_that_is_gone(tmp_path):
    """Only the attributes tell that there was some."""
    attributes = {"fluorescence:channel 1 name": "525/50", "fluorescence:channel 3 name": "700/75"}
    page = page_of(write_result(tmp_path / "M001_dcn.rtdc", attributes=attributes))
    assert "recorded with fluorescence (channel 1 and channel 3)" in page.text
    assert len(page.of("div", "panel")) == 1


def test_measurement_without_fluorescence(simulate, figures_of):
    figures = figures_of(simulate())
    assert (figures.fluorescence, figures.fluorescence_text) == ((), "")
