"""Scale bars of pictures: a round length that suits the width of a picture."""

from __future__ import annotations

import math
from typing import NamedTuple

LARGEST_SHARE = 0.35
"""Largest length of a bar, as a share of the width of its picture."""
LENGTHS_UM = (0.1, 1000.0)
"""Shortest and longest bar; others would mean that the pixel size is a mistake [µm]."""


class ScaleBar(NamedTuple):
    """A bar that stands for a length."""

    length_um: float
    """Length in the object: 1, 2 or 5 times a power of ten [µm]."""
    share: float
    """Length in the picture, as a share of its width."""

    @property
    def label(self) -> str:
        """The length as text."""
        return f"{self.length_um:g} µm"


def scale_bar(width: int, pixel_size_um: float | None) -> ScaleBar | None:
    """Return the bar for a picture; None if the pixel size is not known.

    Parameters
    ----------
    width
        Width of the picture [px].
    pixel_size_um
        Size of a pixel in the object [µm].
    """
    if not pixel_size_um or width <= 0:
        return None
    largest = LARGEST_SHARE * width * pixel_size_um
    if not LENGTHS_UM[0] <= largest <= LENGTHS_UM[1]:
        return None
    power = 10.0 ** math.floor(math.log10(largest))
    length = max(factor * power for factor in (1, 2, 5) if factor * power <= largest or factor == 1)
    return ScaleBar(length, length / (width * pixel_size_um))
