"""Durations and names of files as text, in the same form for the live page, reports, messages and commands."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable

UNKNOWN = "\N{EN DASH}"
"""Text in place of an unknown value."""


def duration(seconds: float | None) -> str:
    """Return a duration in seconds as text, such as ``2.9 s``, ``3:07 min``, ``1:20 h`` or ``5 d``."""
    return " ".join(duration_parts(seconds)).rstrip()


def duration_parts(seconds: float | None) -> tuple[str, str]:
    """Return the number and the unit of the text that `duration` returns; the unit of an unknown value is empty."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN, ""
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0"), "s"
    if (whole := round(seconds)) < 120:
        return f"{whole}", "s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}", "min"
    if (minutes := round(seconds / 60)) < 48 * 60:
        return f"{minutes // 60}:{minutes % 60:02}", "h"
    return f"{round(seconds / 86400)}", "d"


def distinct_names(paths: Iterable[str]) -> dict[str, str]:
    """Return a name for each path: its last part, after as many of its folders as distinguish it from the other paths.

    Parameters
    ----------
    paths
        Paths with ``/`` between their parts. If one is the end of another one, the shorter one is its own name.

    Returns
    -------
    names
        The name of each path, such as ``2026-11-21/M001_data.rtdc``, or ``M001_data.rtdc`` if no other path ends so.
    """
    names: dict[str, str] = {}
    # Each path with the position at which its name begins, as long as another one may have the same name.
    starts = {path: len(path) for path in paths}
    while starts:
        starts = {path: path.rfind("/", 0, max(0, start - 1)) + 1 for path, start in starts.items()}
        numbers = collections.Counter(path[start:] for path, start in starts.items())
        found = {path: path[start:] for path, start in starts.items() if not start or numbers[path[start:]] == 1}
        names |= found
        starts = {path: start for path, start in starts.items() if path not in found}
    return names
