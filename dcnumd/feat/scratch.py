"""Buffers that the feature kernels share, allocated once and used for all events."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Below this count, c·log2(c) is tabulated. Larger counts are rare and computed.
ENTROPY_TABLE_SIZE = 4096


class Scratch(NamedTuple):
    """Reusable buffers of the feature kernels, for frames of up to (Y, X) pixels.

    Between two events, `pair_count`, `difference_count`, `sum_count`, `image_count`, `corrected_count` and the first
    column of `label_box` are zero; the content of the others is undefined.
    """

    label_box: npt.NDArray[np.int32]
    """(65536, 7): pixel count, y0, y1, x0, x1 (half open), first and last run of every label of a frame."""
    label_seen: npt.NDArray[np.uint16]
    """(65536,): the labels of a frame."""
    runs: npt.NDArray[np.int32]
    """(Y·X, 4): stretches of one label in a row of a frame: y, x0, x1 (half open), and the label's next run or -1."""
    window: npt.NDArray[np.uint8]
    """((Y+2)·(X+2),): one mask's bounding box with a margin of one pixel, as contour following marks it."""
    grey: npt.NDArray[np.uint8]
    """((Y+2)·(X+2),): grey values of the texture, laid out like `window`; 0 counts as outside."""
    position: npt.NDArray[np.int32]
    """(Y·X+1,): where in `window` the pixels of the mask are."""
    brightness: npt.NDArray[np.uint8]
    """(Y·X+1,): image at each pixel of the mask."""
    corrected: npt.NDArray[np.int16]
    """(Y·X+1,): image minus background at each pixel of the mask."""
    corrected_count: npt.NDArray[np.int32]
    """(511,): histogram of `corrected`, beginning at -255."""
    image_count: npt.NDArray[np.int32]
    """(4, 256): histograms of every fourth pixel of a background."""
    contour_x: npt.NDArray[np.int32]
    """(4·Y·X,): x of the contour's points [px]; a contour can visit a pixel four times."""
    contour_y: npt.NDArray[np.int32]
    """(4·Y·X,): y of the contour's points [px]."""
    row_left: npt.NDArray[np.int32]
    """(Y,): smallest x of the contour in each row of the frame [px]."""
    row_right: npt.NDArray[np.int32]
    """(Y,): largest x of the contour in each row of the frame [px]."""
    hull_x: npt.NDArray[np.int32]
    """(2·Y,): x of the corners of the contour's convex hull [px]."""
    hull_y: npt.NDArray[np.int32]
    """(2·Y,): y of the corners of the contour's convex hull [px]."""
    grey_count: npt.NDArray[np.int32]
    """(256,): histogram of `grey` inside the mask."""
    pair_count: npt.NDArray[np.int32]
    """(32896,): how often each unordered pair of grey values are neighbours; the pair a <= b is at b·(b+1)/2 + a."""
    pair_seen: npt.NDArray[np.int32]
    """(Y·X+1,): the cells of `pair_count` in use."""
    marginal: npt.NDArray[np.int32]
    """(256,): how often each grey value takes part in a pair."""
    difference_count: npt.NDArray[np.int32]
    """(256,): histogram of the grey differences of neighbours."""
    sum_count: npt.NDArray[np.int32]
    """(511,): histogram of the grey sums of neighbours."""
    texture: npt.NDArray[np.float64]
    """(4, 11): texture features of each direction."""
    entropy_table: npt.NDArray[np.float64]
    """(ENTROPY_TABLE_SIZE,): c·log2(c)."""


def new_scratch(height: int, width: int) -> Scratch:
    """Allocate buffers for frames of up to (height, width) pixels."""
    pixels = height * width
    padded = (height + 2) * (width + 2)
    entropy_table = np.zeros(ENTROPY_TABLE_SIZE)
    counts = np.arange(1, ENTROPY_TABLE_SIZE)
    entropy_table[1:] = counts * np.log2(counts)
    return Scratch(
        label_box=np.zeros((65536, 7), np.int32),
        label_seen=np.empty(65536, np.uint16),
        runs=np.empty((pixels, 4), np.int32),
        window=np.empty(padded, np.uint8),
        grey=np.empty(padded, np.uint8),
        position=np.empty(pixels + 1, np.int32),
        brightness=np.empty(pixels + 1, np.uint8),
        corrected=np.empty(pixels + 1, np.int16),
        corrected_count=np.zeros(511, np.int32),
        image_count=np.zeros((4, 256), np.int32),
        contour_x=np.empty(4 * pixels, np.int32),
        contour_y=np.empty(4 * pixels, np.int32),
        row_left=np.empty(height, np.int32),
        row_right=np.empty(height, np.int32),
        hull_x=np.empty(2 * height, np.int32),
        hull_y=np.empty(2 * height, np.int32),
        grey_count=np.empty(256, np.int32),
        pair_count=np.zeros(256 * 257 // 2, np.int32),
        pair_seen=np.empty(pixels + 1, np.int32),
        marginal=np.empty(256, np.int32),
        difference_count=np.zeros(256, np.int32),
        sum_count=np.zeros(511, np.int32),
        texture=np.empty((4, 11)),
        entropy_table=entropy_table,
    )
