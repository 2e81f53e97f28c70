"""Frames that are hard to measure, constructed systematically.

A `Picture` is a recipe: a shape, the objects in it, their grey values, a seed. `pictures` draws any recipe;
`every_special_picture` lets a test run on the known hard ones as well. A failing test prints the recipe, which can be
copied into an `example`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import example
from hypothesis import strategies as st
from scipy import ndimage

Mask = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

WIDTHS = (1, 2, 7, 8, 9, 63, 64, 65, 127, 128, 129)
"""Widths around multiples of a byte and of a 64-bit word [px]."""


def corners(mask: Mask, rng: np.random.Generator) -> None:
    """Draw a rectangle of random size into each corner."""
    for flipped in (mask, mask[:, ::-1], mask[::-1], mask[::-1, ::-1]):
        flipped[: rng.integers(1, 5), : rng.integers(1, 6)] = True


def borders(mask: Mask, rng: np.random.Generator) -> None:
    """Draw a bar from each of the four borders."""
    for side in (mask, mask[::-1], mask.T, mask.T[::-1]):
        at = side.shape[1] // 2
        side[: rng.integers(1, 5), at : at + rng.integers(1, 4)] = True


def rings(mask: Mask, rng: np.random.Generator) -> None:
    """Draw three nested thin rings around a dot: squares, diamonds whose pixels touch only at corners, or circles."""
    centre_y, centre_x = (rng.integers(min(10, size // 2), max(size - 10, size // 2 + 1)) for size in mask.shape)
    y, x = np.indices(mask.shape)
    dy, dx = np.abs(y - centre_y), np.abs(x - centre_x)
    distance = (np.maximum(dy, dx), dy + dx, np.round(np.hypot(dy, dx)))[rng.integers(3)]
    mask[distance <= 10] = False
    mask[(distance <= 9) & (distance % 3 == 0)] = True


def thick_rings(mask: Mask, rng: np.random.Generator) -> None:
    """Draw concentric ellipses of any thickness over the whole frame."""
    y, x = np.indices(mask.shape)
    centre_y, centre_x = rng.uniform(0, mask.shape)
    distance = np.hypot(y - centre_y, (x - centre_x) * rng.uniform(0.3, 1))
    mask |= np.abs(distance % rng.uniform(3, 12) - 2) < rng.uniform(0.4, 1.6)


def points(mask: Mask, rng: np.random.Generator) -> None:
    """Draw five objects of one pixel each."""
    mask[rng.integers(0, mask.shape[0], 5), rng.integers(0, mask.shape[1], 5)] = True


def horizontal_line(mask: Mask, rng: np.random.Generator) -> None:
    """Draw a line of one row."""
    start, stop = sorted(rng.integers(0, mask.shape[1] + 1, 2))
    mask[rng.integers(0, mask.shape[0]), start : stop + 1] = True


def vertical_line(mask: Mask, rng: np.random.Generator) -> None:
    """Draw a line of one column."""
    horizontal_line(mask.T, rng)


def diagonal_lines(mask: Mask, rng: np.random.Generator) -> None:
    """Draw a falling and a rising line."""
    for turned in (mask, mask[:, ::-1]):
        length = rng.integers(1, min(mask.shape) + 1)
        steps = np.arange(length)
        y, x = (rng.integers(0, size - length + 1) for size in mask.shape)
        turned[y + steps, x + steps] = True


def cells(mask: Mask, rng: np.random.Generator) -> None:
    """Draw filled ellipses, which resemble cells."""
    y, x = np.indices(mask.shape)
    for _ in range(rng.integers(1, 5)):
        centre_y, centre_x = rng.uniform(0, mask.shape)
        radius_y, radius_x = rng.uniform(1.5, 11, 2)
        mask |= np.hypot((y - centre_y) / radius_y, (x - centre_x) / radius_x) < 1


def boxes(mask: Mask, rng: np.random.Generator) -> None:
    """Draw filled and hollow rectangles, many of them at the edge."""
    for _ in range(rng.integers(1, 6)):
        top, bottom = sorted(rng.integers(0, mask.shape[0] + 1, 2))
        left, right = sorted(rng.integers(0, mask.shape[1] + 1, 2))
        mask[top:bottom, left:right] = True
        if rng.random() < 0.5:
            mask[top + 1 : bottom - 1, left + 1 : right - 1] = False


def blobs(mask: Mask, rng: np.random.Generator) -> None:
    """Draw smooth shapes with bays, holes and islands."""
    field = ndimage.gaussian_filter(rng.normal(size=mask.shape), rng.uniform(0.5, 5, 2))
    mask |= field > field.std() * rng.uniform(-1, 1.5)


def noise(mask: Mask, rng: np.random.Generator) -> None:
    """Set each pixel with some probability."""
    mask |= rng.random(mask.shape) < rng.choice([0.01, 0.1, 0.3, 0.5, 0.6, 0.8, 0.97])


def comb(mask: Mask, rng: np.random.Generator) -> None:
    """Draw columns that only the last row joins, so that many components are merged late."""
    start = rng.integers(0, 2)
    mask[:, start::2] = True
    mask[-1, start:] = True


def checkerboard(mask: Mask, rng: np.random.Generator) -> None:
    """Draw a checkerboard, whose pixels touch only at corners."""
    y, x = np.indices(mask.shape)
    mask |= (y + x) % 2 == rng.integers(0, 2)


def full(mask: Mask, rng: np.random.Generator) -> None:
    """Fill the frame with foreground."""
    mask[:] = True


def gaps(mask: Mask, rng: np.random.Generator) -> None:
    """Remove a few pixels."""
    mask &= rng.random(mask.shape) >= rng.choice([0.005, 0.02, 0.1])


INGREDIENTS: dict[str, Callable[[Mask, np.random.Generator], None]] = {
    draw.__name__: draw
    for draw in (
        full,
        blobs,
        noise,
        boxes,
        thick_rings,
        comb,
        checkerboard,
        cells,
        gaps,
        rings,
        points,
        horizontal_line,
        vertical_line,
        diagonal_lines,
        corners,
        borders,
    )
}
GREYS = ("dark", "flat", "wild", "extreme")


@dataclasses.dataclass(frozen=True)
class Picture:
    """A recipe for one frame, its background and its mask; equal recipes give equal pixels."""

    height: int
    """Height of the frame [px]."""
    width: int
    """Width of the frame [px]."""
    ingredients: tuple[str, ...] = ()
    """Keys of `INGREDIENTS`, drawn in this order; an empty tuple gives an empty frame."""
    grey: str = "dark"
    """Grey values, one of `GREYS`.

    ``dark`` resembles a usual measurement, ``flat`` has one grey value inside the mask, ``wild`` has random bytes, and
    ``extreme`` alternates between differences to the background of -255 and 255, whose range exceeds a byte.
    """
    seed: int = 0

    @functools.cached_property
    def mask(self) -> Mask:
        """Mask of the objects, bool (y, x)."""
        mask = np.zeros((self.height, self.width), bool)
        rng = np.random.default_rng(self.seed)
        for name in self.ingredients:
            INGREDIENTS[name](mask, rng)
        return mask

    @functools.cached_property
    def background(self) -> Bytes:
        """Background image, uint8 (y, x)."""
        return self._grey_values[1]

    @functools.cached_property
    def image(self) -> Bytes:
        """Frame, uint8 (y, x)."""
        return self._grey_values[0]

    @property
    def corrected(self) -> npt.NDArray[np.int16]:
        """Frame minus background, int16 (y, x)."""
        return self.image.astype(np.int16) - self.background

    @functools.cached_property
    def labels(self) -> npt.NDArray[np.uint16]:
        """The 8-connected components, uint16 (y, x)."""
        return ndimage.label(self.mask, np.ones((3, 3)))[0].astype(np.uint16)

    @functools.cached_property
    def _grey_values(self) -> tuple[Bytes, Bytes]:
        shape = self.height, self.width
        rng = np.random.default_rng(self.seed + 1)
        if self.grey == "dark":
            background = rng.integers(100, 107, shape)
            image = background + rng.integers(-5, 6, shape) - 20 * self.mask
        elif self.grey == "flat":
            background = np.full(shape, 100)
            image = np.where(self.mask, 90, 101)
        elif self.grey == "wild":
            image, background = rng.integers(0, 256, (2, *shape))
        else:
            image = np.indices(shape).sum(axis=0) % 2 * 255
            background = 255 - image
        return image.astype(np.uint8), background.astype(np.uint8)


def pictures(
    *, heights: st.SearchStrategy[int] | None = None, widths: st.SearchStrategy[int] | None = None
) -> st.SearchStrategy[Picture]:
    """Draw any picture of up to 50 rows and 200 columns; frames of a single row or column are frequent."""
    ingredients = st.lists(st.sampled_from(tuple(INGREDIENTS)), max_size=4, unique=True)
    return st.builds(
        Picture,
        height=st.integers(1, 8) | st.integers(1, 50) if heights is None else heights,
        width=st.sampled_from(WIDTHS) | st.integers(1, 200) if widths is None else widths,
        ingredients=ingredients.map(tuple),
        grey=st.sampled_from(GREYS),
        seed=st.integers(0, 2**32 - 2),
    )


@st.composite
def mask_stacks(draw: st.DrawFn, least_height: int = 1) -> npt.NDArray[np.bool_]:
    """Draw the masks of two pictures of the same size, bool (2, y, x)."""
    heights = st.integers(least_height, 8) | st.integers(least_height, 50)
    first = draw(pictures(heights=heights))
    second = draw(pictures(heights=st.just(first.height), widths=st.just(first.width)))
    return np.array([first.mask, second.mask])


def _special_pictures() -> tuple[Picture, ...]:
    everything = ("cells", "rings", "points", "horizontal_line", "vertical_line", "diagonal_lines", "corners")
    kinds = ((), ("full",), ("comb",), ("checkerboard",), ("borders", "corners"), (*everything, "borders"))
    greys = itertools.cycle(GREYS)
    shapes = [
        *((31, width) for width in WIDTHS),
        *((height, 65) for height in (1, 2, 3)),
        *((height, 1) for height in (1, 2)),
    ]
    mixed = (Picture(*shape, kind, next(greys)) for shape in shapes for kind in kinds)
    # Each ingredient alone with all grey values, in frames that are large enough for complete rings.
    alone = (Picture(33, 70, (name,), grey, seed=3) for name in INGREDIENTS for grey in GREYS)
    # Nested squares, diamonds and circles.
    nested = (Picture(30, width, ("rings",), "wild", seed) for width in (65, 129) for seed in range(6))
    return (*mixed, *alone, *nested)


SPECIAL_PICTURES = _special_pictures()
"""Frames that every test has to cover: all kinds of objects, all special widths, empty, full, of one row or column."""


def every_special_picture(**others: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that makes a hypothesis test also run on all `SPECIAL_PICTURES`.

    The test gets each picture as its parameter `picture`. Further parameters cycle through the values given here.
    """

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        cycles = {name: itertools.cycle(values) for name, values in others.items()}
        for picture in SPECIAL_PICTURES:
            test = example(picture=picture, **{name: next(cycle) for name, cycle in cycles.items()})(test)
        return test

    return decorate


def pack_bits(mask: Mask, guard: int = 1) -> tuple[npt.NDArray[np.uint64], int, int, np.uint64]:
    """Return a mask as bit image for the kernels, its words per row, its stride, and the mask of its last word."""
    height, width = mask.shape
    words = (width + 63) // 64
    padded = np.zeros((height + 2, (words + guard) * 64), bool)
    padded[1:-1, :width] = mask
    bits = np.packbits(padded, axis=1, bitorder="little").view(np.uint64).ravel()
    return bits, words, words + guard, np.uint64(0xFFFF_FFFF_FFFF_FFFF) >> np.uint64(64 * words - width)


def unpack_bits(bits: npt.NDArray[np.uint64], shape: tuple[int, int]) -> Mask:
    """Return the mask of a bit image, and check that the bits outside of the frame are 0."""
    padded = np.unpackbits(bits.view(np.uint8).reshape(shape[0] + 2, -1), axis=1, bitorder="little")
    mask = padded[1:-1, : shape[1]].astype(bool)
    assert np.count_nonzero(padded) == np.count_nonzero(mask), "a kernel has left something outside of the frame"
    return mask
