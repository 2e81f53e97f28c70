"""Kernels: convex hull, arc length and polygon moments, and the features made of them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dcnumd.kernels.decorator import kernel

DIAGONAL_STEP = float(np.sqrt(np.float32(2)))
INT32_MAX = 2**31 - 1


@kernel
def polygon_moments(
    xs: npt.NDArray[np.int32], ys: npt.NDArray[np.int32], length: int
) -> tuple[float, float, float, float, float, float]:
    """Return m00, m10, m01 and the central mu20, mu11, mu02 of a polygon; all 0 when it has no area.

    Green's theorem on the polygon's edges. The sums are exact integers; they are scaled only at the end, and in
    the frame's coordinates, since shifting the origin would round differently from OpenCV's ``moments``.
    """
    s00 = s10 = s01 = s20 = s11 = s02 = 0
    ax = int(xs[length - 1])
    ay = int(ys[length - 1])
    for i in range(length):
        bx = int(xs[i])
        by = int(ys[i])
        cross = ax * by - bx * ay
        sum_x = ax + bx
        sum_y = ay + by
        s00 += cross
        s10 += cross * sum_x
        s01 += cross * sum_y
        s20 += cross * (ax * sum_x + bx * bx)
        s11 += cross * (ax * (sum_y + ay) + bx * (sum_y + by))
        s02 += cross * (ay * sum_y + by * by)
        ax = bx
        ay = by
    if s00 == 0:
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    sign = 1.0 if s00 > 0 else -1.0
    m00 = sign * s00 * (1 / 2)
    m10 = sign * s10 * (1 / 6)
    m01 = sign * s01 * (1 / 6)
    centre_x = m10 * (1 / m00)
    centre_y = m01 * (1 / m00)
    mu20 = sign * s20 * (1 / 12) - m10 * centre_x
    mu11 = sign * s11 * (1 / 24) - m10 * centre_y
    mu02 = sign * s02 * (1 / 12) - m01 * centre_y
    return m00, m10, m01, mu20, mu11, mu02


@kernel
def polygon_arc_length(xs: npt.NDArray[np.int32], ys: npt.NDArray[np.int32], length: int) -> float:
    """Return the length of a closed polygon [px]; edges are single-precision roots, as in OpenCV's ``arcLength``."""
    total = 0.0
    before = length - 1
    for i in range(length):
        dx = int(xs[i]) - int(xs[before])
        dy = int(ys[i]) - int(ys[before])
        squared = dx * dx + dy * dy
        if squared == 1:
            total += 1.0
        elif squared == 2:
            total += DIAGONAL_STEP
        else:
            total += np.float64(np.sqrt(np.float32(squared)))
        before = i
    return total


@kernel
def find_hull(
    contour_x: npt.NDArray[np.int32],
    contour_y: npt.NDArray[np.int32],
    length: int,
    y0: int,
    y1: int,
    row_left: npt.NDArray[np.int32],
    row_right: npt.NDArray[np.int32],
    hull_x: npt.NDArray[np.int32],
    hull_y: npt.NDArray[np.int32],
) -> int:
    """Compute the strictly convex hull of a contour that spans the rows y0 to y1 (half open); return its size.

    Only the outermost points of each row can be corners, so two monotone chains suffice: down on the left,
    up on the right. The first corner may be there twice, as the last one.
    """
    for y in range(y0, y1):
        row_left[y] = INT32_MAX
        row_right[y] = -1
    for i in range(length):
        x = contour_x[i]
        y = contour_y[i]
        row_left[y] = min(row_left[y], x)
        row_right[y] = max(row_right[y], x)
    rows = y1 - y0
    size = 0
    fixed = 1
    for i in range(2 * rows):
        if i < rows:
            cy = y0 + i
            cx = int(row_left[cy])
        else:
            cy = y1 - 1 - (i - rows)
            cx = int(row_right[cy])
        if i == rows:
            fixed = size
        # Corners that the new point makes flat or concave go; the ends of the left chain stay.
        while size > fixed:
            ax = int(hull_x[size - 2])
            ay = int(hull_y[size - 2])
            if (int(hull_x[size - 1]) - ax) * (cy - ay) - (int(hull_y[size - 1]) - ay) * (cx - ax) < 0:
                break
            size -= 1
        hull_x[size] = cx
        hull_y[size] = cy
        size += 1
    return size


@kernel
def contour_features(
    contour_x: npt.NDArray[np.int32],
    contour_y: npt.NDArray[np.int32],
    length: int,
    pixel_size: float,
    row_left: npt.NDArray[np.int32],
    row_right: npt.NDArray[np.int32],
    hull_x: npt.NDArray[np.int32],
    hull_y: npt.NDArray[np.int32],
    out: npt.NDArray[np.float64],
) -> bool:
    """Write the features of contour and hull to out[:18], in the order of `FEATURES_CONTOUR`.

    Returns whether the contour encloses an area; `out` is arbitrary otherwise.
    """
    m00, _m10, _m01, mu20, mu11, mu02 = polygon_moments(contour_x, contour_y, length)
    if m00 == 0:
        return False
    x_min = x_max = int(contour_x[0])
    y_min = y_max = int(contour_y[0])
    for i in range(1, length):
        x_min = min(x_min, int(contour_x[i]))
        x_max = max(x_max, int(contour_x[i]))
        y_min = min(y_min, int(contour_y[i]))
        y_max = max(y_max, int(contour_y[i]))
    corners = find_hull(contour_x, contour_y, length, y_min, y_max + 1, row_left, row_right, hull_x, hull_y)
    arc = polygon_arc_length(contour_x, contour_y, length)
    hull_m00, hull_m10, hull_m01, hull_mu20, _hull_mu11, hull_mu02 = polygon_moments(hull_x, hull_y, corners)
    hull_arc = polygon_arc_length(hull_x, hull_y, corners)
    size_x = x_max - x_min + 1
    size_y = y_max - y_min + 1
    difference = mu02 - mu20
    root = math.sqrt(difference * difference + 4 * (mu11 * mu11))
    major = 0.5 * (mu02 + mu20 + root)
    minor = 0.5 * (mu02 + mu20 - root)
    out[0] = m00
    out[1] = hull_m00 / m00
    out[2] = hull_m00 * (pixel_size * pixel_size)
    out[3] = m00 * (pixel_size * pixel_size)
    out[4] = size_x / size_y
    out[5] = 1 - 2 * math.sqrt(math.pi * hull_m00) / hull_arc
    out[6] = 1 - 2 * math.sqrt(math.pi * m00) / arc
    out[7] = math.sqrt((major - minor) / major) if major > 0 else math.nan
    out[8] = math.sqrt(hull_mu20 / hull_mu02) if hull_mu02 > 0 else math.nan
    out[9] = math.sqrt(major / minor) if minor > 0 else math.nan
    out[10] = math.sqrt(mu20 / mu02) if mu02 > 0 else math.nan
    out[11] = arc / hull_arc
    out[12] = arc * pixel_size
    out[13] = hull_m10 / hull_m00 * pixel_size
    out[14] = hull_m01 / hull_m00 * pixel_size
    out[15] = size_x * pixel_size
    out[16] = size_y * pixel_size
    out[17] = abs(0.5 * math.atan2(-2 * mu11, mu20 - mu02))
    return True
