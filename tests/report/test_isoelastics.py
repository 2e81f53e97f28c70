"""Isoelasticity lines are those of dclab for the conditions of the measurement, or the page says why there are none."""

from __future__ import annotations

import sys

import dclab
import numpy as np
import pytest
from dclab import isoelastics

from dcnumd.config.values import PlotSettings
from dcnumd.report.isoelastics import LUT, MEDIA, isolines
from dcnumd.report.make import make_report
from tests.support.reports import Page, request_for, write_result

KNOWN = {"setup:temperature": 23.4}


@pytest.fixture
def lines_of(tmp_path, figures_of):
    """Return a function that returns lines and sentence for a result with certain attributes."""

    def lines(attributes, columns=None):
        path = write_result(tmp_path / "M001_dcn.rtdc", 20, attributes={**KNOWN, **attributes}, columns=columns)
        return path, *isolines(figures_of(path))

    return lines


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"setup:channel width": 30.0, "setup:flow rate": 0.16, "setup:medium": "CellCarrier"},
        {"setup:medium": "water", "imaging:pixel size": 0.26, "setup:temperature": 31.0},
    ],
)
def test_lines_are_those_of_dclab(lines_of, attributes):
    """Point by point, with the viscosity that dclab computes for the measurement, and with pixelation."""
    path, lines, sentence = lines_of(attributes)
    with dclab.new_dataset(path) as dataset:
        expected = isoelastics.get_default().get_with_rtdcbase(
            "area_um", "deform", dataset=dataset, lut_identifier=LUT, add_px_err=True
        )
    assert len(lines) == len(expected) > 5
    for line, theirs in zip(lines, expected, strict=True):
        np.testing.assert_allclose(line.points, theirs[:, :2])
        assert line.modulus_kpa == pytest.approx(theirs[0, 2])
    assert LUT in sentence


def test_lines_are_drawn_and_explained(tmp_path):
    """With the conditions; neither in another plot, nor if they are switched off."""
    result = write_result(tmp_path / "M001_dcn.rtdc", attributes=KNOWN)
    request = {"pairs": (("area_um", "volume"),), "formats": ("html",)}
    page = Page(make_report(request_for(result, **request)).paths[0].read_text("utf-8"))
    assert "for a channel of 20 µm, 0.06 µL/s, CellCarrierB at 23.4 °C, corrected for pixels of 0.34 µm." in page.text
    labels = page.of("text", "modulus")
    assert 5 < len(labels) < 12
    request["plot"] = PlotSettings(isoelastics=False)
    page = Page(make_report(request_for(result, **request)).paths[0].read_text("utf-8"))
    assert "oelasticity" not in page.text
    assert not page.of("text", "modulus")


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({"setup:temperature": None}, "the temperature is not known"),
        ({"setup:flow rate": 0.0, "setup:medium": None}, "the flow rate and the medium are not known"),
        ({"setup:channel width": None}, "the width of the channel is not known"),
        ({"setup:medium": "ketchup"}, "the viscosity of ketchup is not known"),
        ({"setup:temperature": 60.0}, "the viscosity of CellCarrierB at 60 °C is not known"),
        ({"setup:chip region": "reservoir"}, "cells are deformed in the channel, and this was not recorded there"),
    ],
)
def test_missing_lines_are_explained(lines_of, attributes, why):
    """In one sentence, and without a warning of dclab, which would fail this test."""
    _, lines, sentence = lines_of(attributes)
    assert lines == ()
    assert sentence == f"No isoelasticity lines: {why}."


def test_temperature_of_the_chip_replaces_that_of_the_setup(lines_of):
    """Some instruments record it with each frame only."""
    _, lines, sentence = lines_of({"setup:temperature": None}, {"temp": np.full(20, 24.5)})
    assert lines
    assert "at 24.5 °C" in sentence


def test_without_dclab_nothing_is_said(lines_of, monkeypatch):
    """It is an extra that nobody has to install."""
    monkeypatch.setitem(sys.modules, "dclab", None)
    assert lines_of({})[1:] == ((), "")


def test_media_are_known_to_dclab():
    """The names that are worth the import."""
    assert {name.lower() for name in dclab.features.emodulus.viscosity.KNOWN_MEDIA} >= MEDIA
