"""Sprites: pictures of single cells, as differences from the brightness of the channel."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatImage: TypeAlias = npt.NDArray[np.float64]
"""Values on the fine grid or on the pixel grid, (y, x)."""

OVERSAMPLING = 2
"""Number of points of the fine grid per pixel and axis."""

MARGIN = 9
"""Width of the margin around the outline for the halo [px]."""

LONGEST = 60.0
"""Length of the longest cell in a frame of 80 rows [px]."""

CHANNEL_BRIGHTNESS = 147.0
"""Brightness in the middle of the channel [grey levels], as in measurements with CytoShot."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sprite:
    """Picture of one cell; coordinates are relative to the first pixel of the sprite."""

    brightness: npt.NDArray[np.float32]
    """Brightness to add to the background [grey levels], (y, x)."""
    noise: npt.NDArray[np.float32]
    """Factor for the shot noise, which is proportional to the square root of the brightness, (y, x)."""
    x: float
    """Centroid of the outline [px]."""
    y: float
    width: float
    """Bounding box of the outline [px]."""
    height: float


@dataclasses.dataclass(frozen=True, slots=True)
class _Optics:
    """Parameters of the brightness by the distance to the outline [grey levels]."""

    rim: float
    """Depth of the dark rim."""
    body: float
    """Darkness of the inside."""
    halo: float
    """Brightness of the fringe around the cell."""
    texture: float
    """Standard deviation of the structure inside."""
    lens: float
    """Brightness of the focus in the centre, for beads."""


def draw_bead(rng: np.random.Generator, scale: float) -> Sprite:
    """Draw a round bead: dark ring, bright centre, halo.

    Parameters
    ----------
    rng
        Random number generator for radius and contrast.
    scale
        Size relative to a frame of 80 rows.
    """
    radius = scale * rng.uniform(6.0, 9.0)
    x, y = _grid(2 * radius, 2 * radius, rng)
    optics = _Optics(rim=rng.uniform(50, 70), body=4.0, halo=rng.uniform(12, 20), texture=0.0, lens=rng.uniform(35, 55))
    return _render(np.hypot(x, y) < radius, optics, rng)


def draw_cell(rng: np.random.Generator, scale: float) -> Sprite:
    """Draw a cell that the flow along +x has deformed to the shape of a bullet or a drop, with texture and halo.

    Parameters
    ----------
    rng
        Random number generator for shape, contrast and texture.
    scale
        Size relative to a frame of 80 rows.
    """
    size = scale * rng.uniform(0.85, 1.15)
    stretch = rng.uniform(32.0, LONGEST / 1.15)
    length = size * stretch
    # the volume is constant, so longer cells are thinner
    height = size * float(np.clip(rng.normal(17.0, 1.6) * np.sqrt(44.0 / stretch), 12.0, 22.0))
    x, y = _grid(length, height, rng)
    along = np.clip(x / length + 0.5, 0.0, 1.0)
    tail, front = rng.uniform(0.5, 0.85), rng.uniform(0.42, 0.55)
    widest = tail / (tail + front)
    half_height = along**tail * (1 - along) ** front / (widest**tail * (1 - widest) ** front) * height / 2
    dark = rng.random() < 0.4
    optics = _Optics(
        rim=rng.uniform(15, 30) if dark else rng.uniform(30, 50),
        body=rng.uniform(25, 45) if dark else rng.uniform(8, 18),
        halo=rng.uniform(8, 18),
        texture=rng.uniform(2.0, 7.0),
        lens=0.0,
    )
    return _render(np.abs(y) < half_height, optics, rng)


def _grid(width: float, height: float, rng: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """Return x and y coordinates [px] of the fine grid around a centre at a random position in a pixel."""
    columns, rows = (2 * (int(np.ceil(extent / 2)) + MARGIN) + 1 for extent in (width, height))
    shift_x, shift_y = rng.uniform(-0.5, 0.5, 2)
    x = (np.arange(columns * OVERSAMPLING) + 0.5) / OVERSAMPLING - columns / 2 - shift_x
    y = (np.arange(rows * OVERSAMPLING) + 0.5) / OVERSAMPLING - rows / 2 - shift_y
    fine_x, fine_y = np.meshgrid(x, y)
    return fine_x, fine_y


def _render(inside: npt.NDArray[np.bool_], optics: _Optics, rng: np.random.Generator) -> Sprite:
    """Return the sprite for an outline on the fine grid."""
    distance = (ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)) / OVERSAMPLING
    brightness = (
        -optics.rim * np.exp(-0.5 * ((distance + 1.5) / 1.0) ** 2)
        - optics.body / (1 + np.exp(np.clip(distance / 0.5, -50, 50)))
        + optics.halo * np.exp(-0.5 * ((distance - 3.0) / 1.6) ** 2)
    )
    if optics.texture:
        grain = ndimage.gaussian_filter(rng.standard_normal(inside.shape), 1.2 * OVERSAMPLING)
        brightness += optics.texture / grain.std() * grain * (distance < -2.0)
    if optics.lens:
        depth = -distance.min()
        brightness += optics.lens * np.exp(-0.5 * ((distance + depth) / (0.35 * depth)) ** 2)
    fine_y, fine_x = np.nonzero(inside)
    coarse = _average(brightness)
    return Sprite(
        brightness=coarse.astype(np.float32),
        noise=np.sqrt(np.clip(1 + coarse / CHANNEL_BRIGHTNESS, 0.2, 2.0)).astype(np.float32),
        x=float((fine_x.mean() + 0.5) / OVERSAMPLING - 0.5),
        y=float((fine_y.mean() + 0.5) / OVERSAMPLING - 0.5),
        width=(int(fine_x.max()) - int(fine_x.min()) + 1) / OVERSAMPLING,
        height=(int(fine_y.max()) - int(fine_y.min()) + 1) / OVERSAMPLING,
    )


def _average(fine: FloatImage) -> FloatImage:
    """Average the fine grid over each pixel."""
    rows, columns = (extent // OVERSAMPLING for extent in fine.shape)
    averaged: FloatImage = fine.reshape(rows, OVERSAMPLING, columns, OVERSAMPLING).mean(axis=(1, 3))
    return averaged
