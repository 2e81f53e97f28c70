"""Places the numbers of the gallery's cells in a scatter plot, beside their points and hiding little."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from dcnumd.report.cloud import Floats
from dcnumd.report.plots import Plot
from dcnumd.report.scatter import box_in

RADIUS = 6.4
"""Radius of the disc around a number [units of the plot]."""
CLEARANCE = 2 * RADIUS + 1.5
"""Smallest distance between the centres of two discs [units of the plot]. On phones, where discs are larger, they may
overlap a little."""
DISTANCES = (10.0, 15.0, 21.0, 28.0, 36.0)
DIRECTIONS = 16
OVERLAP_COST, POINT_COST, HIDING_COST, DISTANCE_COST = 8.0, 4.0, 1.0, 0.02
"""Costs of a disc that overlaps another disc, of one that overlaps a point with a number, of one that hides other
points, and of each unit of distance from its point."""


def beside(plot: Plot, raster: Image.Image) -> Floats:
    """Return places for the numbers of the marked points of a plot.

    The numbers are placed one after the other, each at the place with the least cost given those before.

    Parameters
    ----------
    plot
        The plot and its marked points.
    raster
        The drawing of all points by `scatter.dots`.

    Returns
    -------
    places : ndarray of shape (N, 2)
        x and y of the centres of the discs, in units of the plot and within its axes.
    """
    left, top, width, height = box_in(plot.width, plot.height)
    first, extent = np.array([left, top]), np.array([width, height])
    angles = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    offsets = np.concatenate([distance * np.column_stack([np.cos(angles), np.sin(angles)]) for distance in DISTANCES])
    lengths = np.hypot(*offsets.T)
    hidden = _Hidden(np.asarray(raster)[..., 3] > 0, first, extent)
    places = np.empty_like(plot.points)
    for number, point in enumerate(plot.points):
        candidates = np.clip(point + offsets, first + RADIUS, first + extent - RADIUS)
        cost = (
            OVERLAP_COST * _overlap(candidates, places[:number], CLEARANCE)
            + POINT_COST * _overlap(candidates, plot.points, RADIUS + 2)
            + HIDING_COST * hidden.share(candidates)
            + DISTANCE_COST * lengths
        )
        places[number] = candidates[np.argmin(cost)]
    return places


def _overlap(candidates: Floats, others: Floats, distance: float) -> Floats:
    """Return the overlap of each candidate with all others, summed; it is 0 for others farther than `distance`."""
    between = np.hypot(*(candidates[:, None] - others[None]).transpose(2, 0, 1))
    total: Floats = np.clip(1 - between / distance, 0, None).sum(axis=1)
    return total


class _Hidden:
    """Computes the share of a disc that covers drawn points. Discs are approximated by squares."""

    def __init__(self, drawn: npt.NDArray[np.bool_], first: Floats, extent: Floats) -> None:
        self._sums = np.pad(drawn.cumsum(axis=0, dtype=np.int64).cumsum(axis=1), ((1, 0), (1, 0)))
        self._first = first
        self._scale = np.array(drawn.shape[::-1]) / extent
        self._half = RADIUS * self._scale

    def share(self, places: Floats) -> Floats:
        """Return the share of a disc at each place that covers drawn points."""
        centre = (places - self._first) * self._scale
        last = np.array(self._sums.shape[::-1]) - 1
        x0, y0 = np.clip(centre - self._half, 0, last).astype(np.int64).T
        x1, y1 = np.clip(centre + self._half, 0, last).astype(np.int64).T
        sums = self._sums[y1, x1] - self._sums[y0, x1] - self._sums[y1, x0] + self._sums[y0, x0]
        share: Floats = sums / (4 * self._half.prod())
        return share
