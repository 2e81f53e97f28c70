"""The report of a result without events shows the frames, and says why nothing was found."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from dcnumd.report.make import make_report
from tests.support.reports import Page, request_for

pytestmark = pytest.mark.slow

FAR = {"segmenter_kwargs": {"thresh": -90}}


@pytest.fixture(scope="module")
def far(simulate):
    """Return summary and page of a measurement with 40 events of the instrument and a threshold of -90."""
    areas = np.where(np.arange(60) % 3 == 0, np.nan, 50.0)
    result = simulate("far", settings=FAR, frames=60, stored={"area_um": areas})
    summary = make_report(request_for(result))
    return summary, Page(summary.paths[0].read_text("utf-8"))


def test_the_sentence_counts_what_the_instrument_found(far):
    summary, _ = far
    assert (summary.light, summary.warnings[0], summary.events) == ("red", "no_events", 0)
    assert summary.texts[0].startswith("The instrument counted 40 events, dcnumd 0.")
    assert "below the threshold of -90 grey levels" in summary.texts[0]


def test_frames_background_and_darkness_are_shown(far):
    summary, page = far
    pictures = [values["src"].partition(";")[0] for values in page.of("img")]
    assert pictures.count("data:image/jpeg") == 6
    assert pictures.count("data:image/png") == 1, "the background"
    assert "Why there are no events" in page.text
    assert re.search(r"Online events\s*40\s", page.text)
    assert "What this report cannot show" not in page.text
    assert "The line is the threshold, -90" in page.text
    assert "all 60 frames, because there are fewer than 200" in page.text
    search = json.loads(summary.paths[1].read_text("utf-8"))["search"]
    assert search["threshold"] == -90
    assert search["frame"] == list(range(60)), "each once"
    assert min(search["darkest"]) < -20, "there are cells"


def test_without_the_measurement_no_frames_are_shown(far, tmp_path):
    summary, _ = far
    alone = tmp_path / "alone_dcn.rtdc"
    alone.write_bytes(summary.paths[0].with_suffix(".rtdc").read_bytes())
    hidden = summary.paths[0].parent / "far-tap.rtdc"
    moved = hidden.rename(tmp_path / "elsewhere")
    try:
        page = Page(make_report(request_for(alone)).paths[0].read_text("utf-8"))
    finally:
        moved.rename(hidden)
    assert "No frames are shown: those of the measurement cannot be reached." in page.text
    assert "Check that cells flow" in page.text
    assert len(page.of("img")) == 1, "the background is in the result"


def test_nothing_in_the_frames(simulate, figures_of):
    """The number of frames in the measurement is not that of events of the instrument."""
    figures = figures_of(simulate("empty", density=0, frames=60))
    assert (figures.online_events, figures.light) == (None, "red")
    assert min(figures.search.darkest) > -6
    assert "check flow, focus and light" in figures.checks[0].text


@pytest.mark.parametrize(
    ("mapping", "frames"),
    [(slice(0, 2, None), [0, 1]), (2, [0, 1]), (slice(4, 60, 8), [4, 12, 20, 28, 36, 44, 52]), ((9, 3, 4), [3, 4, 9])],
)
def test_only_processed_frames_are_sampled(simulate, figures_of, mapping, frames):
    """The other frames of the measurement say nothing about why no events were found."""
    result = simulate(f"some {mapping}", settings={**FAR, "index_mapping": mapping}, frames=60)
    assert list(figures_of(result).search.frame) == frames


def test_results_with_events_have_no_search(simulate, figures_of):
    assert figures_of(simulate()).search.darkest == ()
