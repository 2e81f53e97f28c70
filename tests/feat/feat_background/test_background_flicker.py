"""The check for flickering illumination, held against dcnum's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dcnumd.errors import MethodError
from dcnumd.feat.feat_background.flicker import has_flicker, resolve_offset_correction

dcnum_read = pytest.importorskip("dcnum.read")


def draw(seed: int) -> npt.NDArray[np.uint8]:
    """Return frames in which some, about as many as matter, are off by about as much as matters."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 1300) if seed % 8 == 0 else rng.integers(1, 40))
    shape = int(rng.integers(1, 25)), int(rng.integers(1, 30))
    frames = rng.normal(150, rng.choice([0, 1, 3]), (count, *shape))
    frames[rng.permutation(count)[: rng.integers(3, 9)]] += rng.choice([-3, -2.5, 2, 2.5, 3])
    return np.clip(np.round(frames), 0, 255).astype(np.uint8)


def test_flicker_check_equals_dcnum() -> None:
    """Around the limits of number and brightness the decision is dcnum's."""
    decisions = []
    for seed in range(160):
        frames = draw(seed)
        decisions.append(has_flicker(lambda start, stop, frames=frames: frames[start:stop], len(frames)))
        assert decisions[-1] == bool(dcnum_read.detect_flickering(frames))
    assert 20 < sum(decisions) < 140


@pytest.mark.parametrize("value", [True, False, 1, 0])
def test_offset_correction_that_is_set_is_kept(value: Any) -> None:
    """Nothing is read when there is nothing to find out."""

    def read(start: int, stop: int) -> npt.NDArray[np.uint8]:
        raise AssertionError("frames were read")

    assert resolve_offset_correction(value, read, 10) is bool(value)


@pytest.mark.parametrize("value", ["auto", None])
@pytest.mark.parametrize("flickers", [True, False])
def test_offset_correction_follows_the_flicker_check(value: str | None, flickers: bool) -> None:
    """Left to "auto" it is on if the illumination flickers."""
    frames = np.full((30, 20, 10), 100, np.uint8)
    frames[::4] += 5 * flickers
    assert resolve_offset_correction(value, lambda start, stop: frames[start:stop], 30) is flickers
    with pytest.raises(MethodError, match="expected true, false or 'auto'"):
        resolve_offset_correction("sometimes", lambda start, stop: frames[start:stop], 30)
