"""Kernel: volume of the body of revolution of a contour."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dcnumd.kernels.decorator import kernel


@kernel
def contour_volume(
    contour_x: npt.NDArray[np.int32],
    contour_y: npt.NDArray[np.int32],
    length: int,
    pos_x: float,
    pos_y: float,
    pixel_size: float,
) -> float:
    """Return the mean volume [µm³] of the contour's two halves, each revolved about the horizontal axis.

    The axis goes through (pos_x, pos_y) [µm]. Every edge of a half spans a truncated cone, whose volume counts with the
    sign of its step along the axis. Contour following with y pointing down makes the sum over the upper half of
    the image negative. NaN for fewer than 4 points.
    """
    if length < 4:
        return math.nan
    centre_x = pos_x / pixel_size
    centre_y = pos_y / pixel_size
    below = above = 0.0
    ax = contour_x[length - 1] - centre_x
    ay = contour_y[length - 1] - centre_y
    for i in range(length):
        bx = contour_x[i] - centre_x
        by = contour_y[i] - centre_y
        step = bx - ax
        radius = max(ay, 0.0)
        change = max(by, 0.0) - radius
        below += step * abs(3 * radius * radius + 3 * radius * change + change * change)
        radius = min(ay, 0.0)
        change = min(by, 0.0) - radius
        above -= step * abs(3 * radius * radius + 3 * radius * change + change * change)
        ax = bx
        ay = by
    return math.pi / 3 * (below + above) / 2 * (pixel_size * pixel_size * pixel_size)
