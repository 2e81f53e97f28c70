"""From thresholds to processed labels, for whole batches of frames.

All frames are flat: (frame, height * width). Scratch arrays are allocated once for each batch, because fresh memory
costs more than the arithmetic. There is one large kernel, for the compiler optimises a kernel again with each of its
callers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dcnumd.kernels.decorator import kernel
from dcnumd.segm.kernels_bits import FULL, ZERO, fill_enclosed, open_disk, pack_below, remove_isolated
from dcnumd.segm.kernels_runs import draw_component, find_components, paint_components, wide

NO_PIXEL = -256
"""A difference of two bytes is never as low as this."""

CORNER = np.uint64(0b11)
"""The pixels of row 1 that are background before holes are filled."""


@kernel
def highest_difference(bg_off: float, thresh: float) -> int:
    """Return the largest `d` in -255…255 with ``float(d) - bg_off < thresh``, or -256 if there is none.

    The comparison is evaluated as it stands, because ``d < thresh + bg_off`` rounds differently. It holds for all
    integers below one for which it holds, hence the bisection.
    """
    low, high = NO_PIXEL, 255
    while low < high:
        middle = (low + high + 1) >> 1
        if float(middle) - bg_off < thresh:
            low = middle
        else:
            high = middle - 1
    return low


@kernel
def label_thresholded_frames(
    images: npt.NDArray[np.uint8],
    backgrounds: npt.NDArray[np.uint8],
    background_index: npt.NDArray[np.int64],
    bg_off: npt.NDArray[np.float64],
    thresh: float,
    clear_border: bool,
    fill_holes: bool,
    radius: int,
    height: int,
    width: int,
    labels: npt.NDArray[np.uint16],
) -> None:
    """Threshold, label and process frames; an empty `bg_off` means no offset.

    With `clear_border` the components that remain are processed one by one, each in its bounding box with a margin of
    one pixel, widened to whole words. That is exact: a disk that fits lies in one component, no disk across the edge
    fits, and what is outside of all components together is what is outside of each. Without `clear_border` a component
    at the edge can cut off the flood for others; then the frame is processed as a whole.
    """
    words = (width + 63) // 64
    guard = max(1, (radius + 63) // 64)
    stride = words + guard
    tail = FULL >> np.uint64(64 * words - width)
    renumber = fill_holes or radius > 0
    # a smaller bounding box has no room for the disk, not even with its holes filled
    least = 2 * radius + 1
    size = (height + 2) * stride
    bits, result = np.zeros(size, np.uint64), np.zeros(size, np.uint64)
    region, scratch_a, scratch_b = (
        np.empty(size, np.uint64),
        np.empty(size, np.uint64),
        np.empty(size, np.uint64),
    )
    most = height * ((width + 1) // 2)
    starts, ends, parent = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int32)
    number, following = np.empty(most, np.int32), np.empty(most, np.int32)
    boxes = np.empty((most, 5), np.int32)
    row_first = np.empty(height + 1, np.int32)
    for index in range(images.shape[0]):
        frame = labels[index]
        for at in range(frame.size):
            frame[at] = 0
        limit = highest_difference(bg_off[index] if bg_off.size else 0.0, thresh)
        if limit == NO_PIXEL:
            continue
        pack_below(images[index], backgrounds[background_index[index]], limit, height, width, stride, bits)
        remaining, top, bottom = bits, wide(0), height
        if renumber and not clear_border:
            if fill_holes:
                for word in range(words):
                    bits[stride + word] = ZERO
                if height > 1:
                    bits[2 * stride] &= ~CORNER
                fill_enclosed(bits, scratch_a, height, words, stride, tail)
            if radius > 0:
                open_disk(bits, scratch_a, scratch_b, height, words, stride, tail, radius)
        if renumber and clear_border:
            if radius > 0:
                # a single pixel survives no opening, connects nothing and encloses nothing
                remove_isolated(bits, scratch_a, scratch_b, height, stride)
            find_components(bits, top, bottom, words, stride, starts, ends, row_first, parent, following, boxes)
            remaining, top, bottom = result, height, wide(0)
            for at in range(size):
                result[at] = ZERO
            for run in range(row_first[height]):
                if parent[run] != run:
                    continue
                first_row, last_row = wide(boxes[run, 0]), wide(boxes[run, 1])
                left, right = wide(boxes[run, 2]), wide(boxes[run, 3])
                if last_row - first_row + 1 < least or right - left + 1 < least:
                    continue
                if first_row == 0 or last_row == height - 1 or left == 0 or right == width - 1:
                    continue
                left_word = (left - 1) // 64
                region_words = (right + 1) // 64 - left_word + 1
                region_stride = region_words + guard
                rows = last_row - first_row + 3
                draw_component(
                    run,
                    first_row,
                    last_row,
                    left_word,
                    region_stride,
                    starts,
                    ends,
                    row_first,
                    following,
                    region,
                )
                if fill_holes:
                    if first_row == 1 and left_word == 0:
                        region[2 * region_stride] &= ~CORNER
                    if last_row - first_row > 1 and right - left > 1:
                        fill_enclosed(region, scratch_a, rows, region_words, region_stride, FULL)
                if radius > 0:
                    open_disk(region, scratch_a, scratch_b, rows, region_words, region_stride, FULL, radius)
                for row in range(1, rows - 1):
                    for word in range(region_words):
                        drawn = region[(row + 1) * region_stride + word]
                        result[(first_row + row) * stride + left_word + word] |= drawn
                top = min(top, first_row)
                bottom = max(bottom, last_row + 1)
            if top > bottom:
                continue
        find_components(remaining, top, bottom, words, stride, starts, ends, row_first, parent, following, boxes)
        paint_components(
            top,
            bottom,
            height,
            width,
            # the other steps leave nothing that touches the edge
            clear_border and not renumber,
            starts,
            ends,
            row_first,
            parent,
            boxes,
            number,
            frame,
        )


@kernel
def remove_border_labels(labels: npt.NDArray[np.uint16], height: int, width: int) -> None:
    """Set every label that occurs on the edge of its frame to 0."""
    touching = np.zeros(65536, np.bool_)
    for index in range(labels.shape[0]):
        frame = labels[index]
        for x in range(width):
            touching[frame[x]] = True
            touching[frame[(height - 1) * width + x]] = True
        for y in range(height):
            touching[frame[y * width]] = True
            touching[frame[(y + 1) * width - 1]] = True
        for at in range(frame.size):
            if touching[frame[at]]:
                frame[at] = np.uint16(0)
        for value in range(touching.size):
            touching[value] = False
