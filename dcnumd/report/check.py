"""What the checks of a report judge, what they say, and how they say it."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import numpy.typing as npt

State = Literal["ok", "warning", "alarm", "unknown"]


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check.

    Attributes
    ----------
    name
        Stable name, such as ``few_events``.
    state
        Outcome; ``unknown`` if the data do not suffice.
    value, limit
        Measured value, and the value from which on the check warns, both in `unit`; None if not known.
    text
        Outcome and cure in words, for the operator.
    """

    name: str
    state: State
    value: float | None
    limit: float | None
    unit: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Observations:
    """The values that the checks judge; None for a value that is not known.

    Attributes
    ----------
    events
        Number of events.
    online_events
        Number of events that the instrument measured.
    threshold
        Threshold of the segmenter ``thresh`` [grey levels].
    darkest
        Deviation of the darkest spot of each sampled frame from the background [grey levels].
    masks_dropped
        Number of masks without a contour.
    ragged
        Number of events with a porosity above ``report.limits.max_area_ratio``.
    flicker
        Standard deviation of the frames' brightness from its slow changes [grey levels].
    background
        Brightness of the background in successive intervals of time [grey levels].
    saturated
        Share of pixels with the largest value that can be stored.
    cells, border_cells
        Number of cells in the sampled frames, and number of those that touch the edge.
    event_times
        Time of each event since the start of the recording [s].
    duration
        Duration of the recording [s].
    interrupted_after
        Number of frames after which the recording was interrupted; None if it was not.
    """

    events: int
    online_events: int | None = None
    threshold: float | None = None
    darkest: tuple[float, ...] = ()
    masks_dropped: int | None = None
    ragged: int | None = None
    flicker: float | None = None
    background: tuple[float, ...] = ()
    saturated: float | None = None
    cells: int | None = None
    border_cells: int | None = None
    event_times: npt.NDArray[np.float64] | None = None
    duration: float | None = None
    interrupted_after: int | None = None


def unknown(name: str, limit: float, unit: str, text: str) -> Check:
    """Return the outcome of a check whose value is not known."""
    return Check(name, "unknown", None, float(limit), unit, text)


def above(name: str, value: float, most: float, unit: str, text: str) -> Check:
    """Return the outcome of a check that warns of values above a limit."""
    return Check(name, "warning" if value > most else "ok", value, most, unit, text)
