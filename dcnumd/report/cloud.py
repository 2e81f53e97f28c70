"""What a scatter plot shows: the events between its limits, and how dense they lie."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float64]
Limits = tuple[float, float]

DENSITY_BINS = 128


@dataclasses.dataclass(frozen=True, slots=True)
class Cloud:
    """The events of a scatter plot that lie between its limits.

    Attributes
    ----------
    index
        Number of each in the result, ascending.
    x, y
        Their values.
    density
        Events around each, relative to the densest place (0 to 1).
    limits_x, limits_y
        Ends of the axes.
    outside
        Events beyond the ends of an axis.
    """

    index: npt.NDArray[np.int64]
    x: Floats
    y: Floats
    density: Floats
    limits_x: Limits
    limits_y: Limits
    outside: int

    def has(self, event: int) -> bool:
        """Return whether the plot shows an event."""
        at = int(np.searchsorted(self.index, event))
        return at < self.index.size and int(self.index[at]) == event


def limits(values: Floats) -> Limits | None:
    """Return the ends of an axis that shows nearly all values, None if none is finite.

    Far outliers do not squeeze the rest; values that cannot be negative get an axis from zero, if that is near.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, high = (float(end) for end in np.percentile(finite, (0.5, 99.5)))
    margin = 0.15 * (high - low)
    if not math.isfinite(margin):
        return None
    # Equal values still need an axis; next to a large value a tiny margin would be lost.
    margin = max(margin, (1e-3 if high > low else 0.2) * max(abs(low), abs(high)), 1e-9)
    bottom, top = low - margin, high + margin
    if finite.min() >= 0 and bottom < 0.35 * top:
        bottom = 0.0
    return bottom, top


def cloud(x: Floats, y: Floats) -> Cloud | None:
    """Return what a scatter plot shows of two features; None if no event has both.

    Parameters
    ----------
    x, y
        Values of all events (float64 of shape (event,)); those that are not finite are passed over.
    """
    valid = np.isfinite(x) & np.isfinite(y)
    limits_x, limits_y = limits(x[valid]), limits(y[valid])
    if limits_x is None or limits_y is None:
        return None
    inside = valid & (x >= limits_x[0]) & (x <= limits_x[1]) & (y >= limits_y[0]) & (y <= limits_y[1])
    index = np.flatnonzero(inside)
    if not index.size:
        return None
    outside = int(np.count_nonzero(valid)) - index.size
    x, y = x[index], y[index]
    return Cloud(index, x, y, _density(x, y, limits_x, limits_y), limits_x, limits_y, outside)


def unit(values: Floats, ends: Limits) -> Floats:
    """Return where values lie between the ends of an axis, 0 to 1."""
    return (values - ends[0]) / (ends[1] - ends[0])


def _density(x: Floats, y: Floats, limits_x: Limits, limits_y: Limits) -> Floats:
    """Return how dense the events lie around each: a histogram, smoothed, and read at the events."""
    place = np.stack([unit(x, limits_x), unit(y, limits_y)]) * DENSITY_BINS
    bins = np.minimum(place.astype(np.int64), DENSITY_BINS - 1)
    counts = np.bincount(bins[0] * DENSITY_BINS + bins[1], minlength=DENSITY_BINS**2)
    grid = counts.reshape(DENSITY_BINS, DENSITY_BINS).astype(np.float64)
    # Scott's rule, within what looks like a cloud
    widths = np.clip(place.std(axis=1) * x.size ** (-1 / 6), 1.2, 6.0)
    smooth = ndimage.gaussian_filter(grid, widths, mode="constant")
    density: Floats = ndimage.map_coordinates(smooth, place - 0.5, order=1, mode="nearest")
    return density / density.max() if density.max() > 0 else np.ones_like(density)
