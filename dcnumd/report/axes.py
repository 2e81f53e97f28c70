"""The limits of the standard plot: those of the settings, or the usual ones for the width of the channel."""

from __future__ import annotations

from dcnumd.config.values import PlotSettings
from dcnumd.report.cloud import Limits

USUAL_WIDTH = 20.0
"""Width of a channel for which the usual limits are defined; also assumed if the width is not known [µm]."""
USUAL_AREA: Limits = (0.0, 200.0)
"""Ends of the area axis for this width [µm²]. For others, they grow with the square of the width, as cells do that
fit into the channel."""
USUAL_DEFORM: Limits = (0.0, 0.2)
"""Ends of the deformation axis."""
WIDTHS = (5.0, 100.0)
"""Smallest and largest width of a channel; other values in a file are taken for mistakes [µm]."""


def is_width(width: float | None) -> bool:
    """Return whether a number can be the width of a channel [µm]."""
    return width is not None and WIDTHS[0] <= width <= WIDTHS[1]


def standard_limits(settings: PlotSettings, width: float | None) -> tuple[Limits, Limits]:
    """Return the ends of the area axis [µm²], and of the deformation axis, of the standard plot.

    Parameters
    ----------
    settings
        The settings, whose limits are preferred.
    width
        Width of the channel [µm]; None if it is not known.
    """
    scale = (width / USUAL_WIDTH) ** 2 if width is not None and is_width(width) else 1.0
    low, high = settings.area or (end * scale for end in USUAL_AREA)
    bottom, top = settings.deform or USUAL_DEFORM
    return (low, high), (bottom, top)


def follows_unknown_width(settings: PlotSettings, width: float | None) -> bool:
    """Return whether the limits are those for the usual width because the actual one is not known."""
    return not settings.area and not is_width(width)
