"""The threshold follows the noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from dcnumd_adaptive import SegmentAdaptive

from dcnumd.segm.methods import get_segmenter


def frame(noise: float, depth: float = 0.0) -> npt.NDArray[Any]:
    """Return a frame minus its background, with a square cell of 20 x 20 pixels in the middle."""
    image = np.random.default_rng(1).normal(0, noise, (80, 320))
    image[30:50, 150:170] -= depth
    return np.round(image).astype(np.int16)


def test_it_is_installed() -> None:
    """It is found by the name that configurations use."""
    assert get_segmenter("adaptive") is SegmentAdaptive


def test_its_settings_are_in_the_pipeline_id() -> None:
    """The defaults, and what differs from them."""
    assert SegmentAdaptive().get_ppid() == "adaptive:n=4^l=3:cle=1^f=1^clo=2"
    given = SegmentAdaptive(noise_factor=5.5, kwargs_mask={"closing_disk": 1})
    assert given.get_ppid() == "adaptive:n=5.5^l=3:cle=1^f=1^clo=1"


@pytest.mark.parametrize("noise", [0.5, 2.0, 5.0])
def test_a_cell_is_found_in_any_noise(noise: float) -> None:
    """It is found whole, and next to nothing else is."""
    mask = SegmentAdaptive.segment_algorithm(frame(noise, depth=max(8 * noise, 10)))
    assert mask[30:50, 150:170].mean() > 0.99
    mask[30:50, 150:170] = False
    assert mask.mean() < 1e-3


def test_an_empty_frame_has_no_cell() -> None:
    """Not even one without any noise."""
    assert not SegmentAdaptive.segment_algorithm(np.zeros((80, 320), np.int16)).any()


def test_the_whole_step_labels_a_cell() -> None:
    """With background offset and mask processing, as dcnumd calls it for a batch of frames."""
    frames = np.stack([frame(2.0), frame(2.0, depth=20)]) + np.int16(7)
    with SegmentAdaptive(num_workers=1, debug=True) as segmenter:
        masks = segmenter.segment_batch(frames, np.array([7.0, 7.0]))
    assert not masks[0].any()
    assert 350 < masks[1].sum() <= 420
