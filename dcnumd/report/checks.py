"""The traffic light of a report: checks, each with a value, a limit, and a sentence with the cure."""

from __future__ import annotations

from collections.abc import Sequence

from dcnumd.config.values import ReportLimits
from dcnumd.report.check import Check, Observations
from dcnumd.report.checks_events import (
    border_cells,
    clogging,
    few_events,
    interrupted,
    masks_dropped,
    ragged_contours,
)
from dcnumd.report.checks_light import background_drift, flicker, saturated, too_bright, too_dark
from dcnumd.report.request import Light

__all__ = ["Check", "Observations", "judge", "light_of"]


def judge(seen: Observations, limits: ReportLimits) -> tuple[Check, ...]:
    """Make all ten checks; an interrupted recording has a further one."""
    return (
        *interrupted(seen),
        few_events(seen, limits),
        clogging(seen, limits),
        flicker(seen, limits),
        background_drift(seen, limits),
        too_dark(seen, limits),
        too_bright(seen, limits),
        saturated(seen, limits),
        border_cells(seen, limits),
        ragged_contours(seen, limits),
        masks_dropped(seen, limits),
    )


def light_of(checks: Sequence[Check]) -> Light:
    """Return the colour of the traffic light; grey if nothing but the number of events could be judged."""
    states = {check.state for check in checks}
    if "alarm" in states:
        return "red"
    if "warning" in states:
        return "yellow"
    known = [check for check in checks if check.state != "unknown" and check.name not in {"no_events", "few_events"}]
    return "green" if known else "grey"
