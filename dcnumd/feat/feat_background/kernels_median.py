"""Medians of grey values over frames, pixel by pixel.

A stack of frames is a 2D uint8 array here: one row for each frame, one column for each pixel. A kernel works on
the columns `first` to `last`, so that threads share a stack without copies.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dcnumd.kernels.decorator import kernel

Stack = npt.NDArray[np.uint8]

MEDIAN_BLOCK = 2048
"""Columns for which the median is searched at once: counters in the first-level cache, frames in the second."""
COUNTER_GROUP = 252
"""Frames after which uint8 counters are emptied: below 256, and a multiple of the four that are read together."""
ROLLING_BLOCK = 64
"""Columns that the rolling median follows at once: one cache line of a frame, 32 KiB of histograms."""


@kernel
def median_of_stack(stack: Stack, first: int, last: int, out: npt.NDArray[np.uint8]) -> None:
    """Write the upper median (rank frames // 2) of each column into `out`.

    The median is found bit by bit from the top: a bit belongs to it if at most rank values are smaller than
    what it would make of the median. Unlike sorting, this is the same work for all pixels and vectorises; four
    frames at a time halve the traffic of the counters.
    """
    frames = stack.shape[0]
    rank = frames // 2
    smaller = np.empty(MEDIAN_BLOCK, np.uint8)
    total = np.empty(MEDIAN_BLOCK, np.int32)
    median = np.empty(MEDIAN_BLOCK, np.uint8)
    candidate = np.empty(MEDIAN_BLOCK, np.uint8)
    for begin in range(first, last, MEDIAN_BLOCK):
        end = min(begin + MEDIAN_BLOCK, last)
        width = end - begin
        median[:] = 0
        for bit in range(7, -1, -1):
            for p in range(width):
                candidate[p] = median[p] | np.uint8(1 << bit)
                total[p] = 0
            for group in range(0, frames, COUNTER_GROUP):
                group_end = min(group + COUNTER_GROUP, frames)
                quads_end = group + (group_end - group) // 4 * 4
                smaller[:] = 0
                for f in range(group, quads_end, 4):
                    row0 = stack[f, begin:end]
                    row1 = stack[f + 1, begin:end]
                    row2 = stack[f + 2, begin:end]
                    row3 = stack[f + 3, begin:end]
                    for p in range(width):
                        limit = candidate[p]
                        smaller[p] += (
                            np.uint8(row0[p] < limit)
                            + np.uint8(row1[p] < limit)
                            + np.uint8(row2[p] < limit)
                            + np.uint8(row3[p] < limit)
                        )
                for f in range(quads_end, group_end):
                    row0 = stack[f, begin:end]
                    for p in range(width):
                        smaller[p] += np.uint8(row0[p] < candidate[p])
                for p in range(width):
                    total[p] += np.int32(smaller[p])
            for p in range(width):
                if total[p] <= rank:
                    median[p] = candidate[p]
        # a slice assigned to a slice would have numba compile formatted error messages, for three seconds
        for p in range(width):
            out[begin + p] = median[p]


@kernel
def rolling_median_of_stack(stack: Stack, kernel_size: int, first: int, last: int, out: Stack) -> None:
    """Write the upper median of frames i to i + kernel_size - 1 into row i of `out`.

    Each column has a histogram of its window, its median, and the number of values below the median. Moving on
    by a frame changes two bins; the median then walks to where its rank is, mostly not at all or by one bin
    (T. Huang et al., IEEE Trans. Acoust. 27 (1979) 13-18, along time instead of a row). Counters are uint16.
    """
    rank = np.int32(kernel_size // 2)
    histogram = np.empty((ROLLING_BLOCK, 256), np.uint16)
    below = np.empty(ROLLING_BLOCK, np.int32)
    median = np.empty(ROLLING_BLOCK, np.int32)
    for begin in range(first, last, ROLLING_BLOCK):
        end = min(begin + ROLLING_BLOCK, last)
        width = end - begin
        histogram[:] = 0
        for f in range(kernel_size):
            entering = stack[f, begin:end]
            for p in range(width):
                histogram[p, entering[p]] += np.uint16(1)
        median[:] = 0
        below[:] = 0
        for i in range(out.shape[0]):
            leaving = stack[max(i - 1, 0), begin:end]
            entering = stack[i + kernel_size - 1, begin:end]
            row = out[i, begin:end]
            for p in range(width):
                m = median[p]
                smaller = below[p]
                if i > 0:
                    histogram[p, leaving[p]] -= np.uint16(1)
                    histogram[p, entering[p]] += np.uint16(1)
                    smaller += np.int32(np.int32(entering[p]) < m) - np.int32(np.int32(leaving[p]) < m)
                while smaller > rank:
                    m -= np.int32(1)
                    smaller -= np.int32(histogram[p, m])
                equal = np.int32(histogram[p, m])
                while smaller + equal <= rank:
                    smaller += equal
                    m += np.int32(1)
                    equal = np.int32(histogram[p, m])
                median[p] = m
                below[p] = smaller
                row[p] = m


@kernel
def sum_of_leading_columns(stack: Stack, columns: int, out: npt.NDArray[np.int64]) -> None:
    """Write the sum of the first columns of each row into `out`."""
    for f in range(stack.shape[0]):
        row = stack[f, :columns]
        total = np.int64(0)
        for p in range(columns):
            total += row[p]
        out[f] = total
