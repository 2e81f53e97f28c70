"""The operations on packed bits agree with OpenCV and numpy."""

from __future__ import annotations

import cv2
import numba
import numpy as np
import pytest
import skimage.morphology
from hypothesis import given, settings
from hypothesis import strategies as st

from dcnumd.segm import kernels_bits
from tests.support.frames import every_special_picture, pack_bits, pictures, unpack_bits

RADII = (1, 2, 3, 4, 5, 8, 13, 40, 64, 65, 130)
LIMITS = (-256, -255, -128, -7, -6, -1, 0, 1, 127, 254, 255)


@settings(max_examples=60, deadline=None)
@every_special_picture(limit=LIMITS)
@given(pictures(), st.integers(-256, 255))
def test_pack_below_any_limit(picture, limit):
    """A bit is set where the frame minus the background is at most the limit."""
    bits, _, stride, _ = pack_bits(np.zeros_like(picture.mask))
    kernels_bits.pack_below(picture.image.ravel(), picture.background.ravel(), limit, *picture.mask.shape, stride, bits)
    np.testing.assert_array_equal(unpack_bits(bits, picture.mask.shape), picture.corrected <= limit)


@settings(max_examples=60, deadline=None)
@every_special_picture()
@given(pictures())
def test_remove_isolated_any_mask(picture):
    """Pixels without neighbour go, all others stay."""
    bits, _, stride, _ = pack_bits(picture.mask)
    kernels_bits.remove_isolated(bits, np.empty_like(bits), np.empty_like(bits), picture.height, stride)
    neighbours = cv2.filter2D(picture.mask.astype(np.uint8), -1, np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT)
    np.testing.assert_array_equal(unpack_bits(bits, picture.mask.shape), picture.mask & (neighbours > 1))


@settings(max_examples=100, deadline=None)
@every_special_picture()
@given(pictures())
def test_fill_enclosed_any_mask(picture):
    """What neither OpenCV's nor scikit-image's flood from the first pixel reaches is filled."""
    mask = picture.mask.copy()
    mask[0] = False
    bits, words, stride, tail = pack_bits(mask)
    kernels_bits.fill_enclosed(bits, np.empty_like(bits), picture.height, words, stride, tail)
    flooded = mask.astype(np.uint8)
    cv2.floodFill(flooded, None, (0, 0), 2)
    np.testing.assert_array_equal(unpack_bits(bits, mask.shape), flooded != 2)
    np.testing.assert_array_equal(flooded == 2, skimage.morphology.flood(mask, (0, 0), connectivity=1))


def test_fill_enclosed_spiral():
    """The flood follows a corridor that winds inwards."""
    mask = np.zeros((61, 150), bool)
    for turn in range(0, 28, 2):
        mask[1 + turn : 60 - turn, 1 + turn : 149 - turn] ^= True
        mask[2 + turn : 59 - turn, 2 + turn : 148 - turn] ^= True
        mask[30, 1 + turn if turn % 4 else 148 - turn] = False
    bits, words, stride, tail = pack_bits(mask)
    kernels_bits.fill_enclosed(bits, np.empty_like(bits), 61, words, stride, tail)
    np.testing.assert_array_equal(unpack_bits(bits, mask.shape), mask)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@every_special_picture(radius=RADII)
@given(pictures(), st.sampled_from(RADII))
def test_open_disk_any_radius(picture, radius):
    """Erosion and dilation are OpenCV's with scikit-image's disk, also at the edge of the frame."""
    shape = picture.mask.shape
    bits, words, stride, tail = pack_bits(picture.mask, (radius + 63) // 64)
    scratch = np.full((2, bits.size), 0xDEAD_BEEF_DEAD_BEEF, np.uint64)
    kernels_bits.open_disk(bits, scratch[0], scratch[1], shape[0], words, stride, tail, radius)
    disk = skimage.morphology.disk(radius)
    expected = cv2.dilate(cv2.erode(picture.mask.astype(np.uint8), disk), disk)
    np.testing.assert_array_equal(unpack_bits(bits, shape), expected.astype(bool))


@pytest.mark.parametrize("width", [63, 64, 65])
def test_open_disk_full_frame(width):
    """A full frame stays full: the outside does not erode."""
    mask = np.ones((9, width), bool)
    bits, words, stride, tail = pack_bits(mask)
    kernels_bits.open_disk(bits, np.empty_like(bits), np.empty_like(bits), 9, words, stride, tail, 7)
    assert unpack_bits(bits, mask.shape).all()


@numba.njit
def lowest_bit(word):
    """Call the intrinsic, which only compiled code can."""
    return kernels_bits.trailing_zeros(word)


@pytest.mark.parametrize("position", range(64))
def test_trailing_zeros_of_every_bit(position):
    """The lowest bit is found, alone and with all higher ones set."""
    full = 2**64 - 1
    for word in (1 << position, full << position & full):
        assert lowest_bit(np.uint64(word)) == position
