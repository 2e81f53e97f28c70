"""Scalar features: what is reported of each."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from dcnumd.meta.features import BY_NAME

Values = npt.NDArray[np.float64]

FIRST = ("area_um", "deform", "bright_avg", "volume")
"""What people look at first."""


@dataclasses.dataclass(frozen=True, slots=True)
class FeatureFigures:
    """A scalar feature over all events with a finite value; None where there is no such number.

    Attributes
    ----------
    name, label, unit
        Such as ``area_um``, ``Area``, ``µm²``; the unit is ``1`` for a mere number and empty if not known.
    count
        Number of finite values.
    mean, median, sd, mode, minimum, maximum
        In `unit`. The standard deviation is that of the whole population, the mode that of `mode_of`, as in dclab.
    """

    name: str
    label: str
    unit: str
    count: int
    mean: float | None
    median: float | None
    sd: float | None
    mode: float | None
    minimum: float | None
    maximum: float | None


def label_of(name: str) -> tuple[str, str]:
    """Return what a feature is called, and its unit."""
    feature = BY_NAME.get(name)
    return (feature.label, feature.unit) if feature else (name, "")


def describe_feature(name: str, values: Values) -> FeatureFigures:
    """Return the figures of a feature.

    Parameters
    ----------
    name
        The feature.
    values
        Of shape (event,); those that are not finite do not count.
    """
    label, unit = label_of(name)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return FeatureFigures(name, label, unit, 0, None, None, None, None, None, None)
    # Values near the largest that there are overflow in sums; what comes out is not finite and hence not known.
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = (finite.mean(), np.median(finite), finite.std(), mode_of(finite), finite.min(), finite.max())
    known = [float(number) if math.isfinite(number) else None for number in numbers]
    return FeatureFigures(name, label, unit, int(finite.size), *known)


def mode_of(values: Values) -> float:
    """Return the fullest of all intervals that are as wide as Freedman and Diaconis advise; NaN if they have no width.

    Intervals are centred at multiples of their width. As in dclab, the upper end of the fullest is returned.

    Parameters
    ----------
    values
        Finite, of shape (event,), at least one.
    """
    low, high = np.percentile(values, (25, 75))
    width = 2 * (high - low) / len(values) ** (1 / 3)
    if not (0 < width < math.inf):
        return math.nan
    numbers, counts = np.unique(np.round(values / width), return_counts=True)
    return float(numbers[np.argmax(counts)] * width + width / 2)
