"""Kernels: the labels of a frame, the mask of one label, and its outer contour."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dcnumd.kernel import kernel

# Marks in a window. A border pixel with background on its right ends what lies inside the contour.
BACKGROUND = 0
INSIDE = 1
BORDER = 2
BORDER_RIGHT = 3

# Freeman chain code, counter-clockwise from east; y points down.
STEP_X = np.array([1, 1, 0, -1, -1, -1, 0, 1])
STEP_Y = np.array([0, -1, -1, -1, 0, 1, 1, 1])
EAST = 0
WEST = 4

BLOCK = 32


@kernel
def find_labels(
    labels: npt.NDArray[np.uint16], label_box: npt.NDArray[np.int32], label_seen: npt.NDArray[np.uint16]
) -> int:
    """Measure every label of a frame (Y, X) in `label_box`; return how many, ascending in `label_seen`."""
    height, width = labels.shape
    found = 0
    for y in range(height):
        row = labels[y]
        # Most rows are empty, and this loop becomes a few vector instructions.
        union = np.uint16(0)
        for x in range(width):
            union = np.uint16(union | row[x])
        if union == 0:
            continue
        x = 0
        while x < width:
            block_end = min(x + BLOCK, width)
            union = np.uint16(0)
            for i in range(x, block_end):
                union = np.uint16(union | row[i])
            if union == 0:
                x = block_end
                continue
            while x < block_end:
                label = row[x]
                if label == 0:
                    x += 1
                    continue
                start = x
                while x < width and row[x] == label:
                    x += 1
                box = label_box[label]
                if box[0] == 0:
                    label_seen[found] = label
                    found += 1
                    box[1] = y
                    box[3] = start
                    box[4] = x
                box[0] += x - start
                box[2] = y + 1
                box[3] = min(box[3], start)
                box[4] = max(box[4], x)
    # Insertion sort: labels mostly come in order already.
    for i in range(1, found):
        label = label_seen[i]
        j = i
        while j > 0 and label_seen[j - 1] > label:
            label_seen[j] = label_seen[j - 1]
            j -= 1
        label_seen[j] = label
    return found


@kernel
def cut_out(
    labels: npt.NDArray[np.uint16],
    label: int,
    image: npt.NDArray[np.uint8],
    background: npt.NDArray[np.uint8],
    box: tuple[int, int, int, int],
    window: npt.NDArray[np.uint8],
    position: npt.NDArray[np.int32],
    brightness: npt.NDArray[np.uint8],
    corrected: npt.NDArray[np.int16],
) -> None:
    """Copy the mask of `label` to `window`, and its pixels to `position`, `brightness` and `corrected`."""
    y0, y1, x0, x1 = box
    stride = x1 - x0 + 2
    for i in range(stride * (y1 - y0 + 2)):
        window[i] = BACKGROUND
    pixels = 0
    for y in range(y0, y1):
        label_row = labels[y]
        image_row = image[y]
        background_row = background[y]
        base = (y - y0 + 1) * stride + 1 - x0
        for x in range(x0, x1):
            inside = int(label_row[x] == label)
            window[base + x] = inside
            # Written always, kept only inside the mask: cheaper than a branch.
            position[pixels] = base + x
            brightness[pixels] = image_row[x]
            corrected[pixels] = np.int64(image_row[x]) - np.int64(background_row[x])
            pixels += inside


@kernel
def follow_contour(
    start: int,
    stride: int,
    window: npt.NDArray[np.uint8],
    contour_x: npt.NDArray[np.int32],
    contour_y: npt.NDArray[np.int32],
) -> int:
    """Follow the outer border from its first pixel in raster order (`start` in `window`); return its length.

    Suzuki and Abe, "Topological structural analysis of digitized binary images by border following",
    CVGIP 30 (1985) 32-46, step 3. Points are in the window's coordinates, its margin subtracted.
    """
    x = start % stride - 1
    y = start // stride - 1
    direction = WEST
    last = start
    while True:
        direction = (direction - 1) & 7
        last = start + STEP_Y[direction] * stride + STEP_X[direction]
        if direction == WEST or window[last] != BACKGROUND:
            break
    if direction == WEST:
        window[start] = BORDER_RIGHT
        contour_x[0] = x
        contour_y[0] = y
        return 1
    current = start
    length = 0
    while True:
        east_is_background = False
        while True:
            direction = (direction + 1) & 7
            neighbour = current + STEP_Y[direction] * stride + STEP_X[direction]
            if window[neighbour] != BACKGROUND:
                break
            if direction == EAST:
                east_is_background = True
        if east_is_background:
            window[current] = BORDER_RIGHT
        elif window[current] == INSIDE:
            window[current] = BORDER
        contour_x[length] = x
        contour_y[length] = y
        length += 1
        if neighbour == start and current == last:
            return length
        current = neighbour
        x += STEP_X[direction]
        y += STEP_Y[direction]
        direction = (direction + 4) & 7


@kernel
def find_contour(
    box: tuple[int, int, int, int],
    window: npt.NDArray[np.uint8],
    contour_x: npt.NDArray[np.int32],
    contour_y: npt.NDArray[np.int32],
) -> int:
    """Follow the contour of the mask in `window`; return its length, its points [px] in the frame's coordinates.

    Of a mask in several pieces the contour is that of the piece whose first pixel comes last in raster order,
    pieces inside a hole of another piece left out. That is OpenCV's first external contour.
    """
    y0, y1, x0, x1 = box
    stride = x1 - x0 + 2
    length = 0
    for row in range(1, y1 - y0 + 1):
        before = BACKGROUND
        last_border = BACKGROUND
        for i in range(row * stride + 1, (row + 1) * stride):
            mark = int(window[i])
            if mark == INSIDE and before == BACKGROUND and last_border != BORDER:
                length = follow_contour(i, stride, window, contour_x, contour_y)
                mark = int(window[i])
            if mark > INSIDE:
                last_border = mark
            before = mark
    for i in range(length):
        contour_x[i] += x0
        contour_y[i] += y0
    return length
