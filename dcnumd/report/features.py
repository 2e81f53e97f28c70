"""The statistics of scalar features."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from dcnumd.meta.features import BY_NAME

Values = npt.NDArray[np.float64]

FIRST = ("area_um", "deform", "bright_avg", "volume")
"""The features that a report shows first."""


@dataclasses.dataclass(frozen=True, slots=True)
class FeatureFigures:
    """Statistics of a scalar feature over all events with a finite value; None for a number that does not exist.

    Attributes
    ----------
    name, label, unit
        For example ``area_um``, ``Area``, ``µm²``. The unit is ``1`` for a dimensionless feature, empty if not known.
    count
        Number of finite values.
    mean, median, sd, mode, minimum, maximum
        Statistics in `unit`. The standard deviation is the population's; the mode is computed by `mode_of`, as in
        dclab.
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
    """Return label and unit of a feature; its name and an empty unit if it is not known."""
    feature = BY_NAME.get(name)
    return (feature.label, feature.unit) if feature else (name, "")


def describe_feature(name: str, values: Values) -> FeatureFigures:
    """Return the statistics of a feature.

    Parameters
    ----------
    name
        Name of the feature.
    values
        Values of shape (event,); those that are not finite are left out.
    """
    label, unit = label_of(name)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return FeatureFigures(name, label, unit, 0, None, None, None, None, None, None)
    # Why sorted once: a result has many features, and most of what follows would sort them.
    ordered = np.sort(finite)
    middle = ordered[(finite.size - 1) // 2 : finite.size // 2 + 1]
    # Sums of very large values overflow; the result is then not finite and counts as not known.
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = (finite.mean(), middle.mean(), finite.std(), mode_of(ordered), ordered[0], ordered[-1])
    known = [float(number) if math.isfinite(number) else None for number in numbers]
    return FeatureFigures(name, label, unit, int(finite.size), *known)


def mode_of(values: Values) -> float:
    """Return the upper end of the fullest interval of a histogram; NaN if the intervals have no width.

    The width follows the rule of Freedman and Diaconis, and intervals are centred at multiples of it. Why not the
    centre of the interval: dclab returns its upper end.

    Parameters
    ----------
    values
        At least one finite value, of shape (event,), ascending.
    """
    width = 2 * (_quantile(values, 0.75) - _quantile(values, 0.25)) / len(values) ** (1 / 3)
    if not (0 < width < math.inf):
        return math.nan
    numbers = np.round(values / width)
    ends = np.concatenate(([0], np.flatnonzero(numbers[1:] != numbers[:-1]) + 1, [len(numbers)]))
    fullest = numbers[ends[np.argmax(np.diff(ends))]]
    return float(fullest * width + width / 2)


def _quantile(values: Values, share: float) -> float:
    """Return what `numpy.quantile` returns for ascending values, for which that is slow."""
    whole = int(share * (len(values) - 1))
    part = share * (len(values) - 1) - whole
    below, above = float(values[whole]), float(values[min(whole + 1, len(values) - 1)])
    # numpy interpolates from the nearer end, which is exact at both ends.
    return above - (above - below) * (1 - part) if part >= 0.5 else below + (above - below) * part
