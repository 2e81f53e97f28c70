"""Whole chains from thresholds to labels against scipy, scikit-image and OpenCV, step by step."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.morphology
import skimage.segmentation
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from dcnumd.segm import kernels_labeling
from tests.support.frames import GREYS, Picture, every_special_picture, pictures

EIGHT_CONNECTED = np.ones((3, 3))
RADII = (0, 1, 2, 3, 5, 9, 70)
booleans = st.booleans()


def fill_holes(mask):
    """Fill what OpenCV's flood does not reach, after the first row and two pixels have become background."""
    flooded = mask.astype(np.uint8)
    flooded[0] = 0
    flooded[1:2, :2] = 0
    cv2.floodFill(flooded, None, (0, 0), 2)
    return flooded != 2


def library_labels(mask, *, clear_border, fill, radius):
    """Return the labels that the libraries make in as many steps as there are."""
    labels = ndimage.label(mask, EIGHT_CONNECTED)[0]
    if clear_border:
        labels = skimage.segmentation.clear_border(labels)
    if not fill and not radius:
        return labels
    mask = labels > 0
    if fill:
        mask = fill_holes(mask)
    if radius:
        disk = skimage.morphology.disk(radius)
        mask = cv2.dilate(cv2.erode(mask.astype(np.uint8), disk), disk)
    return ndimage.label(mask, EIGHT_CONNECTED)[0]


def label_frame(image, background, thresh, *, clear_border=False, fill=False, radius=0, bg_off=None):
    """Run the kernel for one frame."""
    labels = np.full((1, image.size), 7, np.uint16)
    kernels_labeling.label_thresholded_frames(
        image.reshape(1, -1),
        background.reshape(1, -1),
        np.zeros(1, np.int64),
        np.empty(0) if bg_off is None else np.array([bg_off]),
        float(thresh),
        clear_border,
        fill,
        radius,
        *image.shape,
        labels,
    )
    return labels.reshape(image.shape)


@settings(max_examples=150, deadline=None)
@every_special_picture(
    clear_border=(True, False), fill=(True, False, True), radius=(2, 0, 1, 5, 2), thresh=(-6.0, -6.0, 0.5, -100.0)
)
@given(pictures(), booleans, booleans, st.sampled_from(RADII), st.sampled_from([-300.0, -128.5, -6.0, 0.0, 40.25]))
def test_labels_equal_those_of_libraries(picture, clear_border, fill, radius, thresh):
    """Threshold, border, holes, opening and numbers in one kernel are those of four libraries, one after the other."""
    chain = {"clear_border": clear_border, "fill": fill, "radius": radius}
    labels = label_frame(picture.image, picture.background, thresh, **chain)
    np.testing.assert_array_equal(labels, library_labels(picture.corrected < thresh, **chain))


@settings(max_examples=60, deadline=None)
@every_special_picture(bg_off=(-20.25, 0.0, 3.5, 255.0))
@given(pictures(), st.floats(-300, 300))
def test_mask_with_an_offset_equals_numpy(picture, bg_off):
    """The offset is subtracted before the comparison, in float64."""
    labels = label_frame(picture.image, picture.background, -6.0, bg_off=bg_off)
    np.testing.assert_array_equal(labels > 0, picture.corrected - np.float64(bg_off) < -6.0)


def remove_border_labels(labels):
    """Run the kernel for a frame and the same frame upside down."""
    frames = np.array([labels, labels[::-1, ::-1]]).reshape(2, -1)
    kernels_labeling.remove_border_labels(frames, *labels.shape)
    upright, turned = frames.reshape(2, *labels.shape)
    np.testing.assert_array_equal(upright, turned[::-1, ::-1])
    return upright


@settings(max_examples=60, deadline=None)
@every_special_picture(seed=range(7))
@given(pictures(), st.integers(0, 2**32 - 1))
def test_remove_border_labels_equals_skimage(picture, seed):
    """Components that touch the edge go, the others keep their numbers, whatever these are."""
    numbers = np.random.default_rng(seed).permutation(65535)[: picture.labels.max()] + 1
    labels = np.append(0, numbers).astype(np.uint16)[picture.labels]
    np.testing.assert_array_equal(remove_border_labels(labels), skimage.segmentation.clear_border(labels))


@settings(max_examples=60, deadline=None)
@every_special_picture(seed=range(7))
@given(pictures(), st.integers(0, 2**32 - 1))
def test_remove_border_labels_in_pieces_equals_numpy(picture, seed):
    """A label goes with all its pieces if one of them touches the edge (scikit-image looks at pieces)."""
    numbers = np.random.default_rng(seed).choice([1, 3, 400, 65535], 1 + int(picture.labels.max()))
    labels = (numbers[picture.labels] * picture.mask).astype(np.uint16)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    np.testing.assert_array_equal(remove_border_labels(labels), labels * ~np.isin(labels, edge))


@pytest.mark.parametrize("grey", GREYS)
@pytest.mark.parametrize("width", [65, 129])
def test_nested_rings_become_one_cell(width, grey):
    """Three rings in one another are one object once holes are filled, four with the dot otherwise."""
    picture = Picture(31, width, ("rings",), grey, seed=2)
    assert picture.labels.max() == 4
    image, background = np.where(picture.mask, 100, 120).astype(np.uint8), np.full(picture.mask.shape, 119, np.uint8)
    labels = label_frame(image, background, -6, clear_border=True, fill=True)
    assert labels.max() == 1
    np.testing.assert_array_equal(labels > 0, ndimage.binary_fill_holes(picture.mask))
    assert label_frame(image, background, -6, clear_border=True).max() == 4


@settings(max_examples=200, deadline=None)
@given(st.floats(-600, 600), st.floats(-600, 600))
def test_highest_difference_is_the_last_that_passes(bg_off, thresh):
    """Of all differences of two bytes the limit is the highest that the comparison accepts."""
    accepted = [difference for difference in range(-255, 256) if float(difference) - bg_off < thresh]
    assert kernels_labeling.highest_difference(bg_off, thresh) == max(accepted, default=-256)
