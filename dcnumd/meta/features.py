"""Table of the scalar features of events, with their names, groups, units and labels.

Names and units follow the .rtdc format. Within a group, the order is that of the columns that its kernel writes, and
therefore that of the features in a result; `dcnumd.feat.events` asserts that their numbers agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Group = Literal["contour", "volume", "brightness", "texture", "frame", "event", "fluorescence"]
"""Kernel that computes a feature; ``frame`` for features of frames, ``event`` for those that are counted, and
``fluorescence`` for those of peaks, which only the instrument measures."""


@dataclass(frozen=True, slots=True)
class Feature:
    """A scalar feature.

    Attributes
    ----------
    name
        Name in .rtdc files.
    group
        Group of the feature. The first four groups are columns of an events table; features of the group ``frame`` are
        copied from the measurement.
    unit
        Unit in reports; ``1`` for a dimensionless number.
    label
        Name in reports.
    """

    name: str
    group: Group
    unit: str
    label: str


GREY = "grey levels"
TEXTURES = {
    "asm": "angular second moment",
    "con": "contrast",
    "cor": "correlation",
    "var": "variance",
    "idm": "inverse difference moment",
    "sva": "sum variance",
    "sen": "sum entropy",
    "ent": "entropy",
    "den": "difference entropy",
    "f12": "first measure of correlation",
    "f13": "second measure of correlation",
}
"""Texture measures of Haralick et al. in the order of their paper."""
DIRECTIONS = {"avg": "mean", "ptp": "range"}
"""Statistics over the values of a measure in four directions."""

PEAKS = {
    "max": ("a.u.", "maximum"),
    "max_ctc": ("a.u.", "maximum, crosstalk-corrected"),
    "area": ("a.u.", "area of peak"),
    "pos": ("µs", "position of peak"),
    "width": ("µs", "width of peak"),
    "npeaks": ("1", "number of peaks"),
    "dist": ("µs", "distance of the first two peaks"),
}
"""Unit and label of each feature of a peak of fluorescence."""

TABLE = (
    Feature("area_msd", "contour", "px", "Area of the raw contour in pixels"),
    Feature("area_ratio", "contour", "1", "Porosity: convex to raw area"),
    Feature("area_um", "contour", "µm²", "Area"),
    Feature("area_um_raw", "contour", "µm²", "Area of the raw contour"),
    Feature("aspect", "contour", "1", "Aspect ratio of the bounding box"),
    Feature("deform", "contour", "1", "Deformation"),
    Feature("deform_raw", "contour", "1", "Deformation of the raw contour"),
    Feature("eccentr_prnc", "contour", "1", "Eccentricity of the raw contour"),
    Feature("inert_ratio_cvx", "contour", "1", "Inertia ratio of the convex contour"),
    Feature("inert_ratio_prnc", "contour", "1", "Principal inertia ratio of the raw contour"),
    Feature("inert_ratio_raw", "contour", "1", "Inertia ratio of the raw contour"),
    Feature("per_ratio", "contour", "1", "Ratio of raw to convex perimeter"),
    Feature("per_um_raw", "contour", "µm", "Perimeter of the raw contour"),
    Feature("pos_x", "contour", "µm", "Position along the channel"),
    Feature("pos_y", "contour", "µm", "Position across the channel"),
    Feature("size_x", "contour", "µm", "Length of the bounding box"),
    Feature("size_y", "contour", "µm", "Height of the bounding box"),
    Feature("tilt", "contour", "rad", "Tilt of the raw contour"),
    Feature("volume", "volume", "µm³", "Volume"),
    Feature("bg_med", "brightness", GREY, "Brightness of the background"),
    Feature("bright_avg", "brightness", GREY, "Brightness"),
    Feature("bright_bc_avg", "brightness", GREY, "Brightness less background"),
    Feature("bright_bc_sd", "brightness", GREY, "Brightness less background, SD"),
    Feature("bright_perc_10", "brightness", GREY, "Brightness less background, 10th percentile"),
    Feature("bright_perc_90", "brightness", GREY, "Brightness less background, 90th percentile"),
    Feature("bright_sd", "brightness", GREY, "Brightness, SD"),
    *(
        Feature(f"tex_{texture}_{kind}", "texture", "1", f"Texture: {measure}, {statistic} over directions")
        for texture, measure in TEXTURES.items()
        for kind, statistic in DIRECTIONS.items()
    ),
    Feature("bg_off", "frame", GREY, "Offset of the background"),
    Feature("flow_rate", "frame", "µL/s", "Flow rate"),
    Feature("frame", "frame", "1", "Frame number"),
    Feature("g_force", "frame", "g", "Gravitational force"),
    Feature("pressure", "frame", "mPa", "Pressure"),
    Feature("temp", "frame", "°C", "Temperature of the chip"),
    Feature("temp_amb", "frame", "°C", "Ambient temperature"),
    Feature("time", "frame", "s", "Time"),
    Feature("nevents", "event", "1", "Events in the same frame"),
    *(
        Feature(f"fl{channel}_{peak}", "fluorescence", unit, f"FL-{channel} {label}")
        for channel in (1, 2, 3)
        for peak, (unit, label) in PEAKS.items()
    ),
)
BY_NAME = {feature.name: feature for feature in TABLE}

assert len(BY_NAME) == len(TABLE)


def names_of(group: Group) -> tuple[str, ...]:
    """Return the names of the features in a group, in the order of the table."""
    return tuple(feature.name for feature in TABLE if feature.group == group)
