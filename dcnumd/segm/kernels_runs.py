"""Labelling of bit images by runs: 8-connected, numbered in raster order.

A run is a stretch of set pixels in one row. Runs are numbered in raster order; a run's parent is never later than the
run itself, so that the root of a component is the run with its first pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dcnumd.kernel import kernel
from dcnumd.segm.kernels_bits import FULL, LAST, ONE, ZERO, BitArray, trailing_zeros

RunArray = npt.NDArray[np.int32]
"""One number for each run, int32."""


class Runs(NamedTuple):
    """Scratch for the runs of one frame; only what belongs to runs that were found has a meaning."""

    starts: RunArray
    """First column."""
    ends: RunArray
    """Last column, included."""
    parent: RunArray
    """Root of the component."""
    number: RunArray
    """Label; 0 for background."""
    following: RunArray
    """Next run of the same component, or -1."""
    row_first: RunArray
    """First run of each row, and behind the last row the number of runs."""


@kernel
def new_runs(height: int, width: int) -> Runs:
    """Allocate for as many runs as a frame can have."""
    size = height * ((width + 1) // 2)
    return Runs(
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(height + 1, np.int32),
    )


@kernel
def extract_runs(bits: BitArray, first_row: int, last_row: int, words: int, stride: int, runs: Runs) -> None:
    """Find the runs in the rows from `first_row` up to, not including, `last_row`."""
    starts, ends, row_first = runs.starts, runs.ends, runs.row_first
    opened = 0
    closed = 0
    for y in range(first_row, last_row):
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
    row_first[last_row] = opened


@kernel
def find_root(parent: RunArray, run: int) -> int:
    """Return the root of a run's component; the way there is halved for the next search."""
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = np.int64(parent[run])
    return run


@kernel
def join_runs(first_row: int, last_row: int, runs: Runs) -> None:
    """Set `parent` of every run to the root of its 8-connected component."""
    starts, ends, parent, row_first = runs.starts, runs.ends, runs.parent, runs.row_first
    for run in range(row_first[first_row], row_first[first_row + 1]):
        parent[run] = run
    for y in range(first_row + 1, last_row):
        candidate = np.int64(row_first[y - 1])
        stop = np.int64(row_first[y])
        for run in range(row_first[y], row_first[y + 1]):
            root = run
            while candidate < stop and ends[candidate] < starts[run] - 1:
                candidate += 1
            above = candidate
            while above < stop and starts[above] <= ends[run] + 1:
                other = find_root(parent, above)
                if other < root:
                    parent[root] = other
                    parent[run] = other
                    root = other
                else:
                    parent[other] = root
                above += 1
            if root == run:
                parent[run] = run
    for run in range(row_first[last_row]):
        parent[run] = parent[parent[run]]


@kernel
def number_runs(count: int, runs: Runs) -> None:
    """Number the components of the first `count` runs from 1, in raster order."""
    parent, number = runs.parent, runs.number
    last = 0
    for run in range(count):
        if parent[run] == run:
            last += 1
            number[run] = last
        else:
            number[run] = number[parent[run]]


@kernel
def remove_border_numbers(height: int, width: int, runs: Runs) -> None:
    """Set the number of all runs in components that touch the frame's edge to 0."""
    parent, number, row_first = runs.parent, runs.number, runs.row_first
    for y in range(height):
        on_edge = y == 0 or y == height - 1
        for run in range(row_first[y], row_first[y + 1]):
            if on_edge or runs.starts[run] == 0 or runs.ends[run] == width - 1:
                number[parent[run]] = 0
    for run in range(row_first[height]):
        number[run] = number[parent[run]]


@kernel
def paint_runs(
    first_row: int, last_row: int, width: int, runs: Runs, frame: npt.NDArray[np.uint16]
) -> None:
    """Write the numbers into a flat frame that is 0; above 65535 they start again at 0, as dcnum's do."""
    for y in range(first_row, last_row):
        for run in range(runs.row_first[y], runs.row_first[y + 1]):
            value = np.uint16(runs.number[run])
            for at in range(y * width + runs.starts[run], y * width + runs.ends[run] + 1):
                frame[at] = value


@kernel
def label_rows(
    bits: BitArray,
    first_row: int,
    last_row: int,
    width: int,
    stride: int,
    runs: Runs,
    frame: npt.NDArray[np.uint16],
) -> None:
    """Label a bit image that is empty outside the given rows into a flat frame that is 0."""
    extract_runs(bits, first_row, last_row, (width + 63) // 64, stride, runs)
    join_runs(first_row, last_row, runs)
    number_runs(np.int64(runs.row_first[last_row]), runs)
    paint_runs(first_row, last_row, width, runs, frame)


@kernel
def draw_run(bits: BitArray, row: int, start: int, end: int) -> None:
    """Set the bits from `start` to `end`, included, in the row that begins at word `row`."""
    first, last = start // 64, end // 64
    for word in range(first, last + 1):
        value = FULL
        if word == first:
            value &= FULL << np.uint64(start % 64)
        if word == last:
            value &= FULL >> np.uint64(63 - end % 64)
        bits[row + word] |= value
