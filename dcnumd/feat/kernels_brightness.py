"""Kernels: brightness inside a mask, and the median of a background image."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dcnumd.kernels.decorator import kernel


@kernel
def median_of_image(image: npt.NDArray[np.uint8], counts: npt.NDArray[np.int32]) -> float:
    """Return the median of an image (Y, X); `counts` (4, 256) is zero before and after."""
    height, width = image.shape
    for y in range(height):
        row = image[y]
        # Neighbours are often equal; adding to four histograms in turn avoids waiting for the last addition.
        for x in range(width):
            counts[x & 3, row[x]] += 1
    for value in range(256):
        counts[0, value] += counts[1, value] + counts[2, value] + counts[3, value]
    total = height * width
    lower = upper = -1
    below = 0
    for value in range(256):
        below += counts[0, value]
        if lower < 0 and below > (total - 1) // 2:
            lower = value
        if upper < 0 and below > total // 2:
            upper = value
        for i in range(4):
            counts[i, value] = 0
    return (lower + upper) / 2


@kernel
def percentile(counts: npt.NDArray[np.int32], total: int, low: int, percent: float) -> float:
    """Return a percentile by linear interpolation of a histogram of `total` values.

    Bin i holds the value i - 255; the bins before `low` are empty.
    """
    rank = 1 + (total - 1) * (percent / 100)
    whole = math.floor(rank)
    fraction = rank - whole
    value = low
    below = int(counts[value])
    while below < whole:
        value += 1
        below += counts[value]
    lower = value
    while below < min(whole + 1, total):
        value += 1
        below += counts[value]
    return (lower - 255) * (1 - fraction) + (value - 255) * fraction


@kernel
def brightness_features(
    brightness: npt.NDArray[np.uint8],
    corrected: npt.NDArray[np.int16],
    pixels: int,
    background_median: float,
    offset: float,
    counts: npt.NDArray[np.int32],
    out: npt.NDArray[np.float64],
) -> None:
    """Write the brightness features of the mask to out[:7], in the order of `FEATURES_BRIGHTNESS`.

    `offset` is the frame's bg_off (0 without one); it moves what is background-corrected, and the background itself.
    `counts` (511,) is zero before and after.
    """
    image_sum = image_squares = corrected_sum = corrected_squares = np.int64(0)
    # not a literal, for which numba would compile `percentile` once more
    low = counts.size - 1
    high = 0
    for i in range(pixels):
        value = np.int64(brightness[i])
        image_sum += value
        image_squares += value * value
        difference = np.int64(corrected[i])
        corrected_sum += difference
        corrected_squares += difference * difference
        place = int(difference) + 255
        counts[place] += 1
        low = min(low, place)
        high = max(high, place)
    out[0] = background_median + offset
    out[1] = image_sum / pixels
    out[2] = corrected_sum / pixels - offset
    # Sums are exact integers, so a flat object has a deviation of exactly 0.
    out[3] = math.sqrt(pixels * corrected_squares - corrected_sum * corrected_sum) / pixels
    out[4] = percentile(counts, pixels, low, 10.0) - offset
    out[5] = percentile(counts, pixels, low, 90.0) - offset
    out[6] = math.sqrt(pixels * image_squares - image_sum * image_sum) / pixels
    for place in range(low, high + 1):
        counts[place] = 0
