"""Frames drawn at random: a channel with cells in changing light, or whatever is hard to measure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tests.support.frames import GREYS, INGREDIENTS, Picture

Frames = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

MAX_PIXELS = 1_500_000
"""All frames of a measurement together have no more, so that dcnum is done in a moment."""
MAX_FRAMES = 1300
"""More than the 1000 frames that dcnum works on at a time."""


def draw_shape(rng: np.random.Generator) -> tuple[int, int]:
    """Return height and width of a frame [px]."""
    kind = rng.choice(["tiny", "low", "usual", "any"], p=[0.1, 0.2, 0.3, 0.4])
    if kind == "tiny":
        height, width = rng.integers(3, 13, 2)
    elif kind == "low":
        height, width = rng.integers(3, 42), rng.integers(20, 200)
    elif kind == "usual":
        height, width = [(45, 100), (80, 160), (80, 320), (80, 250), (100, 200)][rng.integers(5)]
    else:
        height, width = rng.integers(3, 201), rng.integers(3, 401)
    return int(height), int(width)


def draw_count(rng: np.random.Generator, shape: tuple[int, int]) -> int:
    """Return a number of frames, seldom very few."""
    most = min(MAX_FRAMES, max(12, MAX_PIXELS // (shape[0] * shape[1])))
    return int(rng.integers(2, 12) if rng.random() < 0.08 else rng.integers(most // 3, most + 1))


def draw_frames(rng: np.random.Generator, shape: tuple[int, int], count: int) -> Frames:
    """Return frames, uint8 (frame, y, x); some are equal to the one before."""
    frames = _pictures(rng, shape, count) if rng.random() < 0.15 else _channel(rng, shape, count)
    for number in np.flatnonzero(rng.random(count) < 0.03):
        frames[number] = frames[max(0, number - 1)]
    return frames


def _pictures(rng: np.random.Generator, shape: tuple[int, int], count: int) -> Frames:
    """Return frames of which each has other objects, in one kind of light."""
    grey = GREYS[rng.integers(2)] if rng.random() < 0.7 else GREYS[rng.integers(len(GREYS))]
    names = rng.choice(list(INGREDIENTS), 4, replace=False).tolist()
    few = [
        Picture(*shape, tuple(names[: rng.integers(5)]), grey, int(rng.integers(2**31))).image
        for _ in range(min(count, 40))
    ]
    empty = Picture(*shape, (), grey, 1).image
    frames = np.array([*few, empty])
    # mostly empty, so that there is a background
    return frames[np.where(rng.random(count) < 0.4, rng.integers(0, len(few), count), len(few))]


def _channel(rng: np.random.Generator, shape: tuple[int, int], count: int) -> Frames:
    """Return frames of a channel with cells that pass."""
    wall = rng.choice([0, 10, 40]) * np.cos(np.linspace(-2, 2, shape[0]))[:, None]
    still = rng.uniform(40, 210) + wall + rng.normal(0, rng.choice([0, 1, 4]), shape)
    light = np.linspace(0, rng.choice([0, 0, 4, -30]), count) + rng.normal(0, rng.choice([0, 0, 1, 5]), count)
    frames = still + light[:, None, None] + rng.normal(0, rng.choice([0, 0.5, 2, 5]), (count, *shape))
    density = rng.choice([0.0, 0.1, 0.5, 1.0, 4.0]) * min(1.0, shape[0] * shape[1] / 1000)
    largest = rng.uniform(2, 14)
    for _ in range(rng.poisson(density * count)):
        _draw_cell(rng, frames, largest)
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def _draw_cell(rng: np.random.Generator, frames: Floats, largest: float) -> None:
    """Draw one cell, in one frame or, as it passes, in some; now and then it sticks for long."""
    count, height, width = frames.shape
    radius_y, radius_x = rng.uniform(0.6, largest, 2)
    contrast, rim = rng.choice([-60, -25, -12, -6, 15]), rng.choice([0, 0, 30, -30])
    speed = rng.uniform(0, 20)
    y, x = rng.uniform(-2, height + 2), rng.uniform(-2, width + 2)
    start = int(rng.integers(count))
    life = int(rng.choice([1, 2, 4, 60], p=[0.6, 0.25, 0.13, 0.02]))
    for number in range(start, min(count, start + life)):
        at = x + (0 if life == 60 else speed * (number - start))
        top, left = max(0, int(y - radius_y - 1)), max(0, int(at - radius_x - 1))
        part = frames[number, top : int(y + radius_y + 2), left : int(at + radius_x + 2)]
        if not part.size:
            continue
        rows, columns = np.indices(part.shape)
        distance = np.hypot((rows + top - y) / radius_y, (columns + left - at) / radius_x)
        part += np.where(distance < 1, contrast, 0) + np.where(np.abs(distance - 0.9) < 0.15, rim, 0)
