"""Kernels: masks of events as bits within their bounding boxes, row by row, the highest bit of a byte first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dcnumd.kernels.decorator import kernel


@kernel
def collect_bits(
    labels: npt.NDArray[np.uint16],
    frames: npt.NDArray[np.int64],
    event_labels: npt.NDArray[np.uint16],
    boxes: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    bits: npt.NDArray[np.uint8],
) -> None:
    """Write the mask of each event to `bits` (byte,) from byte ``offsets[event]`` on: where its frame has its label."""
    for event in range(len(frames)):
        frame, label, at = frames[event], event_labels[event], offsets[event]
        byte, count = 0, 0
        for y in range(boxes[event, 0], boxes[event, 1]):
            for x in range(boxes[event, 2], boxes[event, 3]):
                byte = 2 * byte + (1 if labels[frame, y, x] == label else 0)
                count += 1
                if count == 8:
                    bits[at] = byte
                    at += 1
                    byte, count = 0, 0
        if count > 0:
            bits[at] = byte << (8 - count)


@kernel
def draw_bits(boxes: npt.NDArray[np.int32], bits: npt.NDArray[np.uint8], out: npt.NDArray[np.uint8]) -> None:
    """Set the pixels of each mask in `out` (event, y, x), which is zero, to 255; `bits` (event, byte) has the masks."""
    for event in range(len(boxes)):
        number = 0
        for y in range(boxes[event, 0], boxes[event, 1]):
            for x in range(boxes[event, 2], boxes[event, 3]):
                if bits[event, number >> 3] & (128 >> (number & 7)):
                    out[event, y, x] = 255
                number += 1
