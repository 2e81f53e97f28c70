"""Labelling of bit images by runs: 8-connected, numbered in raster order.

A run is a stretch of set pixels in one row. Runs are counted in raster order, and `row_first` has the first run of each
row and, behind the last row, the number of runs. A run's parent is never later than the run itself, so that the root of
a component is the run with its first pixel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.kernels.decorator import kernel
from dcnumd.segm.kernels_bits import FULL, LAST, ONE, ZERO, BitArray, trailing_zeros

RunArray = npt.NDArray[np.int32]
"""One number for each run (int32)."""

wide: Any = np.int64
"""Widens what an array holds, so that kernels are called with int64 only; Any, as numpy's scalars are no `int`."""


@kernel
def find_components(
    bits: BitArray,
    top: int,
    bottom: int,
    words: int,
    stride: int,
    starts: RunArray,
    ends: RunArray,
    row_first: RunArray,
    parent: RunArray,
    following: RunArray,
    boxes: npt.NDArray[np.int32],
) -> None:
    """Find the runs in the rows from `top` up to, not including, `bottom` and join those that are 8-connected.

    `starts` and `ends` become the first and the last column of each run, `parent` the root of its component,
    `following` the component's next run or -1. ``boxes[root]`` becomes the component's first and last row, first and
    last column, and last run.
    """
    opened = 0
    closed = 0
    for y in range(top, bottom):
        row_first[y] = opened
        row = (y + 1) * stride
        for word in range(words):
            here = bits[row + word]
            if here == ZERO:
                continue
            edges = here & ~((here << ONE) | (bits[row + word - 1] >> LAST))
            while edges != ZERO:
                starts[opened] = 64 * word + trailing_zeros(edges)
                opened += 1
                edges &= edges - ONE
            edges = here & ~((here >> ONE) | (bits[row + word + 1] << LAST))
            while edges != ZERO:
                ends[closed] = 64 * word + trailing_zeros(edges)
                closed += 1
                edges &= edges - ONE
    row_first[bottom] = opened
    candidate = 0
    stop = 0
    for y in range(top, bottom):
        first = wide(row_first[y])
        for run in range(first, row_first[y + 1]):
            root = run
            parent[run] = run
            while candidate < stop and ends[candidate] < starts[run] - 1:
                candidate += 1
            above = candidate
            while above < stop and starts[above] <= ends[run] + 1:
                other = wide(parent[above])
                while parent[other] != other:
                    # the way to the root is halved for the next search
                    parent[other] = parent[parent[other]]
                    other = wide(parent[other])
                if other < root:
                    parent[root] = other
                    root = other
                else:
                    parent[other] = root
                above += 1
        candidate = first
        stop = wide(row_first[y + 1])
    for y in range(top, bottom):
        for run in range(row_first[y], row_first[y + 1]):
            root = wide(parent[parent[run]])
            parent[run] = root
            following[run] = -1
            box = boxes[root]
            if root == run:
                box[0] = y
                box[2] = starts[run]
                box[3] = ends[run]
            else:
                following[box[4]] = run
                box[2] = min(box[2], starts[run])
                box[3] = max(box[3], ends[run])
            box[1] = y
            box[4] = run


@kernel
def draw_component(
    root: int,
    first_row: int,
    last_row: int,
    left_word: int,
    stride: int,
    starts: RunArray,
    ends: RunArray,
    row_first: RunArray,
    following: RunArray,
    region: BitArray,
) -> None:
    """Draw a component as a bit image, of which row 1 is the frame's row `first_row`; a row at either end is empty."""
    for at in range((last_row - first_row + 5) * stride):
        region[at] = ZERO
    y = first_row
    run = root
    while run >= 0:
        while run >= row_first[y + 1]:
            y += 1
        row = (y - first_row + 2) * stride - left_word
        start, end = wide(starts[run]), wide(ends[run])
        for word in range(start // 64, end // 64 + 1):
            value = FULL
            if word == start // 64:
                value &= FULL << np.uint64(start % 64)
            if word == end // 64:
                value &= FULL >> np.uint64(63 - end % 64)
            region[row + word] |= value
        run = wide(following[run])


@kernel
def paint_components(
    top: int,
    bottom: int,
    height: int,
    width: int,
    clear_border: bool,
    starts: RunArray,
    ends: RunArray,
    row_first: RunArray,
    parent: RunArray,
    boxes: npt.NDArray[np.int32],
    number: RunArray,
    frame: npt.NDArray[np.uint16],
) -> None:
    """Write the numbers of the components, counted from 1, into a flat frame that is 0.

    `clear_border` leaves out the components that touch the frame's edge, but not their numbers. Above 65535 the
    numbers start again at 0, as dcnum's do.
    """
    last = 0
    for y in range(top, bottom):
        for run in range(row_first[y], row_first[y + 1]):
            root = parent[run]
            if root == run:
                last += 1
                number[run] = last
                box = boxes[run]
                if clear_border and (box[0] == 0 or box[1] == height - 1 or box[2] == 0 or box[3] == width - 1):
                    number[run] = 0
            value = np.uint16(number[root])
            for at in range(y * width + starts[run], y * width + ends[run] + 1):
                frame[at] = value
