"""The figures are those that dclab computes from the same file."""

from __future__ import annotations

import dclab
import numpy as np
import pytest
from dclab.statistics import Statistics

from dcnumd.config.values import ReportLimits
from tests.support.reports import write_result


def check_against_dclab(path, figures):
    with dclab.new_dataset(path) as dataset:
        assert figures.events == len(dataset)
        assert figures.flow_rate_ul_s == Statistics.available_methods["Flow rate"](ds=dataset)
        for feature in figures.features:
            for name in ("Mean", "Median", "SD", "Mode"):
                expected = Statistics.available_methods[name](ds=dataset, feature=feature.name)
                found = getattr(feature, name.lower())
                found = np.nan if found is None else found
                np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, err_msg=f"{feature.name} {name}")


@pytest.mark.parametrize("strategy", ["tap", "drain"])
def test_results_of_ours(simulate, figures_of, strategy):
    path = simulate(strategy=strategy)
    figures = figures_of(path)
    check_against_dclab(path, figures)
    assert [feature.name for feature in figures.features[:4]] == ["area_um", "deform", "bright_avg", "volume"]
    assert (figures.frames, figures.duration_s) == (600, pytest.approx(1.0))
    assert sum(figures.event_rate.values) / len(figures.event_rate.values) == pytest.approx(figures.events)
    assert figures.missing == ()
    assert figures.processing.masks_dropped == 0


def test_medians_at_the_top_leave_out_ragged_events(tmp_path, figures_of):
    """Those of the table are over all events, as in dclab."""
    ratio = np.array([1.01, 1.05, 1.02, 1.2, np.nan, 1.06, 1.5, 1.03])
    columns = {"area_um": np.arange(8.0), "deform": np.arange(8) / 100, "area_ratio": ratio}
    path = write_result(tmp_path / "M001_dcn.rtdc", 8, columns=columns)
    figures = figures_of(path)
    headline = figures.headline
    assert (headline.max_area_ratio, headline.events, headline.share) == (1.05, 4, 0.5)
    assert (headline.area_um, headline.deform) == (1.5, 0.015)
    assert "50 % of the events with a porosity of at most 1.05" in headline.text
    check_against_dclab(path, figures)
    no_limit = figures_of(path, ReportLimits(max_area_ratio=0)).headline
    assert (no_limit.max_area_ratio, no_limit.events, no_limit.area_um) == (None, 8, 3.5)
    nothing = figures_of(path, ReportLimits(max_area_ratio=1)).headline
    assert (nothing.events, nothing.area_um) == (0, None)
    assert "no event has a porosity of at most 1" in nothing.text


def test_medians_at_the_top_without_porosity_are_of_all_events(tmp_path, figures_of):
    headline = figures_of(write_result(tmp_path / "M001_dcn.rtdc", 8, columns={"area_um": np.arange(8.0)})).headline
    assert (headline.max_area_ratio, headline.events, headline.area_um) == (None, 8, 3.5)
    assert "all events, because the result has no porosity (area_ratio)" in headline.text


def test_no_events(tmp_path, figures_of):
    figures = figures_of(write_result(tmp_path / "M001_dcn.rtdc", 0))
    assert (figures.events, figures.light) == (0, "red")
    assert figures.event_rate.values == ()
    assert all(feature.median is None for feature in figures.features)


def test_one_event(tmp_path, figures_of):
    figures = figures_of(write_result(tmp_path / "M001_dcn.rtdc", 1))
    assert (figures.events, figures.features[0].count, figures.features[0].sd) == (1, 1, 0.0)
    assert figures.features[0].mode is None


def test_nothing_finite(tmp_path, figures_of):
    columns = dict.fromkeys(("area_um", "deform", "bright_avg", "volume"), np.full(30, np.nan))
    figures = figures_of(write_result(tmp_path / "M001_dcn.rtdc", 30, columns=columns))
    assert all(feature.count == 0 and feature.mean is None for feature in figures.features[:4])
    assert "No event has a finite value of area_um." in figures.missing


def test_texts_of_the_file_are_one_short_line(tmp_path, figures_of):
    attributes = {"experiment:sample": "<script>\n'\"Ωμέγα 细胞", "setup:medium": "x" * 10_000}
    figures = figures_of(write_result(tmp_path / "M001_dcn.rtdc", 3, attributes=attributes))
    assert figures.sample == "<script> '\"Ωμέγα 细胞"
    assert len(figures.medium) < 600
