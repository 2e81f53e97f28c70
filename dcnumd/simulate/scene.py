"""Rendering of frames: channel, walls, dirt, drift, flicker, shot noise and cells."""

from __future__ import annotations

import functools
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dcnumd.simulate.flow import (
    BLOCK_FRAMES,
    STREAM_BACKGROUND,
    STREAM_FIBRES,
    STREAM_NOISE,
    Cell,
    Flow,
    Placement,
    random_stream,
)
from dcnumd.simulate.spec import MeasurementSpec
from dcnumd.simulate.sprites import CHANNEL_BRIGHTNESS

FrameStack: TypeAlias = npt.NDArray[np.uint8]
"""Frames, uint8 (frame, y, x)."""

NOISE_VARIANCE = 0.0325
"""Variance of the shot noise per grey level; the noise is 2.2 grey levels at 147, as in measurements with CytoShot."""

NOISE_TILES = 8
NOISE_SHIFTS = 128
DRIFT_FRAMES = 64
"""Number of frames with the same illumination; the steps of the drift are far below the noise."""

FIBRE_LENGTH = 16
"""Length of a fibre [px], which is one pixel wide."""
FIBRE_DEPTH = 30
"""Darkness of a fibre [grey levels]."""


class Scene:
    """Renders the frames of a measurement, in any order and reproducibly.

    Parameters
    ----------
    spec
        The measurement.
    """

    def __init__(self, spec: MeasurementSpec) -> None:
        self.spec = spec
        self.flow = Flow(spec)
        rng = random_stream(spec.seed, STREAM_BACKGROUND)
        self.background = draw_background(spec.size, rng)
        self._drift_phases = rng.uniform(0, 2 * np.pi, 2)
        self._noise = _draw_noise_tiles(self.background, rng)
        self._placements = functools.lru_cache(maxsize=16)(self.flow.placements)
        self._camera = functools.lru_cache(maxsize=2)(self._draw_camera)
        self._illuminated = functools.lru_cache(maxsize=4)(self._illuminate)
        self._fibres = functools.lru_cache(maxsize=2)(self._draw_fibres)
        self._is_usual = spec.light == 1 and not spec.drift and not spec.fibres

    def cells(self, start: int, stop: int) -> list[Cell]:
        """Return the cells in frames `start` to `stop` - 1."""
        return [
            placement.cell
            for block in range(start // BLOCK_FRAMES, -(-stop // BLOCK_FRAMES))
            for placement in self._placements(block)
            if start <= placement.cell.frame < stop
        ]

    def render(self, start: int, stop: int) -> FrameStack:
        """Return frames `start` to `stop` - 1, uint8 (frame, y, x)."""
        frames = np.empty((stop - start, *self.spec.size), np.uint8)
        for block in range(start // BLOCK_FRAMES, -(-stop // BLOCK_FRAMES)):
            first = max(start, block * BLOCK_FRAMES)
            last = min(stop, (block + 1) * BLOCK_FRAMES)
            for index in range(first, last):
                self._expose(index, frames[index - start])
            for placement in self._placements(block):
                index = placement.cell.frame
                if first <= index < last:
                    _put(placement, self._illuminated(index // DRIFT_FRAMES), frames[index - start])
        return frames

    def _expose(self, index: int, frame: npt.NDArray[np.uint8]) -> None:
        """Write background and noise of frame `index`; uint8 sums wrap around, so negative noise is added correctly."""
        block, position = divmod(index, BLOCK_FRAMES)
        tiles, shifts, flicker = self._camera(block)
        width = frame.shape[1]
        one, two = (
            self._noise[half, tiles[position, half], :, shifts[position, half] : shifts[position, half] + width]
            for half in range(2)
        )
        np.add(one, two, out=frame)
        lit = self._illuminated(index // DRIFT_FRAMES)
        if self._is_usual:
            np.add(frame, lit, out=frame)
            if self.spec.flicker:
                np.add(frame, flicker[position], out=frame)
            return
        # Near black and white, sums must not wrap around.
        exposed = frame.view(np.int8).astype(np.int16) + lit + flicker[position : position + 1].view(np.int8)
        for row, start in self._fibres(block)[position]:
            exposed[row, start : start + FIBRE_LENGTH] -= FIBRE_DEPTH
        frame[...] = np.clip(exposed, 0, 255)

    def _draw_camera(self, block: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
        """Return random noise tiles (frame, 2), their shifts (frame, 2) and the flicker (frame,) of a block."""
        rng = random_stream(self.spec.seed, STREAM_NOISE, block)
        tiles = rng.integers(NOISE_TILES, size=(BLOCK_FRAMES, 2))
        shifts = rng.integers(NOISE_SHIFTS, size=(BLOCK_FRAMES, 2))
        flicker = np.clip(rng.normal(0, 1, BLOCK_FRAMES) * self.spec.flicker, -25, 25)
        return tiles, shifts, np.rint(flicker).astype(np.int16).astype(np.uint8)

    def _illuminate(self, step: int) -> npt.NDArray[np.uint8]:
        """Return the background with the illumination of a step of the drift."""
        seconds = step * DRIFT_FRAMES / self.spec.rate
        slow, slower = self._drift_phases
        factor = (
            1 + 0.008 * np.sin(2 * np.pi * seconds / 7.3 + slow) + 0.006 * np.sin(2 * np.pi * seconds / 41.0 + slower)
        )
        if self._is_usual:
            lit: npt.NDArray[np.uint8] = np.rint(self.background * factor).astype(np.uint8)
            return lit
        changed = self.background * factor * self.spec.light
        changed += self.spec.drift * step * DRIFT_FRAMES / max(self.spec.frames, 1)
        exposed: npt.NDArray[np.uint8] = np.rint(np.clip(changed, 0, 255)).astype(np.uint8)
        return exposed

    def _draw_fibres(self, block: int) -> list[list[tuple[int, int]]]:
        """Return row and first column of the fibres in each frame of a block, in separate rows."""
        rng = random_stream(self.spec.seed, STREAM_FIBRES, block)
        height, width = self.spec.size
        rows = np.arange(4, height - 4, 4)
        counts = np.minimum(rng.poisson(self.spec.fibres, BLOCK_FRAMES), len(rows))
        return [
            [
                (int(row), int(start))
                for row, start in zip(
                    rng.choice(rows, count, replace=False),
                    rng.integers(4, width - 4 - FIBRE_LENGTH, count),
                    strict=True,
                )
            ]
            for count in counts
        ]


def draw_background(size: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return the empty channel [grey levels]: illumination, walls with diffraction fringes, and dirt.

    Parameters
    ----------
    size
        Height and width [px].
    rng
        Random number generator for the details.
    """
    height, width = size
    rows = np.arange(height)[:, np.newaxis] * 80 / height
    columns = np.linspace(-1, 1, width)[np.newaxis, :]
    centre = rng.uniform(-0.3, 0.3)
    background = CHANNEL_BRIGHTNESS * (1 - 0.012 * (columns - centre) ** 2) + np.zeros(size)
    for distance in (rows - rng.uniform(4.5, 6.0), rng.uniform(73.5, 75.5) - rows):
        background += _wall(distance)
    grain = ndimage.gaussian_filter(rng.standard_normal(size), 2.0)
    background += 0.6 * grain / grain.std()
    for _ in range(rng.poisson(height * width / 5000)):
        row, column = rng.uniform(0, height), rng.uniform(0, width)
        spread, depth = rng.uniform(1.0, 2.5), rng.uniform(-14, 6)
        squared = (np.arange(height)[:, np.newaxis] - row) ** 2 + (np.arange(width) - column) ** 2
        background += depth * np.exp(-0.5 * squared / spread**2)
    return np.clip(background, 70, 205)


def _wall(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the brightness that a wall adds, by the distance into the channel [px in a frame of 80 rows]."""
    fringes: npt.NDArray[np.float64] = (
        -45 * np.exp(-0.5 * (distance / 2.2) ** 2)
        + 22 * np.exp(-0.5 * ((distance - 9.0) / 2.6) ** 2)
        - 4 * np.exp(-0.5 * ((distance - 14.0) / 1.8) ** 2)
        + 5 * np.exp(-0.5 * ((distance + 5.5) / 1.8) ** 2)
    )
    return fringes


def _draw_noise_tiles(background: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return shot noise as wrapped uint8 (half, tile, y, x); a frame is the sum of two tiles, one of each half.

    Sums of two shifted tiles do not repeat, so that frames compress no better than those of a real measurement.
    """
    height, width = background.shape
    variance = NOISE_VARIANCE * background.mean(axis=1) / 2 - 1 / 12  # rounding adds 1/12 to each half
    noise = rng.standard_normal((2, NOISE_TILES, height, width + NOISE_SHIFTS), dtype=np.float32)
    noise *= np.sqrt(variance).astype(np.float32)[:, np.newaxis]
    return np.clip(np.rint(noise), -12, 12).astype(np.int8).view(np.uint8)


def _put(placement: Placement, background: npt.NDArray[np.uint8], frame: npt.NDArray[np.uint8]) -> None:
    """Draw the part of a cell that is inside its frame."""
    sprite = placement.sprite
    height, width = sprite.brightness.shape
    top, left = max(placement.top, 0), max(placement.left, 0)
    bottom, right = min(placement.top + height, frame.shape[0]), min(placement.left + width, frame.shape[1])
    if top >= bottom or left >= right:
        return
    target = np.s_[top:bottom, left:right]
    source = np.s_[top - placement.top : bottom - placement.top, left - placement.left : right - placement.left]
    behind = background[target].astype(np.float32)
    value = (frame[target] - behind) * sprite.noise[source]
    value += behind
    value += sprite.brightness[source]
    value += 0.5
    np.clip(value, 0, 255, out=value)
    frame[target] = value.astype(np.uint8)
