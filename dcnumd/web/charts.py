"""Small line charts of the live page, as the points of a drawing with a fixed size."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Self

from dcnumd.status import Course

WIDTH, HEIGHT = 240.0, 56.0
"""Size of the drawing."""
MARGIN = 2.0
"""Space for the width of the line at each edge."""
GAP = 1.5
"""Smallest distance between two values that are not connected [usual distances]."""


@dataclasses.dataclass(frozen=True, slots=True)
class Chart:
    """A quantity over time."""

    lines: tuple[str, ...]
    """Points of each connected part, as the attribute ``points`` of a polyline."""
    low: float
    high: float
    """Smallest and largest value."""
    last: float

    @classmethod
    def of(cls, course: Course, *, from_zero: bool, least: float) -> Self | None:
        """Return the chart of a course; None if it has fewer than two values.

        Parameters
        ----------
        course
            Times and values.
        from_zero
            Whether the vertical axis begins at zero.
        least
            Smallest range of the vertical axis, so that noise does not look like a change.
        """
        if len(course.values) < 2:
            return None
        low, high = min(course.values), max(course.values)
        bottom = 0.0 if from_zero else (low + high) / 2 - max(high - low, least) / 2
        top = bottom + max(high - bottom, least)
        first, last = course.time_s[0], course.time_s[-1]
        across, up = (WIDTH - 2 * MARGIN) / (last - first), (HEIGHT - 2 * MARGIN) / (top - bottom)
        lines = tuple(
            " ".join(
                f"{MARGIN + across * (time - first):.1f},{HEIGHT - MARGIN - up * (value - bottom):.1f}"
                for time, value in part
            )
            for part in _parts(course)
        )
        return cls(lines, low, high, course.values[-1])


def _parts(course: Course) -> Iterator[list[tuple[float, float]]]:
    """Yield the points of each part of a course without a missing value."""
    points = list(zip(course.time_s, course.values, strict=True))
    step = min(later - earlier for (earlier, _), (later, _) in itertools.pairwise(points))
    part = points[:1]
    for point in points[1:]:
        if point[0] - part[-1][0] > GAP * step:
            yield part
            part = []
        part.append(point)
    yield part
