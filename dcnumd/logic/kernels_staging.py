"""Kernels that copy events into staging memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dcnumd.kernel import kernel


@kernel
def copy_frames(images: npt.NDArray[np.uint8], frames: npt.NDArray[np.int64], out: npt.NDArray[np.uint8]) -> None:
    """Copy ``images[frames[i]]`` to ``out[i]``."""
    for event in range(frames.size):
        out[event] = images[frames[event]]


@kernel
def draw_masks(
    labels: npt.NDArray[np.uint16],
    frames: npt.NDArray[np.int64],
    event_labels: npt.NDArray[np.uint16],
    boxes: npt.NDArray[np.int32],
    out: npt.NDArray[np.uint8],
) -> None:
    """Write to ``out[i]`` the mask (0 or 255) of an event with a label in a frame; boxes are y0, y1, x0, x1."""
    for event in range(frames.size):
        frame, label = labels[frames[event]], event_labels[event]
        y_start, y_stop, x_start, x_stop = boxes[event]
        mask = out[event]
        mask[:] = 0
        for y in range(y_start, y_stop):
            for x in range(x_start, x_stop):
                if frame[y, x] == label:
                    mask[y, x] = 255
