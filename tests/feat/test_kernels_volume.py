"""Volumes against the formula for bodies of revolution, written down in numpy."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dcnumd.feat.kernels_volume import contour_volume
from tests.support.frames import Picture, every_special_picture, pictures


def revolved(radius: npt.NDArray[np.float64], z: npt.NDArray[np.float64]) -> float:
    """Return the volume of the body whose surface is made of truncated cones along a closed line."""
    r, dr, dz = radius, np.roll(radius, -1) - radius, np.roll(z, -1) - z
    return abs(np.pi / 3 * np.sum(dz * np.abs(3 * r**2 + 3 * r * dr + dr**2)))


def numpy_volume(contour: npt.NDArray[np.int32], pos_x: float, pos_y: float, pixel_size: float) -> float:
    """Return the mean of the volumes of both halves [µm³]."""
    z, r = contour[:, 0] - pos_x / pixel_size, contour[:, 1] - pos_y / pixel_size
    return (revolved(np.maximum(r, 0), z) + revolved(np.minimum(r, 0), z)) / 2 * pixel_size**3


def kernel_volume(contour: npt.NDArray[np.int32], pos_x: float, pos_y: float, pixel_size: float) -> float:
    xs, ys = contour.T.astype(np.int32, order="C")
    return contour_volume(xs, ys, len(contour), pos_x, pos_y, pixel_size)


def outer_contour(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return contours[0][:, 0]


@settings(max_examples=100, deadline=None)
@every_special_picture(pixel_size=(0.2645, 1.0, 0.34))
@given(pictures(), st.floats(0.01, 10))
def test_volume_of_any_contour_equals_the_formula(picture: Picture, pixel_size: float):
    """Whatever the outline looks like, both halves about its own centroid are revolved as the formula says."""
    assume(picture.mask.any())
    contour = outer_contour(picture.mask)
    moments = cv2.moments(cv2.convexHull(contour))
    # a line that is followed there and back is no event; its volume is nothing but rounding
    assume(cv2.contourArea(contour) > 0)
    pos_x, pos_y = moments["m10"] / moments["m00"] * pixel_size, moments["m01"] / moments["m00"] * pixel_size
    volume = kernel_volume(contour, pos_x, pos_y, pixel_size)
    if len(contour) < 4:
        assert np.isnan(volume)
    else:
        assert volume == pytest.approx(numpy_volume(contour, pos_x, pos_y, pixel_size), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("radius", [20, 24])
def test_volume_of_a_disc_is_that_of_a_ball(radius: int):
    """A disc, revolved, is a ball; its contour goes through the centres of its outer pixels."""
    y, x = np.indices((51, 51))
    contour = outer_contour(np.hypot(y - 25, x - 25) <= radius)
    volume = kernel_volume(contour, 25 * 0.2645, 25 * 0.2645, 0.2645)
    smallest, largest = (4 / 3 * np.pi * (size * 0.2645) ** 3 for size in (radius - 1, radius))
    assert smallest < volume < largest


@pytest.mark.parametrize("points", [1, 2, 3])
def test_volume_of_few_points_is_unknown(points: int):
    """Fewer than four points enclose no body."""
    contour = np.array([[3, 3], [4, 5], [5, 3]], np.int32)[:points]
    assert np.isnan(kernel_volume(contour, 1.0, 1.0, 0.2645))
