"""Contours, hulls and polygon moments against OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from scipy import ndimage

from dcnumd.feat.kernels_contour import cut_out, find_contour, find_labels
from dcnumd.feat.kernels_moments import find_hull, polygon_arc_length, polygon_moments
from dcnumd.feat.scratch import new_scratch
from tests.support.frames import Picture, every_special_picture, pictures

Mask = npt.NDArray[np.bool_]

SCRATCH = new_scratch(60, 200)


def trace(mask: Mask) -> npt.NDArray[np.int32]:
    """Return the contour (point, 2) of a mask that is given as label 1."""
    labels = mask.astype(np.uint16)
    image = np.zeros(mask.shape, np.uint8)
    find_labels(labels, SCRATCH.label_box, SCRATCH.label_seen, SCRATCH.runs)
    pixels, y0, y1, x0, x1, run, _ = SCRATCH.label_box[1].tolist()
    SCRATCH.label_box[1, 0] = 0
    assert pixels == mask.sum()
    box = (y0, y1, x0, x1)
    # what is left of other masks
    SCRATCH.window.fill(2)
    pixel_places = (SCRATCH.position, SCRATCH.brightness, SCRATCH.corrected)
    cut_out(SCRATCH.runs, run, image, image, box, SCRATCH.window, *pixel_places)
    length = find_contour(SCRATCH.runs, run, box, SCRATCH.window, SCRATCH.contour_x, SCRATCH.contour_y)
    return np.stack((SCRATCH.contour_x[:length], SCRATCH.contour_y[:length]), axis=1)


def trace_with_opencv(mask: Mask) -> npt.NDArray[np.int32]:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return contours[0][:, 0]


def draw_mask(*rows: str) -> Mask:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


DEGENERATE = [
    draw_mask("#"),
    draw_mask("####"),
    draw_mask("#", "#", "#"),
    draw_mask("#..", ".#.", "..#"),
    draw_mask("#.#", ".#.", "#.#"),
    draw_mask("#...#", ".#.#.", "..#.."),
    draw_mask("#####", "#...#", "#.#.#", "#...#", "#####"),
    draw_mask(".#.", "#.#", ".#."),
    draw_mask("###..", "###..", "....#"),
    np.ones((60, 130), bool),
]


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@every_special_picture()
@given(pictures())
def test_contour_of_any_mask_equals_opencv(picture: Picture):
    """Points and their order are OpenCV's, whatever the mask looks like."""
    assume(picture.mask.any())
    np.testing.assert_array_equal(trace(picture.mask), trace_with_opencv(picture.mask))


@pytest.mark.slow
@pytest.mark.parametrize("mask", DEGENERATE, ids=lambda mask: f"{mask.shape}-{mask.sum()}")
def test_contour_of_degenerate_masks_equals_opencv(mask: Mask):
    """Single pixels, lines, rings, nested and diagonal pieces are followed as OpenCV follows them."""
    np.testing.assert_array_equal(trace(mask), trace_with_opencv(mask))


@settings(max_examples=80, deadline=None)
@every_special_picture()
@given(pictures())
def test_moments_of_any_mask_equal_opencv(picture: Picture):
    """Area, centroid and central moments agree to the last bit with OpenCV's polygon moments."""
    assume(picture.mask.any())
    points = trace(picture.mask)
    expected = cv2.moments(points)
    moments = polygon_moments(SCRATCH.contour_x, SCRATCH.contour_y, len(points))
    assert moments == tuple(expected[key] for key in ("m00", "m10", "m01", "mu20", "mu11", "mu02"))
    arc = polygon_arc_length(SCRATCH.contour_x, SCRATCH.contour_y, len(points))
    assert arc == cv2.arcLength(points, closed=True)


@settings(max_examples=80, deadline=None)
@every_special_picture()
@given(pictures())
def test_hull_of_any_mask_equals_opencv(picture: Picture):
    """The hull has OpenCV's corners and no others, so that its arc length and moments agree to the last bit."""
    assume(picture.mask.any())
    points = trace(picture.mask)
    y0 = int(points[:, 1].min())
    y1 = int(points[:, 1].max()) + 1
    size = find_hull(
        SCRATCH.contour_x,
        SCRATCH.contour_y,
        len(points),
        y0,
        y1,
        SCRATCH.row_left,
        SCRATCH.row_right,
        SCRATCH.hull_x,
        SCRATCH.hull_y,
    )
    expected = cv2.convexHull(points)
    if polygon_moments(SCRATCH.hull_x, SCRATCH.hull_y, size)[0] == 0:
        assert cv2.contourArea(expected) == 0
        return
    corners = set(zip(SCRATCH.hull_x[:size].tolist(), SCRATCH.hull_y[:size].tolist(), strict=True))
    assert corners == {tuple(corner) for corner in expected[:, 0].tolist()}
    arc = polygon_arc_length(SCRATCH.hull_x, SCRATCH.hull_y, size)
    assert arc == pytest.approx(cv2.arcLength(expected, closed=True), rel=1e-14)
    moments = polygon_moments(SCRATCH.hull_x, SCRATCH.hull_y, size)
    expected_moments = cv2.moments(expected)
    assert moments == tuple(expected_moments[key] for key in ("m00", "m10", "m01", "mu20", "mu11", "mu02"))


def test_find_labels_unordered_numbers_come_sorted():
    """Labels are listed in ascending order with their own boxes, wherever they lie and whatever their numbers."""
    labels = np.zeros((50, 100), np.uint16)
    labels[2:4, 90:100] = 65535
    labels[5, 3] = 7
    labels[40:50, 0:2] = 1
    labels[49, 99] = 7
    found = find_labels(labels, SCRATCH.label_box, SCRATCH.label_seen, SCRATCH.runs)
    assert SCRATCH.label_seen[:found].tolist() == [1, 7, 65535]
    boxes = SCRATCH.label_box[[1, 7, 65535], :5].tolist()
    SCRATCH.label_box[[1, 7, 65535], 0] = 0
    assert boxes == [[20, 40, 50, 0, 2], [2, 5, 50, 3, 100], [20, 2, 4, 90, 100]]


@settings(max_examples=80, deadline=None)
@every_special_picture()
@given(pictures())
def test_find_labels_equals_scipy(picture: Picture):
    """Every component of a frame is found with its pixel count and bounding box."""
    found = find_labels(picture.labels, SCRATCH.label_box, SCRATCH.label_seen, SCRATCH.runs)
    numbers = SCRATCH.label_seen[:found]
    measured = SCRATCH.label_box[numbers, :5].tolist()
    SCRATCH.label_box[numbers, 0] = 0
    assert numbers.tolist() == list(range(1, int(picture.labels.max()) + 1))
    counts = np.bincount(picture.labels.ravel())[1:].tolist()
    boxes = [[y.start, y.stop, x.start, x.stop] for y, x in ndimage.find_objects(picture.labels)]
    assert measured == [[count, *box] for count, box in zip(counts, boxes, strict=True)]


@settings(max_examples=60, deadline=None)
@every_special_picture()
@given(pictures())
def test_cut_out_takes_the_pixels_of_the_label_only(picture: Picture):
    """The window has one label's mask; grey values come in raster order, corrected ones from -255 to 255."""
    assume(picture.mask.any())
    label = int(picture.labels.max())
    found = find_labels(picture.labels, SCRATCH.label_box, SCRATCH.label_seen, SCRATCH.runs)
    first_run = int(SCRATCH.label_box[label, 5])
    SCRATCH.label_box[SCRATCH.label_seen[:found], 0] = 0
    mask = picture.labels == label
    ((rows, columns),) = ndimage.find_objects(mask.astype(np.uint8))
    box = (rows.start, rows.stop, columns.start, columns.stop)
    cut_out(
        SCRATCH.runs,
        first_run,
        picture.image,
        picture.background,
        box,
        SCRATCH.window,
        SCRATCH.position,
        SCRATCH.brightness,
        SCRATCH.corrected,
    )
    window = np.pad(mask[rows, columns], 1)
    # elsewhere a window of a sparse mask is as it was
    nearby = cv2.dilate(window.astype(np.uint8), np.ones((3, 3))) > 0
    np.testing.assert_array_equal(SCRATCH.window[: window.size].reshape(window.shape)[nearby], window[nearby])
    pixels = np.count_nonzero(mask)
    np.testing.assert_array_equal(SCRATCH.position[:pixels], np.flatnonzero(window))
    np.testing.assert_array_equal(SCRATCH.brightness[:pixels], picture.image[mask])
    np.testing.assert_array_equal(SCRATCH.corrected[:pixels], picture.corrected[mask])
