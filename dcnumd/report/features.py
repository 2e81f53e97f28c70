"""Scalar features: what they are called, and what is reported of each."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

FIRST = ("area_um", "deform", "bright_avg", "volume")
"""What people look at first."""
GREY = "grey level"
LABELS = {
    "area_um": ("Area", "µm²"),
    "deform": ("Deformation", "1"),
    "bright_avg": ("Brightness", GREY),
    "volume": ("Volume", "µm³"),
    "area_msd": ("Area of the raw contour in pixels", "px"),
    "area_ratio": ("Porosity: convex to raw area", "1"),
    "area_um_raw": ("Area of the raw contour", "µm²"),
    "aspect": ("Aspect ratio of the bounding box", "1"),
    "bg_med": ("Brightness of the background", GREY),
    "bg_off": ("Offset of the background", GREY),
    "bright_bc_avg": ("Brightness less background", GREY),
    "bright_bc_sd": ("Brightness less background, SD", GREY),
    "bright_perc_10": ("Brightness less background, 10th percentile", GREY),
    "bright_perc_90": ("Brightness less background, 90th percentile", GREY),
    "bright_sd": ("Brightness, SD", GREY),
    "deform_raw": ("Deformation of the raw contour", "1"),
    "eccentr_prnc": ("Eccentricity of the raw contour", "1"),
    "flow_rate": ("Flow rate", "µL/s"),
    "frame": ("Frame number", "1"),
    "g_force": ("Gravitational force", "g"),
    "inert_ratio_cvx": ("Inertia ratio of the convex contour", "1"),
    "inert_ratio_prnc": ("Principal inertia ratio of the raw contour", "1"),
    "inert_ratio_raw": ("Inertia ratio of the raw contour", "1"),
    "nevents": ("Events in the same frame", "1"),
    "per_ratio": ("Ratio of raw to convex perimeter", "1"),
    "per_um_raw": ("Perimeter of the raw contour", "µm"),
    "pos_x": ("Position along the channel", "µm"),
    "pos_y": ("Position across the channel", "µm"),
    "pressure": ("Pressure", "mPa"),
    "size_x": ("Length of the bounding box", "µm"),
    "size_y": ("Height of the bounding box", "µm"),
    "temp": ("Temperature of the chip", "°C"),
    "temp_amb": ("Ambient temperature", "°C"),
    "tilt": ("Tilt of the raw contour", "rad"),
    "time": ("Time", "s"),
}
TEXTURES = {
    "asm": "angular second moment",
    "con": "contrast",
    "cor": "correlation",
    "den": "difference entropy",
    "ent": "entropy",
    "f12": "first measure of correlation",
    "f13": "second measure of correlation",
    "idm": "inverse difference moment",
    "sen": "sum entropy",
    "sva": "sum variance",
    "var": "variance",
}
DIRECTIONS = {"avg": "mean", "ptp": "range"}


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
    if name in LABELS:
        return LABELS[name]
    kind, texture, direction = (*name.split("_"), "", "")[:3]
    if kind == "tex" and texture in TEXTURES and direction in DIRECTIONS:
        return f"Texture: {TEXTURES[texture]}, {DIRECTIONS[direction]} over directions", "1"
    return name, ""


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
