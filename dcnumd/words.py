"""Durations as text, in the same form for the live page, reports, messages and commands."""

from __future__ import annotations

import math

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
