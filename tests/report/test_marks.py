"""Numbers beside the points of a scatter plot."""

from __future__ import annotations

import numpy as np
import pytest

from dcnumd.report import scatter
from dcnumd.report.cloud import cloud
from dcnumd.report.marks import CLEARANCE, RADIUS, beside
from dcnumd.report.scatter import SCATTER_BOX

LABELS = ("area [µm²]", "deformation")


def drawn(x, y, marked=slice(None)):
    """Return a plot of points, of which some are marked, and its raster."""
    found = cloud(x, y)
    raster = scatter.dots(found)
    return scatter.plot(found, raster, LABELS, found.index[marked], "s"), raster


def distances(places, others):
    return np.hypot(*(places[:, None] - others[None]).transpose(2, 0, 1))


@pytest.fixture
def few():
    """Return 26 events, some close together."""
    rng = np.random.default_rng(3)
    return drawn(
        np.r_[rng.uniform(30, 110, 20), rng.uniform(10, 14, 6)],
        np.r_[rng.uniform(0.05, 0.35, 20), rng.uniform(0.02, 0.03, 6)],
    )


def test_no_number_hides_a_point_or_another_number(few):
    """Of few events each can be seen, and each number is near its point."""
    plot, raster = few
    places = beside(plot, raster)
    between = distances(places, places) + np.diag(np.full(len(places), np.inf))
    assert between.min() >= 2 * RADIUS
    assert distances(places, plot.points).min() >= RADIUS
    assert np.diagonal(distances(places, plot.points)).max() < 45
    # most are right beside their points
    assert np.median(np.diagonal(distances(places, plot.points))) < CLEARANCE


def test_numbers_stay_between_the_axes(few):
    """Also those of points in the corners."""
    left, bottom, across, up = SCATTER_BOX
    corners = drawn(np.array([10.0, 10.0, 90.0, 90.0]), np.array([0.01, 0.3, 0.01, 0.3]))
    for plot, raster in (few, corners):
        x, y = beside(plot, raster).T
        assert x.min() >= left * plot.width + RADIUS - 1e-6
        assert x.max() <= (left + across) * plot.width - RADIUS + 1e-6
        assert y.min() >= (1 - bottom - up) * plot.height + RADIUS - 1e-6
        assert y.max() <= (1 - bottom) * plot.height - RADIUS + 1e-6


def test_numbers_leave_a_crowd():
    """A number at the edge of a cloud stands outside of it, where it hides nothing."""
    rng = np.random.default_rng(4)
    x, y = rng.uniform(40, 60, 4000), rng.uniform(0.1, 0.2, 4000)
    x[0], y[0], x[1], y[1] = 40.2, 0.15, 110.0, 0.4
    plot, raster = drawn(x, y, slice(1))
    ((number_x, _),) = beside(plot, raster)
    assert number_x < plot.points[0, 0] - RADIUS


def test_nothing_is_marked():
    """A plot without a gallery."""
    plot, raster = drawn(np.array([10.0, 20.0]), np.array([0.1, 0.2]), slice(0))
    assert beside(plot, raster).shape == (0, 2)
