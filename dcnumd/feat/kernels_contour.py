"""Kernels: the labels of a frame, the mask of one label, and its outer contour."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dcnumd.kernels.decorator import kernel

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
LABELS = 65536
"""Number of labels that there can be in a frame, 0 included."""
NO_RUN = -1
"""Follows the last run of a label."""
SPARSE = 16
"""Number of pixels of the bounding box for each one of the mask above which the mask is sparse."""


@kernel
def find_labels(
    labels: npt.NDArray[np.uint16],
    label_box: npt.NDArray[np.int32],
    label_seen: npt.NDArray[np.uint16],
    runs: npt.NDArray[np.int32],
) -> int:
    """Measure every label of a frame (Y, X) in `label_box` and `runs`; return how many, ascending in `label_seen`."""
    height, width = labels.shape
    found = 0
    run = 0
    ascending = True
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
                    ascending = ascending and (found == 0 or label_seen[found - 1] < label)
                    label_seen[found] = label
                    found += 1
                    box[1] = y
                    box[3] = start
                    box[4] = x
                    box[5] = run
                else:
                    runs[box[6], 3] = run
                box[0] += x - start
                box[2] = y + 1
                box[3] = min(box[3], start)
                box[4] = max(box[4], x)
                box[6] = run
                runs[run, 0] = y
                runs[run, 1] = start
                runs[run, 2] = x
                runs[run, 3] = NO_RUN
                run += 1
    if not ascending:
        found = 0
        for number in range(1, LABELS):
            if label_box[number, 0] > 0:
                label_seen[found] = number
                found += 1
    return found


@kernel
def clear_around(
    size: int, position: npt.NDArray[np.int32], pixels: int, stride: int, window: npt.NDArray[np.uint8]
) -> None:
    """Set the pixels of a mask and all around them to 0 in a window of `size` pixels, and perhaps others."""
    if size <= SPARSE * pixels:
        for i in range(size):
            window[i] = 0
        return
    for i in range(pixels):
        for row in range(-1, 2):
            middle = position[i] + row * stride
            for place in range(middle - 1, middle + 2):
                window[place] = 0


@kernel
def cut_out(
    runs: npt.NDArray[np.int32],
    first_run: int,
    image: npt.NDArray[np.uint8],
    background: npt.NDArray[np.uint8],
    box: tuple[int, int, int, int],
    window: npt.NDArray[np.uint8],
    position: npt.NDArray[np.int32],
    brightness: npt.NDArray[np.uint8],
    corrected: npt.NDArray[np.int16],
) -> None:
    """Draw the mask of a label, given by its runs, to `window`, and take its pixels from image and background.

    They go to `position`, `brightness` and `corrected`. What is not next to the mask stays in `window` as it was.
    """
    y0, y1, x0, x1 = box
    stride = x1 - x0 + 2
    pixels = 0
    run = first_run
    while run != NO_RUN:
        y, start, end = int(runs[run, 0]), int(runs[run, 1]), int(runs[run, 2])
        image_row = image[y]
        background_row = background[y]
        base = (y - y0 + 1) * stride + 1 - x0
        for x in range(start, end):
            position[pixels + x - start] = base + x
            brightness[pixels + x - start] = image_row[x]
            corrected[pixels + x - start] = np.int64(image_row[x]) - np.int64(background_row[x])
        pixels += end - start
        run = int(runs[run, 3])
    clear_around(stride * (y1 - y0 + 2), position, pixels, stride, window)
    for i in range(pixels):
        window[position[i]] = INSIDE


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
    runs: npt.NDArray[np.int32],
    first_run: int,
    box: tuple[int, int, int, int],
    window: npt.NDArray[np.uint8],
    contour_x: npt.NDArray[np.int32],
    contour_y: npt.NDArray[np.int32],
) -> int:
    """Follow the contour of the mask in `window`; return its length, its points [px] in the frame's coordinates.

    Of a mask in several pieces the contour is that of the piece whose first pixel comes last in raster order,
    pieces inside a hole of another piece left out. That is OpenCV's first external contour.
    """
    y0, _, x0, x1 = box
    stride = x1 - x0 + 2
    length = 0
    row = y0
    last_border = BACKGROUND
    run = first_run
    while run != NO_RUN:
        y = int(runs[run, 0])
        if y > row:
            row = y
            last_border = BACKGROUND
        base = (y - y0 + 1) * stride + 1 - x0
        start, place = base + int(runs[run, 1]), base + int(runs[run, 2]) - 1
        if window[start] == INSIDE and last_border != BORDER:
            length = follow_contour(start, stride, window, contour_x, contour_y)
        while place >= start:
            if window[place] > INSIDE:
                last_border = int(window[place])
                break
            place -= 1
        run = int(runs[run, 3])
    for i in range(length):
        contour_x[i] += x0
        contour_y[i] += y0
    return length
