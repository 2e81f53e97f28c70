"""Medians over frames against numpy's partition."""

from __future__ import annotations

import concurrent.futures

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcnumd.feat.feat_background.bg_roll_median import rolling_median
from dcnumd.feat.feat_background.kernels_median import (
    COUNTER_GROUP,
    MEDIAN_BLOCK,
    ROLLING_BLOCK,
    median_of_stack,
    rolling_median_of_stack,
    sum_of_leading_columns,
)
from tests.support.frames import Picture, every_special_picture, pictures

Stack = npt.NDArray[np.uint8]

FRAMES = (1, 2, 3, 4, 5, 20, 199, 200, COUNTER_GROUP - 1, COUNTER_GROUP, COUNTER_GROUP + 1, 255, 256, 257, 600)


def film(picture: Picture, frames: int, seed: int) -> Stack:
    """Return frames (frame, pixel): a picture, its background, noise and extremes in random order."""
    rng = np.random.default_rng(seed)
    kinds = np.stack([picture.image, picture.background, 255 * picture.mask, 255 - picture.image]).reshape(4, -1)
    stack = kinds[rng.integers(0, rng.integers(1, 5), frames)].astype(np.uint8)
    noisy = rng.random(frames) < rng.choice([0, 0.5, 1])
    stack[noisy] = rng.integers(0, 256, (np.count_nonzero(noisy), stack.shape[1]))
    return stack


def upper_median(stack: Stack) -> Stack:
    """Return the element of rank frames // 2 of each column."""
    rank = len(stack) // 2
    return np.partition(stack, rank, axis=0)[rank]


@settings(max_examples=60, deadline=None)
@every_special_picture(frames=FRAMES[:9], seed=range(11))
@given(pictures(), st.integers(1, 40) | st.sampled_from(FRAMES[:-1]), st.integers(0, 2**32 - 1))
def test_median_of_any_stack_equals_partition(picture: Picture, frames: int, seed: int):
    """Each pixel gets its upper median, whatever the grey values and the shape of the frames."""
    stack = film(picture, frames, seed)
    out = np.full(stack.shape[1] + 1, 77, np.uint8)
    median_of_stack(stack, 0, stack.shape[1], out)
    np.testing.assert_array_equal(out, np.append(upper_median(stack), 77))


@pytest.mark.parametrize("frames", FRAMES)
def test_median_of_many_pixels_equals_partition(frames: int):
    """Blocks of pixels and groups of frames fit together, also for more frames than an 8-bit counter holds."""
    rng = np.random.default_rng(frames)
    for pixels, spread in ((1, 300), (MEDIAN_BLOCK, 20), (MEDIAN_BLOCK + 1, 3), (2 * MEDIAN_BLOCK + 4, 90)):
        stack = np.clip(rng.normal(200, spread, (frames, pixels)), 0, 255).astype(np.uint8)
        out = np.zeros(pixels, np.uint8)
        median_of_stack(stack, 0, pixels, out)
        np.testing.assert_array_equal(out, upper_median(stack))


@pytest.mark.parametrize("value", [0, 127, 128, 255])
def test_median_of_equal_frames_is_the_frame(value: int):
    """Every bit of the grey value is found when all frames are equal."""
    out = np.zeros(3, np.uint8)
    for frames in FRAMES:
        median_of_stack(np.full((frames, 3), value, np.uint8), 0, 3, out)
        assert out.tolist() == [value] * 3


def test_median_works_on_parts_of_a_stack_in_threads():
    """Threads that each take some columns together give the whole image and touch nothing else."""
    stack = np.random.default_rng(1).integers(0, 256, (40, 5000), dtype=np.uint8)
    out = np.zeros(5000, np.uint8)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for part in [pool.submit(median_of_stack, stack, *part, out) for part in ((0, 2500), (2500, 4990))]:
            part.result()
    np.testing.assert_array_equal(out[:4990], upper_median(stack)[:4990])
    assert not out[4990:].any()


@settings(max_examples=60, deadline=None)
@every_special_picture(kernel_size=(1, 2, 3, 10, 37), windows=(1, 2, 20), seed=range(11))
@given(pictures(), st.integers(1, 60), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_rolling_median_of_any_stack_equals_partition(picture: Picture, kernel_size: int, windows: int, seed: int):
    """Each window has its own upper median, however far it jumps from one frame to the next."""
    stack = film(picture, kernel_size + windows - 1, seed)
    out = np.full((windows, stack.shape[1]), 77, np.uint8)
    rolling_median_of_stack(stack, kernel_size, 0, stack.shape[1], out)
    np.testing.assert_array_equal(out, [upper_median(stack[i : i + kernel_size]) for i in range(windows)])


@settings(max_examples=60, deadline=None)
@given(pictures(), st.data())
def test_rolling_median_of_some_columns_touches_no_others(picture: Picture, data: st.DataObject):
    """A part of the columns has the medians of the whole; the others stay as they were."""
    stack = film(picture, 15, seed=4)
    first = data.draw(st.integers(0, stack.shape[1]))
    last = data.draw(st.integers(first, stack.shape[1]))
    out = np.full((10, stack.shape[1]), 77, np.uint8)
    rolling_median_of_stack(stack, 6, first, last, out)
    expected = np.full_like(out, 77)
    for i in range(10):
        expected[i, first:last] = upper_median(stack[i : i + 6])[first:last]
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("spread", [1, 8, 200])
@pytest.mark.parametrize("kernel_size", [2, 20, 256, 300])
def test_rolling_median_of_long_windows_equals_partition(kernel_size: int, spread: int):
    """Smooth and wild grey values come out the same with and without threads, in windows of over 255 frames, too."""
    rng = np.random.default_rng(kernel_size + spread)
    shape = (7, ROLLING_BLOCK // 7 * 2 + 1)
    frames = np.clip(rng.normal(128, spread, (kernel_size + 40, *shape)), 0, 255).astype(np.uint8)
    out = np.zeros((41, *shape), np.uint8)
    rolling_median(frames, kernel_size, out)
    expected = [upper_median(frames[i : i + kernel_size]) for i in range(41)]
    np.testing.assert_array_equal(out, expected)
    out[:] = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        rolling_median(frames, kernel_size, out, pool)
    np.testing.assert_array_equal(out, expected)


@settings(max_examples=60, deadline=None)
@every_special_picture(rows=(0, 1, 20, 100))
@given(pictures(), st.integers(0, 60))
def test_sum_of_leading_columns_equals_numpy(picture: Picture, rows: int):
    """The grey values of the first rows add up exactly."""
    stack = film(picture, 3, seed=rows)
    columns = min(rows, picture.height) * picture.width
    out = np.full(3, -1, np.int64)
    sum_of_leading_columns(stack, columns, out)
    assert out.tolist() == stack[:, :columns].sum(axis=1, dtype=np.int64).tolist()
