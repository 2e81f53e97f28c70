"""Comparison of frames with one another; all frames are flat."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dcnumd.kernels.decorator import kernel

BLOCK = 512
"""Pixels that are compared before the result is looked at; a loop without an exit is vectorised."""


@kernel
def mark_duplicates(
    images: npt.NDArray[np.uint8], previous: npt.NDArray[np.uint8], duplicate: npt.NDArray[np.bool_]
) -> None:
    """Set `duplicate` for frames that equal the one before; an empty `previous` equals none."""
    pixels = images.shape[1]
    for index in range(images.shape[0]):
        before = images[index - 1] if index > 0 else previous
        frame = images[index]
        compared = 0
        difference = np.uint8(0 if before.size else 1)
        while difference == 0 and compared < pixels:
            for at in range(np.uint64(compared), np.uint64(min(compared + BLOCK, pixels))):
                difference |= frame[at] ^ before[at]
            compared += BLOCK
        duplicate[index] = difference == 0
