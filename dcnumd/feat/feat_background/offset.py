"""Brightness offset of frames, for flickering illumination."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.feat.feat_background.kernels_median import sum_of_leading_columns

OFFSET_ROWS = 20
"""Number of rows at the upper edge, which show the channel wall, for computing the offset."""


def wall_brightness(images: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the mean grey value of the rows 0 to 19 of each image.

    The ``bg_off`` of a frame is its wall brightness minus that of its background image.

    Parameters
    ----------
    images
        Shape (image, y, x), uint8 or other numbers; images with fewer than 20 rows are used as a whole.

    Returns
    -------
    float64, shape (image,)
    """
    if images.dtype != np.uint8:
        return np.asarray(np.mean(images[:, :OFFSET_ROWS], axis=(1, 2)), np.float64)
    count, height, width = images.shape
    size = min(height, OFFSET_ROWS) * width
    sums = np.empty(count, np.int64)
    sum_of_leading_columns(np.ascontiguousarray(images).reshape(count, height * width), size, sums)
    # integer sums are exact, so the quotient equals a mean in float64
    means: npt.NDArray[np.float64] = sums / size
    return means


def background_offset(
    frames: npt.NDArray[Any],
    image_brightness: npt.NDArray[np.float64],
    image_index: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Return ``bg_off`` of frames.

    Parameters
    ----------
    frames
        Shape (frame, y, x), as for `wall_brightness`.
    image_brightness
        `wall_brightness` of the background images, shape (image,).
    image_index
        Index of the background image of each frame, shape (frame,).

    Returns
    -------
    float64, shape (frame,)
    """
    return wall_brightness(frames) - image_brightness[image_index]
