"""Contour lines of the density in a scatter plot, which enclose given shares of the events."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from skimage.measure import find_contours

Floats = npt.NDArray[np.float64]

SHARES = (0.95, 0.5)
"""Shares of the events that contour lines enclose, from the outer to the inner line."""
FEWEST_EVENTS = 100
"""Smallest number of events for contour lines; the density of fewer follows single events."""
STEP = 2
"""Number of points of an exact contour for each point that is drawn; about two points lie in one cell of the grid."""


@dataclasses.dataclass(frozen=True, slots=True)
class Contour:
    """The line, which may have several parts, that encloses a share of the events.

    Attributes
    ----------
    share
        Share of the events, from 0 to 1.
    parts
        Points of each part, as positions between the ends of both axes (x, y, from 0 to 1), of shape (point, 2).
    """

    share: float
    parts: tuple[Floats, ...]


def enclosing(grid: Floats, densities: Floats, events: int) -> tuple[Contour, ...]:
    """Return the contour lines for all `SHARES` that exist; none if there are too few events.

    Parameters
    ----------
    grid
        Density in the cells of a grid over the plot, of shape (x, y).
    densities
        Density at each event within the plot, of shape (event,).
    events
        Number of all events, including those outside of the plot, whose density counts as 0.
    """
    if events < FEWEST_EVENTS:
        return ()
    # Outside of the plot, there is nothing to enclose; so lines that reach an axis are closed there.
    padded = np.pad(grid, 1)
    ordered = np.sort(densities)[::-1]
    contours = []
    for share in SHARES:
        rank = int(np.ceil(share * events)) - 1
        if rank < ordered.size and ordered[rank] > 0:
            found = find_contours(padded, ordered[rank])  # type: ignore[no-untyped-call]
            parts = [(np.concatenate([part[:-1:STEP], part[-1:]]) - 0.5) / grid.shape for part in found]
            if parts:
                contours.append(Contour(share, tuple(np.clip(part, 0.0, 1.0) for part in parts)))
    return tuple(contours)
