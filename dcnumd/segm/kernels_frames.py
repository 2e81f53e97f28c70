"""Comparison of frames with one another and with their background images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dcnumd.kernel import kernel

BLOCK = 512
"""Pixels that are compared without looking at the result; a short loop without exit is vectorised."""


@kernel
def are_equal(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> bool:
    """Return whether two flat frames of one size are equal."""
    for start in range(0, first.size, BLOCK):
        stop = min(start + BLOCK, first.size)
        left, right = first[start:stop], second[start:stop]
        different = np.uint8(0)
        for at in range(stop - start):
            different |= left[at] ^ right[at]
        if different != 0:
            return False
    return True


@kernel
def mark_duplicates(
    images: npt.NDArray[np.uint8], previous: npt.NDArray[np.uint8], duplicate: npt.NDArray[np.bool_]
) -> None:
    """Set `duplicate` for frames (frame, pixel) that equal the one before; an empty `previous` equals none."""
    for index in range(images.shape[0]):
        before = images[index - 1] if index > 0 else previous
        duplicate[index] = before.size > 0 and are_equal(images[index], before)


@kernel
def sum_pixels(pixels: npt.NDArray[np.uint8]) -> int:
    """Return the sum of a flat array."""
    total = np.int64(0)
    for start in range(0, pixels.size, BLOCK):
        part = pixels[start : start + BLOCK]
        # 512 * 255 needs few bits: narrow lanes double the number of pixels in an instruction
        subtotal = np.uint32(0)
        for at in range(part.size):
            subtotal += np.uint32(part[at])
        total += np.int64(subtotal)
    return total


@kernel
def subtract_means(
    images: npt.NDArray[np.uint8],
    backgrounds: npt.NDArray[np.uint8],
    background_index: npt.NDArray[np.int64],
    count: int,
    offsets: npt.NDArray[np.float64],
) -> None:
    """Write the difference between the means of the first `count` pixels of frame and background."""
    means = np.empty(backgrounds.shape[0], np.float64)
    for index in range(backgrounds.shape[0]):
        means[index] = sum_pixels(backgrounds[index, :count]) / count
    for index in range(images.shape[0]):
        offsets[index] = sum_pixels(images[index, :count]) / count - means[background_index[index]]
