"""The data of a scatter plot: the events within its limits, and their density."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dcnumd.report.contours import Contour, enclosing

Floats = npt.NDArray[np.float64]
Limits = tuple[float, float]

DENSITY_BINS = 128
MOST_OUTSIDE = 0.01
"""Largest share of the events that may lie outside of given limits; with more, the limits are widened."""
SHOWN_PERCENT = (0.5, 99.5)
"""Percentiles of the values that an axis shows at least."""


@dataclasses.dataclass(frozen=True, slots=True)
class Isoline:
    """Line of equal elasticity in the standard plot.

    Attributes
    ----------
    modulus_kpa
        Young's modulus [kPa].
    points
        Area [µm²] and deformation of its points, of shape (point, 2).
    """

    modulus_kpa: float
    points: Floats


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
    incomplete
        Number of events without finite values of both features.
    unusual
        Share of the events outside of the limits that were asked for, if these were widened; else 0.
    contours
        Lines of equal density that enclose certain shares of the events; empty if there are few events.
    logarithmic
        Whether `y` and `limits_y` are decimal logarithms.
    isolines
        Lines of equal elasticity; only in the standard plot.
    remarks
        Sentences on the lines and the axes of the plot.
    """

    index: npt.NDArray[np.int64]
    x: Floats
    y: Floats
    density: Floats
    limits_x: Limits
    limits_y: Limits
    outside: int
    incomplete: int = 0
    unusual: float = 0.0
    contours: tuple[Contour, ...] = ()
    logarithmic: bool = False
    isolines: tuple[Isoline, ...] = ()
    remarks: tuple[str, ...] = ()

    def has(self, event: int) -> bool:
        """Return whether the plot shows an event."""
        at = int(np.searchsorted(self.index, event))
        return at < self.index.size and int(self.index[at]) == event


def limits(values: Floats) -> Limits | None:
    """Return the ends of an axis that shows nearly all values; None if there are none.

    There are none if no value is finite, or if values are too far apart for a floating-point number. Outliers are left
    out, so that they do not compress the rest. The axis begins at zero if no value is negative and zero is near.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, high = (float(end) for end in np.percentile(finite, SHOWN_PERCENT))
    margin = 0.15 * (high - low)
    # Equal values need a margin, too, and a margin that is tiny relative to the values would vanish by rounding.
    margin = max(margin, (1e-3 if high > low else 0.2) * max(abs(low), abs(high)), 1e-9)
    bottom, top = low - margin, high + margin
    if not math.isfinite(top - bottom):
        return None
    if finite.min() >= 0 and bottom < 0.35 * top:
        bottom = 0.0
    return bottom, top


def cloud(x: Floats, y: Floats, wanted: tuple[Limits, Limits] | None = None) -> Cloud | None:
    """Return the data of the scatter plot of two features; None if no event has finite values of both.

    Parameters
    ----------
    x, y
        Values of all events (float64 of shape (event,)). Events with values that are not finite are left out.
    wanted
        Ends of both axes, which are widened if more than `MOST_OUTSIDE` of the events lie outside of them; None to
        have them follow from the values.
    """
    valid = np.isfinite(x) & np.isfinite(y)
    count = int(np.count_nonzero(valid))
    if not count:
        return None
    if wanted is None:
        limits_x, limits_y, unusual = limits(x[valid]), limits(y[valid]), 0.0
    else:
        limits_x, limits_y, unusual = _fitting(x[valid], y[valid], wanted)
    if limits_x is None or limits_y is None:
        return None
    index = np.flatnonzero(_inside(x, limits_x) & _inside(y, limits_y))
    if not index.size:
        return None
    shown_x, shown_y = x[index], y[index]
    density, contours = _density(shown_x, shown_y, limits_x, limits_y, count)
    return Cloud(
        index=index,
        x=shown_x,
        y=shown_y,
        density=density,
        limits_x=limits_x,
        limits_y=limits_y,
        outside=count - index.size,
        incomplete=x.size - count,
        unusual=unusual,
        contours=contours,
    )


def _inside(values: Floats, ends: Limits) -> npt.NDArray[np.bool_]:
    """Return which values lie between the ends of an axis; NaN does not."""
    return (values >= ends[0]) & (values <= ends[1])


def _fitting(x: Floats, y: Floats, wanted: tuple[Limits, Limits]) -> tuple[Limits | None, Limits | None, float]:
    """Return the ends of both axes, widened if need be, and if they are, the share of events outside of `wanted`."""
    share = 1 - np.count_nonzero(_inside(x, wanted[0]) & _inside(y, wanted[1])) / x.size
    if share <= MOST_OUTSIDE:
        return (*wanted, 0.0)
    found = _widened(x, wanted[0]), _widened(y, wanted[1])
    return (*found, share if found != wanted else 0.0)


def _widened(values: Floats, ends: Limits) -> Limits | None:
    """Return the ends of an axis, extended to show nearly all values; None if that is not possible."""
    low, high = ends
    first, last = (float(end) for end in np.percentile(values, SHOWN_PERCENT))
    high = low + _stretched(high - low, last - low)
    low = high - _stretched(high - low, high - first)
    if values.min() >= 0 and ends[0] >= 0:
        low = max(low, 0.0)
    return (low, high) if math.isfinite(high - low) else limits(values)


def _stretched(length: float, needed: float) -> float:
    """Return 1, 1.5, 2, 3, 4, 6, 8 … times the length: the first that suffices.

    Why not the needed length: stretched axes of different measurements are often the same with these.
    """
    ratio = needed / length
    if not 1 < ratio < math.inf:
        return length if ratio <= 1 else math.inf
    power = 2.0 ** math.floor(math.log2(ratio))
    return length * next(factor * power for factor in (1, 1.5, 2) if factor * power >= ratio)


def unit(values: Floats, ends: Limits) -> Floats:
    """Return the positions of values between the ends of an axis, as numbers from 0 to 1."""
    return (values - ends[0]) / (ends[1] - ends[0])


def visible_parts(points: Cloud, line: Isoline) -> list[Floats]:
    """Return the parts of a line within the plot, as positions between the ends of both axes (x, y, from 0 to 1)."""
    x, y = unit(line.points[:, 0], points.limits_x), unit(line.points[:, 1], points.limits_y)
    inside = (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)
    borders = np.flatnonzero(np.diff(inside)) + 1
    parts = np.split(np.column_stack([x, y]), borders)
    return [part for part, shown in zip(parts, np.split(inside, borders), strict=True) if shown[0] and len(part) > 1]


def _density(
    x: Floats, y: Floats, limits_x: Limits, limits_y: Limits, events: int
) -> tuple[Floats, tuple[Contour, ...]]:
    """Return the density at each event, and its contours: a histogram, smoothed, and interpolated at the events."""
    place = np.stack([unit(x, limits_x), unit(y, limits_y)]) * DENSITY_BINS
    bins = np.minimum(place.astype(np.int64), DENSITY_BINS - 1)
    counts = np.bincount(bins[0] * DENSITY_BINS + bins[1], minlength=DENSITY_BINS**2)
    grid = counts.reshape(DENSITY_BINS, DENSITY_BINS).astype(np.float64)
    # Scott's rule, within the range of widths that give a smooth cloud.
    widths = np.clip(place.std(axis=1) * x.size ** (-1 / 6), 1.2, 6.0)
    smooth = ndimage.gaussian_filter(grid, widths, mode="constant")
    density: Floats = ndimage.map_coordinates(smooth, place - 0.5, order=1, mode="nearest")
    contours = enclosing(smooth, density, events)
    return (density / density.max() if density.max() > 0 else np.ones_like(density)), contours
