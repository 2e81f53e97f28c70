"""Texture features against mahotas."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from scipy import ndimage

from dcnumd.feat.correlation import correlation_measures
from dcnumd.feat.kernels_texture import DOUBTFUL, F13_MEAN, texture_features
from dcnumd.feat.scratch import new_scratch
from tests.support.frames import Picture, every_special_picture, pictures
from tests.support.textures import grey_values, mahotas_texture

SCRATCH = new_scratch(60, 200)


def kernel_texture(mask: npt.NDArray[np.bool_], corrected: npt.NDArray[np.int16]) -> npt.NDArray[np.float64]:
    """Return the 22 texture features of a mask that fills its bounding box, doubtful ones as for events."""
    window = np.pad(mask, 1)
    position = np.flatnonzero(window).astype(np.int32)
    values = corrected[mask]
    out = np.full(22, 123.0)
    texture_features(
        np.append(values, np.int16(-255)),
        np.append(position, np.int32(0)),
        len(values),
        window.shape[1],
        window.size,
        SCRATCH.grey,
        SCRATCH.grey_count,
        SCRATCH.pair_count,
        SCRATCH.pair_seen,
        SCRATCH.marginal,
        SCRATCH.difference_count,
        SCRATCH.sum_count,
        SCRATCH.entropy_table,
        SCRATCH.texture,
        out,
    )
    for counters in (SCRATCH.pair_count, SCRATCH.difference_count, SCRATCH.sum_count):
        assert not counters.any(), "the next mask would begin with these counts"
    if out[F13_MEAN] == DOUBTFUL:
        out[-4:] = correlation_measures(grey_values(mask, corrected))
    return out


def assert_texture_equal(mask: npt.NDArray[np.bool_], corrected: npt.NDArray[np.int16]) -> None:
    """Compare all features of a mask, which is cut to its bounding box first."""
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    mask, corrected = mask[box], corrected[box]
    np.testing.assert_allclose(
        kernel_texture(mask, corrected), mahotas_texture(mask, corrected), rtol=1e-9, atol=1e-12, equal_nan=True
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(max_examples=30, deadline=None)
@every_special_picture()
@given(pictures())
def test_texture_of_any_mask_equals_mahotas(picture: Picture):
    """All of a frame's objects as one mask, and the largest alone: flat, dark, and with contrasts that wrap around."""
    assume(picture.mask.any())
    assert_texture_equal(picture.mask, picture.corrected)
    if picture.labels.max() > 1:
        largest = 1 + int(np.argmax(np.bincount(picture.labels.ravel())[1:]))
        assert_texture_equal(picture.labels == largest, picture.corrected)
