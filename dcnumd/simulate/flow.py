"""The positions of cells in each frame on their way through the channel."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from dcnumd.simulate.spec import MeasurementSpec
from dcnumd.simulate.sprites import LONGEST, MARGIN, Sprite, draw_bead, draw_cell

BLOCK_FRAMES = 256
"""Number of frames in a block with its own random numbers, so that frames can be rendered in any order."""

STREAM_SPRITES, STREAM_FLOW, STREAM_BACKGROUND, STREAM_NOISE, STREAM_FIBRES = range(5)
"""Purposes of random numbers, each with its own stream."""

SPRITES = {"bead": 64, "cell": 192}
"""Number of different sprites of each kind."""

KIND_WEIGHTS = {"bead": 0.2, "cell": 0.65, "doublet": 0.1, "border": 0.05}

FLOW_SPEED = 0.22
"""Speed of the cells in the middle of a 20 µm channel at 0.06 µL/s [m/s]."""

APART = 10.0
"""Distance below which two cells are not isolated, because their halos and dark rims may overlap [px]."""

CHANNEL_ROWS = (0.15, 0.85)
"""Range of the height of a frame without walls and their fringes, as fractions."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One cell in one frame, as it was drawn; the coordinates of the first pixel's centre are 0."""

    frame: int
    x: float
    """Centroid of the outline [px]."""
    y: float
    width: float
    """Bounding box of the outline [px]."""
    height: float
    kind: str
    isolated: bool
    """Whether no other cell is near, including the other one of a doublet."""
    inside: bool
    """Whether the whole outline is inside the frame and does not touch its edges."""


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """A cell in a frame together with its sprite."""

    cell: Cell
    sprite: Sprite
    left: int
    """Column of the sprite's first pixel; may be negative."""
    top: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Traveller:
    """A moving cell, whose centre passes `entry` [px] at `time` [frames]."""

    time: float
    entry: float
    y: float
    kind: str
    sprite: Sprite


def random_stream(seed: int, purpose: int, block: int = 0) -> np.random.Generator:
    """Return the random number generator for one purpose and block; blocks start at -1."""
    return np.random.default_rng([seed, purpose, block + 1])


@functools.lru_cache(maxsize=4)
def draw_sprites(scale: float) -> dict[str, list[Sprite]]:
    """Draw the sprites for all measurements of one scale; the seed of a measurement selects from them."""
    rng = random_stream(0, STREAM_SPRITES)
    return {
        "bead": [draw_bead(rng, scale) for _ in range(SPRITES["bead"])],
        "cell": [draw_cell(rng, scale) for _ in range(SPRITES["cell"])],
    }


class Flow:
    """Cells that pass the camera at the speed of the flow, in chronological order.

    Parameters
    ----------
    spec
        The measurement.
    """

    def __init__(self, spec: MeasurementSpec) -> None:
        self.spec = spec
        height, width = spec.size
        self.scale = float(np.clip(min(height / 80, width / 160), 0.55, 1.0))
        physical = FLOW_SPEED / spec.rate / (spec.pixel_size * 1e-6)
        # slower cells would become part of the background, faster ones would appear in no frame
        self.speed = float(np.clip(physical, 0.2 * width, 1.5 * width))
        self._reach = self.scale * LONGEST + 2 * MARGIN
        self._sprites = draw_sprites(self.scale)
        self._travellers = functools.lru_cache(maxsize=4)(self._draw_travellers)

    def placements(self, block: int) -> list[Placement]:
        """Return the cells in the frames of a block, in order of frames."""
        found = [
            placement
            for arrival_block in (block - 1, block)
            for traveller in self._travellers(arrival_block)
            for placement in self._follow(traveller, block)
        ]
        found.sort(key=lambda placement: placement.cell.frame)
        return _mark_neighbours(found)

    def _draw_travellers(self, block: int) -> list[_Traveller]:
        """Return the cells that enter during a block."""
        rng = random_stream(self.spec.seed, STREAM_FLOW, block)
        kinds = self.spec.kinds
        weights = np.array([KIND_WEIGHTS[kind] for kind in kinds])
        weights /= weights.sum()
        cells_per_arrival = 1 + (weights[kinds.index("doublet")] if "doublet" in kinds else 0.0)
        expected = self.spec.density * self.speed / (self.spec.size[1] * cells_per_arrival) * BLOCK_FRAMES
        count = rng.poisson(expected)
        times = np.sort(rng.uniform(0, BLOCK_FRAMES, count)) + block * BLOCK_FRAMES
        chosen = rng.choice(len(kinds), count, p=weights)
        travellers: list[_Traveller] = []
        for time, kind_index in zip(times, chosen, strict=True):
            travellers.extend(self._enter(rng, float(time), kinds[kind_index]))
        # The same random numbers are drawn for a channel that clogs and one that does not.
        last = self.spec.clog_at * self.spec.frames if self.spec.clog_at < 1 else math.inf
        return [traveller for traveller in travellers if traveller.time < last]

    def _enter(self, rng: np.random.Generator, time: float, kind: str) -> list[_Traveller]:
        """Return one cell, or two that touch, entering the frame from the left."""
        first = self._choose(rng, kind)
        entry = -self._reach
        if kind == "border":
            # the cell is at the left edge in the first frame after it entered
            entry = rng.uniform(-0.4, 0.4) * first.width - self.speed * (np.ceil(time) - time)
        y = self._height_in_channel(rng, first)
        travellers = [_Traveller(time, entry, y, kind, first)]
        if kind == "doublet":
            second = self._choose(rng, kind)
            offset = (first.width + second.width) / 2 - 1.5
            y = float(np.clip(y + rng.uniform(-2, 2), *self._allowed_heights(second)))
            travellers.append(_Traveller(time, entry - offset, y, kind, second))
        return travellers

    def _choose(self, rng: np.random.Generator, kind: str) -> Sprite:
        sprites = self._sprites["bead" if kind == "bead" else "cell"]
        return sprites[int(rng.integers(len(sprites)))]

    def _allowed_heights(self, sprite: Sprite) -> tuple[float, float]:
        height = self.spec.size[0]
        return (CHANNEL_ROWS[0] * height + sprite.height / 2, CHANNEL_ROWS[1] * height - sprite.height / 2)

    def _height_in_channel(self, rng: np.random.Generator, sprite: Sprite) -> float:
        """Return a random row near the middle, where the sheath flow focuses the cells."""
        height = self.spec.size[0]
        return float(np.clip(rng.normal(0.51 * height, 0.05 * height), *self._allowed_heights(sprite)))

    def _follow(self, traveller: _Traveller, block: int) -> list[Placement]:
        """Return the positions of a cell in the frames of a block."""
        width = self.spec.size[1]
        sprite = traveller.sprite
        first = max(int(np.ceil(traveller.time)), block * BLOCK_FRAMES)
        seen = []
        for frame in range(first, (block + 1) * BLOCK_FRAMES):
            x = traveller.entry + self.speed * (frame - traveller.time)
            if x > width + self._reach:
                break
            left, top = round(x - sprite.x), round(traveller.y - sprite.y)
            centre_x, centre_y = left + sprite.x, top + sprite.y
            start, stop = centre_x - sprite.width / 2, centre_x + sprite.width / 2
            if stop < 0 or start > width - 1:
                continue
            inside = start >= 3 and stop <= width - 4
            cell = Cell(
                frame, centre_x, centre_y, sprite.width, sprite.height, traveller.kind,
                isolated=traveller.kind != "doublet", inside=inside,
            )  # fmt: skip
            seen.append(Placement(cell, sprite, left, top))
        return seen


def _mark_neighbours(placements: list[Placement]) -> list[Placement]:
    """Clear `isolated` where another cell of the same frame is near."""
    marked = []
    start = 0
    for stop in range(1, len(placements) + 1):
        if stop < len(placements) and placements[stop].cell.frame == placements[start].cell.frame:
            continue
        group = placements[start:stop]
        for placement in group:
            near = any(_are_near(placement.cell, other.cell) for other in group if other is not placement)
            if near:
                cell = dataclasses.replace(placement.cell, isolated=False)
                marked.append(dataclasses.replace(placement, cell=cell))
            else:
                marked.append(placement)
        start = stop
    return marked


def _are_near(one: Cell, other: Cell) -> bool:
    return (
        abs(one.x - other.x) < (one.width + other.width) / 2 + APART
        and abs(one.y - other.y) < (one.height + other.height) / 2 + APART
    )
