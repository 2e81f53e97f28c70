"""Brightness against numpy, percentiles against those of dcnum, which are numba's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from dcnum.feat.feat_brightness.bright_all import compute_percentiles_10_90
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dcnumd.feat.kernels_brightness import brightness_features, median_of_image
from tests.support.frames import Picture, every_special_picture, pictures

COUNTS = np.zeros(511, np.int32)
IMAGE_COUNTS = np.zeros((4, 256), np.int32)


def dcnum_percentiles(values: npt.NDArray[np.int16]) -> list[float]:
    """Return the 10th and 90th percentile by dcnum's kernel."""
    found: npt.NDArray[np.float64] = compute_percentiles_10_90(
        values.reshape(1, 1, -1), np.ones((1, 1, len(values)), bool)
    )
    return found[0].tolist()


@settings(max_examples=100, deadline=None)
@every_special_picture(offset=(0.0, 0.0, -3.25, 17.5))
@given(pictures(), st.floats(-50, 50))
def test_brightness_of_any_mask_equals_numpy(picture: Picture, offset: float):
    """Mean, deviation and percentiles of all pixels in the mask, moved by the offset where the background matters."""
    assume(picture.mask.any())
    image, corrected = picture.image[picture.mask], picture.corrected[picture.mask]
    # the kernel gets buffers that are longer than the mask
    padded_image, padded_corrected = np.append(image, np.uint8(77)), np.append(corrected, np.int16(-255))
    out = np.full(8, 123.0)
    brightness_features(padded_image, padded_corrected, len(image), 101.5, offset, COUNTS, out)
    low, high = dcnum_percentiles(corrected)
    expected = [
        101.5 + offset,
        image.mean(),
        corrected.mean() - offset,
        corrected.std(),
        low - offset,
        high - offset,
        image.std(),
    ]
    np.testing.assert_allclose(out, [*expected, 123.0], rtol=1e-9, atol=1e-12)
    assert not COUNTS.any()
    numpy_percentiles = np.percentile(corrected, [10, 90]) - offset
    # numpy rounds the rank differently, by up to 1e-13 of a step between grey values
    np.testing.assert_allclose(out[4:6], numpy_percentiles, rtol=1e-9, atol=1e-9)
    if picture.grey == "flat":
        assert out[3] == out[6] == 0


@settings(max_examples=100, deadline=None)
@every_special_picture()
@given(pictures())
def test_median_of_any_image_equals_numpy(picture: Picture):
    """The median lies between two grey values where numbers are even."""
    for image in (picture.image, picture.background):
        assert median_of_image(image, IMAGE_COUNTS) == np.median(image)
        assert not IMAGE_COUNTS.any()


@pytest.mark.parametrize("pixels", [*range(1, 12), 91, 101, 1001, 6001])
def test_percentiles_of_few_and_many_pixels_equal_dcnum(pixels: int):
    """Ranks that are whole numbers, or next to one, are dcnum's to the last bit."""
    rng = np.random.default_rng(pixels)
    for _ in range(20):
        corrected = rng.integers(-255, 256, pixels).astype(np.int16)
        out = np.empty(7)
        brightness_features(np.zeros(pixels, np.uint8), corrected, pixels, 0.0, 0.0, COUNTS, out)
        assert out[4:6].tolist() == dcnum_percentiles(corrected)
