"""The operations on packed bits agree with OpenCV and numpy."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.morphology
from hypothesis import given, settings
from hypothesis import strategies as st

from dcnumd.segm import kernels_bits


def pack(mask, guard):
    """Return a mask as bit image, and its words, stride and tail."""
    height, width = mask.shape
    words = (width + 63) // 64
    padded = np.zeros((height + 2, (words + guard) * 64), bool)
    padded[1:-1, :width] = mask
    bits = np.packbits(padded, axis=1, bitorder="little").view(np.uint64).ravel()
    return bits, words, words + guard, np.uint64(0xFFFF_FFFF_FFFF_FFFF) >> np.uint64(64 * words - width)


def unpack(bits, shape):
    """Return the mask in a bit image whose guards are 0."""
    padded = np.unpackbits(bits.view(np.uint8).reshape(shape[0] + 2, -1), axis=1, bitorder="little")
    mask = padded[1:-1, : shape[1]].astype(bool)
    assert np.count_nonzero(padded) == np.count_nonzero(mask)
    return mask


def draw_mask(shape, seed):
    rng = np.random.default_rng(seed)
    return rng.random(shape) < rng.choice([0.02, 0.3, 0.6, 0.9, 0.99])


shapes = st.tuples(st.integers(1, 40), st.integers(1, 200))
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=100, deadline=None)
@given(shapes, seeds, st.integers(-256, 255))
def test_pack_below_any_limit(shape, seed, limit):
    """A bit is set where the frame minus the background is at most the limit."""
    rng = np.random.default_rng(seed)
    image, background = rng.integers(0, 256, (2, *shape)).astype(np.uint8)
    bits, _, stride, _ = pack(np.zeros(shape, bool), 1)
    kernels_bits.pack_below(image.ravel(), background.ravel(), limit, *shape, stride, bits)
    np.testing.assert_array_equal(unpack(bits, shape), image.astype(int) - background <= limit)


@settings(max_examples=100, deadline=None)
@given(shapes, seeds)
def test_remove_isolated_any_mask(shape, seed):
    """Pixels without neighbour go, all others stay."""
    mask = draw_mask(shape, seed)
    bits, _, stride, _ = pack(mask, 1)
    kernels_bits.remove_isolated(bits, np.empty_like(bits), np.empty_like(bits), shape[0], stride)
    neighbours = cv2.filter2D(mask.astype(np.uint8), -1, np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT)
    np.testing.assert_array_equal(unpack(bits, shape), mask & (neighbours > 1))


@settings(max_examples=150, deadline=None)
@given(shapes, seeds)
def test_fill_enclosed_any_mask(shape, seed):
    """What OpenCV's flood from the first pixel does not reach is filled."""
    mask = draw_mask(shape, seed)
    mask[0] = False
    bits, words, stride, tail = pack(mask, 1)
    kernels_bits.fill_enclosed(bits, np.empty_like(bits), shape[0], words, stride, tail)
    flooded = mask.astype(np.uint8)
    cv2.floodFill(flooded, None, (0, 0), 2)
    np.testing.assert_array_equal(unpack(bits, shape), flooded != 2)


def test_fill_enclosed_spiral():
    """The flood follows a corridor that winds inwards."""
    mask = np.zeros((61, 150), bool)
    for turn in range(0, 28, 2):
        mask[1 + turn : 60 - turn, 1 + turn : 149 - turn] ^= True
        mask[2 + turn : 59 - turn, 2 + turn : 148 - turn] ^= True
        mask[30, 1 + turn if turn % 4 else 148 - turn] = False
    bits, words, stride, tail = pack(mask, 1)
    kernels_bits.fill_enclosed(bits, np.empty_like(bits), 61, words, stride, tail)
    np.testing.assert_array_equal(unpack(bits, mask.shape), mask)


@settings(max_examples=150, deadline=None)
@given(shapes, seeds, st.sampled_from([1, 2, 3, 4, 5, 8, 13, 40, 64, 65, 130]))
def test_open_disk_any_radius(shape, seed, radius):
    """Erosion and dilation are OpenCV's with scikit-image's disk, also at the edge of the frame."""
    mask = draw_mask(shape, seed)
    bits, words, stride, tail = pack(mask, (radius + 63) // 64)
    scratch = np.full((2, bits.size), 0xDEAD_BEEF_DEAD_BEEF, np.uint64)
    kernels_bits.open_disk(bits, scratch[0], scratch[1], shape[0], words, stride, tail, radius)
    disk = skimage.morphology.disk(radius)
    expected = cv2.dilate(cv2.erode(mask.astype(np.uint8), disk), disk)
    np.testing.assert_array_equal(unpack(bits, shape), expected.astype(bool))


@pytest.mark.parametrize("width", [63, 64, 65])
def test_open_disk_full_frame(width):
    """A full frame stays full: the outside does not erode."""
    mask = np.ones((9, width), bool)
    bits, words, stride, tail = pack(mask, 1)
    kernels_bits.open_disk(bits, np.empty_like(bits), np.empty_like(bits), 9, words, stride, tail, 7)
    assert unpack(bits, mask.shape).all()
