"""Duplicate frames against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcnumd.segm.kernels_frames import BLOCK, mark_duplicates
from tests.support.frames import every_special_picture, pictures


def duplicates(frames, previous):
    """Run the kernel on frames (frame, y, x); `previous` is a frame or None."""
    marks = np.full(len(frames), 7).astype(bool)
    before = np.empty(0, np.uint8) if previous is None else previous.ravel()
    mark_duplicates(frames.reshape(len(frames), -1), before, marks)
    return marks.tolist()


def numpy_duplicates(frames, previous):
    """Compare each frame with the one before."""
    before = [previous, *frames[:-1]]
    return [other is not None and np.array_equal(frame, other) for frame, other in zip(frames, before, strict=True)]


CHANGES = ((0, 0, 1), (0, -1, 128), (1, 1, 255), (0, 0, 0))


@settings(max_examples=60, deadline=None)
@every_special_picture(changes=(CHANGES, CHANGES[::-1], CHANGES[3:] * 3), known=(True, False), seed=(0, 1, 2))
@given(
    pictures(),
    st.lists(st.tuples(st.integers(0, 1), st.integers(-1, 1), st.sampled_from([0, 0, 1, 128, 255])), max_size=6),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_mark_duplicates_equals_numpy(picture, changes, known, seed):
    """Frames that differ in one bit of any pixel are no duplicates; of a run of equal frames all but the first are."""
    rng = np.random.default_rng(seed)
    frames = [picture.image]
    for random_place, corner, bits in changes:
        frame = frames[-1].copy()
        place = rng.integers(frame.size) if random_place else (0 if corner >= 0 else frame.size - 1)
        frame.flat[place] ^= bits
        frames.append(frame)
    stack = np.array(frames)
    previous = picture.image if known else None
    assert duplicates(stack, previous) == numpy_duplicates(stack, previous)


@pytest.mark.parametrize("pixels", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 1])
def test_mark_duplicates_sees_every_pixel(pixels):
    """A change of any single pixel counts, at the ends of the compared blocks, too."""
    frame = np.full((1, pixels, 1), 90, np.uint8)
    for place in {0, pixels // 2, min(BLOCK - 1, pixels - 1), min(BLOCK, pixels - 1), pixels - 1}:
        changed = frame[0].copy()
        changed[place] ^= 1
        assert duplicates(frame, changed) == [False]
    assert duplicates(frame, frame[0]) == [True]
