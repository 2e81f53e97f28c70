"""From thresholds, masks or labels to processed labels, for whole batches of frames.

All frames are flat: (frame, height * width). Scratch arrays are allocated once for each batch, because fresh memory
costs more than the arithmetic.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dcnumd.kernel import kernel
from dcnumd.segm.kernels_bits import (
    ZERO,
    FULL,
    BitArray,
    fill_enclosed,
    open_disk,
    pack_below,
    pack_row_end,
    remove_isolated,
)
from dcnumd.segm.kernels_runs import (
    Runs,
    draw_run,
    extract_runs,
    join_runs,
    label_rows,
    new_runs,
    number_runs,
    paint_runs,
    remove_border_numbers,
)

NO_PIXEL = -256
"""A difference of two bytes is never as low as this."""

UNTOUCHABLE = np.uint64(0b11)
"""The pixels of row 1 that are background before holes are filled."""


@kernel
def highest_difference(bg_off: float, thresh: float) -> int:
    """Return the largest `d` in -256…255 with ``float(d) - bg_off < thresh``; -256 stands for none.

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
def process_whole_frame(
    bits: BitArray,
    scratch_a: BitArray,
    scratch_b: BitArray,
    height: int,
    width: int,
    stride: int,
    fill_holes: bool,
    radius: int,
) -> None:
    """Fill holes and open a frame; this is right whatever touches the frame's edge."""
    words = (width + 63) // 64
    tail = pack_row_end(width)
    if fill_holes:
        for word in range(words):
            bits[stride + word] = ZERO
        if height > 1:
            bits[2 * stride] &= ~UNTOUCHABLE
        fill_enclosed(bits, scratch_a, height, words, stride, tail)
    if radius > 0:
        open_disk(bits, scratch_a, scratch_b, height, words, stride, tail, radius)


@kernel
def link_runs(height: int, runs: Runs, boxes: npt.NDArray[np.int32]) -> None:
    """Chain the runs of each component and write its last run, last row, first and last column to `boxes`[root]."""
    for y in range(height):
        for run in range(runs.row_first[y], runs.row_first[y + 1]):
            root = runs.parent[run]
            box = boxes[root]
            runs.following[run] = -1
            if root == run:
                box[2] = runs.starts[run]
                box[3] = runs.ends[run]
            else:
                runs.following[box[0]] = run
                box[2] = min(box[2], runs.starts[run])
                box[3] = max(box[3], runs.ends[run])
            box[0] = run
            box[1] = y


@kernel
def process_component(
    root: int,
    first_row: int,
    box: npt.NDArray[np.int32],
    runs: Runs,
    stride: int,
    guard: int,
    fill_holes: bool,
    radius: int,
    region: BitArray,
    scratch_a: BitArray,
    scratch_b: BitArray,
    result: BitArray,
) -> None:
    """Fill and open one component that does not touch the frame's edge, and add it to `result`.

    The region is the bounding box with a margin of one pixel, widened to whole words. Every disk that fits lies in
    one component, and the outside of all components together is what is outside of each, so that components can be
    processed one by one.
    """
    last_row = np.int64(box[1])
    left_word = (box[2] - 1) // 64
    words = (box[3] + 1) // 64 - left_word + 1
    height = last_row - first_row + 3
    region_stride = words + guard
    for at in range((height + 2) * region_stride):
        region[at] = ZERO
    # runs know columns, not rows: a run lies in the next row when it comes after that row's first run
    y = first_row
    run = np.int64(root)
    while run >= 0:
        while run >= runs.row_first[y + 1]:
            y += 1
        row = (y - first_row + 2) * region_stride - left_word
        draw_run(region, row, np.int64(runs.starts[run]), np.int64(runs.ends[run]))
        run = np.int64(runs.following[run])
    if fill_holes:
        if first_row == 1 and left_word == 0:
            region[2 * region_stride] &= ~UNTOUCHABLE
        if height > 4 and box[3] - box[2] > 1:
            fill_enclosed(region, scratch_a, height, words, region_stride, FULL)
    if radius > 0:
        open_disk(region, scratch_a, scratch_b, height, words, region_stride, FULL, radius)
    for y in range(1, height - 1):
        source = (y + 1) * region_stride
        target = (y + first_row) * stride + left_word
        for word in range(words):
            result[target + word] |= region[source + word]


@kernel
def label_inner_components(
    bits: BitArray,
    result: BitArray,
    region: BitArray,
    scratch_a: BitArray,
    scratch_b: BitArray,
    height: int,
    width: int,
    stride: int,
    fill_holes: bool,
    radius: int,
    runs: Runs,
    boxes: npt.NDArray[np.int32],
    frame: npt.NDArray[np.uint16],
) -> None:
    """Process every component that does not touch the frame's edge and label what remains.

    `result` must be 0 and is 0 again at the end.
    """
    words = (width + 63) // 64
    if radius > 0:
        # a single pixel survives no opening, connects nothing and encloses nothing
        remove_isolated(bits, scratch_a, scratch_b, height, stride)
    extract_runs(bits, 0, height, words, stride, runs)
    join_runs(0, height, runs)
    link_runs(height, runs, boxes)
    # a smaller box has no room for the disk, not even with its holes filled
    least = 2 * radius + 1
    top, bottom = height, 0
    for y in range(1, height - 1):
        for run in range(runs.row_first[y], runs.row_first[y + 1]):
            box = boxes[run]
            if (
                runs.parent[run] == run
                and box[1] - y + 1 >= least
                and box[3] - box[2] + 1 >= least
                and box[1] < height - 1
                and box[2] > 0
                and box[3] < width - 1
            ):
                process_component(
                    run,
                    y,
                    box,
                    runs,
                    stride,
                    stride - words,
                    fill_holes,
                    radius,
                    region,
                    scratch_a,
                    scratch_b,
                    result,
                )
                top = min(top, y)
                bottom = max(bottom, np.int64(box[1]) + 1)
    if top < bottom:
        label_rows(result, top, bottom, width, stride, runs, frame)
        for at in range((top + 1) * stride, (bottom + 1) * stride):
            result[at] = ZERO


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
    """Threshold, label and process frames; an empty `bg_off` means no offset."""
    words = (width + 63) // 64
    stride = words + max(1, (radius + 63) // 64)
    size = (height + 2) * stride
    bits = np.zeros(size, np.uint64)
    result = np.zeros(size, np.uint64)
    region = np.empty(size, np.uint64)
    scratch_a = np.empty(size, np.uint64)
    scratch_b = np.empty(size, np.uint64)
    runs = new_runs(height, width)
    boxes = np.empty((runs.starts.size, 4), np.int32)
    for index in range(images.shape[0]):
        frame = labels[index]
        frame[:] = np.uint16(0)
        limit = highest_difference(bg_off[index] if bg_off.size else 0.0, thresh)
        if limit == NO_PIXEL:
            continue
        pack_below(images[index], backgrounds[background_index[index]], limit, height, width, stride, bits)
        if clear_border and (fill_holes or radius > 0):
            label_inner_components(
                bits,
                result,
                region,
                scratch_a,
                scratch_b,
                height,
                width,
                stride,
                fill_holes,
                radius,
                runs,
                boxes,
                frame,
            )
            continue
        process_whole_frame(bits, scratch_a, scratch_b, height, width, stride, fill_holes, radius)
        extract_runs(bits, 0, height, words, stride, runs)
        join_runs(0, height, runs)
        number_runs(np.int64(runs.row_first[height]), runs)
        if clear_border:
            remove_border_numbers(height, width, runs)
        paint_runs(0, height, width, runs, frame)


@kernel
def label_mask_frames(
    masks: npt.NDArray[np.uint8], height: int, width: int, labels: npt.NDArray[np.uint16]
) -> None:
    """Label masks (0 or 1) as they are."""
    stride = (width + 63) // 64 + 1
    bits = np.zeros((height + 2) * stride, np.uint64)
    runs = new_runs(height, width)
    nothing = np.zeros(height * width, np.uint8)
    for index in range(masks.shape[0]):
        frame = labels[index]
        frame[:] = np.uint16(0)
        # 0 - 1 <= -1: a mask is a background that nothing covers
        pack_below(nothing, masks[index], -1, height, width, stride, bits)
        label_rows(bits, 0, height, width, stride, runs, frame)


@kernel
def remove_border_labels(
    frame: npt.NDArray[np.uint16], height: int, width: int, touching: npt.NDArray[np.bool_]
) -> None:
    """Set every label that occurs on the frame's edge to 0; `touching` is scratch for 65536 labels."""
    touching[:] = False
    for x in range(width):
        touching[frame[x]] = True
        touching[frame[(height - 1) * width + x]] = True
    for y in range(height):
        touching[frame[y * width]] = True
        touching[frame[(y + 1) * width - 1]] = True
    for at in range(frame.size):
        if touching[frame[at]]:
            frame[at] = np.uint16(0)


@kernel
def process_label_frames(
    labels: npt.NDArray[np.uint16],
    clear_border: bool,
    fill_holes: bool,
    radius: int,
    height: int,
    width: int,
) -> None:
    """Process labels in place; they are numbered anew only if holes are filled or a disk is given."""
    stride = (width + 63) // 64 + max(1, (radius + 63) // 64)
    size = (height + 2) * stride
    bits = np.zeros(size, np.uint64)
    scratch_a = np.empty(size, np.uint64)
    scratch_b = np.empty(size, np.uint64)
    runs = new_runs(height, width)
    touching = np.empty(65536, np.bool_)
    nothing = np.zeros(height * width, np.uint8)
    occupied = np.empty(height * width, np.uint8)
    for index in range(labels.shape[0]):
        frame = labels[index]
        if clear_border:
            remove_border_labels(frame, height, width, touching)
        if fill_holes or radius > 0:
            for at in range(frame.size):
                occupied[at] = frame[at] != 0
            pack_below(nothing, occupied, -1, height, width, stride, bits)
            process_whole_frame(bits, scratch_a, scratch_b, height, width, stride, fill_holes, radius)
            frame[:] = np.uint16(0)
            label_rows(bits, 0, height, width, stride, runs, frame)
