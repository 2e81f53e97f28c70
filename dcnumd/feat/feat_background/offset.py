"""Brightness offset of single frames, for illumination that flickers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.feat.feat_background.kernels_median import sum_of_leading_columns

OFFSET_ROWS = 20
"""Rows at the upper edge (the channel wall) from which the offset is taken [px]."""


def wall_brightness(images: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the mean grey value of the rows 0 to 19 of each image.

    The difference between a frame's and its background image's wall brightness is the frame's ``bg_off``.

    Parameters
    ----------
    images
        Shape (image, y, x), uint8 or other numbers; with fewer than 20 rows, all of them count.

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
    # Integer sums are exact, so the quotient is what a mean in float64 gives.
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
        Background image of every frame, shape (frame,).

    Returns
    -------
    float64, shape (frame,)
    """
    return wall_brightness(frames) - image_brightness[image_index]
