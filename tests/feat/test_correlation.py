"""Texture of grey values that hardly depend on their neighbours, against mahotas."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from dcnumd.feat import events
from dcnumd.feat.events import FEATURES, FEATURES_TEXTURE, extract_events
from tests.support.textures import mahotas_texture

Bytes = npt.NDArray[np.uint8]


def textures(frames: Bytes, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the texture features of one mask in many frames, whose background is 100, (frame, feature)."""
    count = len(frames)
    found = extract_events(
        frames,
        np.full((1, *mask.shape), 100, np.uint8),
        np.zeros(count, np.int64),
        np.empty(0),
        np.repeat(mask[np.newaxis].astype(np.uint16), count, axis=0),
        np.zeros(count, np.bool_),
        pixel_size=0.34,
        size_thresh=0,
    )
    assert len(found.table) == count
    return found.table[:, [FEATURES.index(name) for name in FEATURES_TEXTURE]]


def cell(height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return a mask of so many pixels inside a frame, without two of its corners."""
    mask = np.zeros((height + 5, width + 4), np.bool_)
    mask[2:-3, 3:-1] = True
    mask[2, 3] = mask[-4, -2] = False
    return mask


def few_greys(rng: np.random.Generator, shape: tuple[int, ...]) -> Bytes:
    """Return frames of few grey values."""
    return (80 + rng.integers(0, rng.integers(2, 5), shape)).astype(np.uint8)


def nearly_flat(rng: np.random.Generator, shape: tuple[int, ...]) -> Bytes:
    """Return frames of one grey value but for a few pixels."""
    frames = np.full(shape, 80, np.uint8)
    for frame in frames:
        number = rng.integers(1, 4)
        frame[rng.integers(3, shape[1] - 3, number), rng.integers(3, shape[2] - 3, number)] += np.uint8(
            rng.integers(1, 90)
        )
    return frames


def stripes(rng: np.random.Generator, shape: tuple[int, ...]) -> Bytes:
    """Return frames in which all neighbours in some direction have the same difference, or none depends on another."""
    row, column = np.indices(shape[1:])
    kinds = [row % 2, column % 3, (row + column) % 2, row // 4 % 2 + column % 2]
    return np.array([80 + kinds[i % 4] * rng.integers(1, 40) for i in range(shape[0])]).astype(np.uint8)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("draw", [few_greys, nearly_flat, stripes], ids=lambda draw: draw.__name__)
@pytest.mark.parametrize(("size", "count"), [((4, 4), 150), ((3, 5), 150), ((9, 12), 50), ((62, 70), 8)], ids=str)
def test_texture_near_zero_equals_mahotas(draw, size, count):
    """Whatever rounding leaves of an information that is zero, it is what mahotas has."""
    mask = cell(*size)
    frames = draw(np.random.default_rng(sum(size)), (count, *mask.shape))
    expected = np.array([mahotas_texture(mask, frame.astype(np.int16) - 100) for frame in frames])
    np.testing.assert_allclose(textures(frames, mask), expected, rtol=1e-9, atol=1e-12, equal_nan=True)


def test_usual_textures_are_left_to_the_kernel(monkeypatch):
    """What cells look like is never computed a second time."""
    monkeypatch.delattr(events, "correlation_measures")
    mask = cell(14, 15)
    frames = np.random.default_rng(0).normal(85, 4, (500, *mask.shape)).astype(np.uint8)
    assert textures(frames, mask)[:, -2].min() > 0
