"""The data of a scatter plot: the events within its limits, and their density."""

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
    """The events within the limits of a scatter plot.

    Attributes
    ----------
    index
        Number of each event in the result, ascending.
    x, y
        Values of the events.
    density
        Density of events around each event, relative to the largest density (0 to 1).
    limits_x, limits_y
        Ends of the axes.
    outside
        Number of events outside of the limits.
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
    """Return the ends of an axis that shows nearly all values; None if no value is finite.

    Outliers are left out, so that they do not compress the rest. The axis begins at zero if no value is negative and
    zero is near.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, high = (float(end) for end in np.percentile(finite, (0.5, 99.5)))
    margin = 0.15 * (high - low)
    if not math.isfinite(margin):
        return None
    # Equal values need a margin, too, and a margin that is tiny relative to the values would vanish by rounding.
    margin = max(margin, (1e-3 if high > low else 0.2) * max(abs(low), abs(high)), 1e-9)
    bottom, top = low - margin, high + margin
    if finite.min() >= 0 and bottom < 0.35 * top:
        bottom = 0.0
    return bottom, top


def cloud(x: Floats, y: Floats) -> Cloud | None:
    """Return the data of the scatter plot of two features; None if no event has finite values of both.

    Parameters
    ----------
    x, y
        Values of all events (float64 of shape (event,)). Events with values that are not finite are left out.
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
    """Return the positions of values between the ends of an axis, as numbers from 0 to 1."""
    return (values - ends[0]) / (ends[1] - ends[0])


def _density(x: Floats, y: Floats, limits_x: Limits, limits_y: Limits) -> Floats:
    """Return the density at each event: a histogram, smoothed, and interpolated at the events."""
    place = np.stack([unit(x, limits_x), unit(y, limits_y)]) * DENSITY_BINS
    bins = np.minimum(place.astype(np.int64), DENSITY_BINS - 1)
    counts = np.bincount(bins[0] * DENSITY_BINS + bins[1], minlength=DENSITY_BINS**2)
    grid = counts.reshape(DENSITY_BINS, DENSITY_BINS).astype(np.float64)
    # Scott's rule, within the range of widths that give a smooth cloud.
    widths = np.clip(place.std(axis=1) * x.size ** (-1 / 6), 1.2, 6.0)
    smooth = ndimage.gaussian_filter(grid, widths, mode="constant")
    density: Floats = ndimage.map_coordinates(smooth, place - 0.5, order=1, mode="nearest")
    return density / density.max() if density.max() > 0 else np.ones_like(density)
