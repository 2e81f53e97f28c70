"""What a report of a measurement that is being recorded is made of; one process collects it, another one draws it."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class LiveValues:
    """Values of a measurement that is being recorded.

    Attributes
    ----------
    features
        Values of the latest events (float64 of shape (event,)), by the name of the feature.
    time
        Time of these events since the first frame [s].
    events
        Number of all events so far.
    seconds
        Time from the first to the last frame that was processed [s].
    events_per_second
        Number of events in each full second (float64 of shape (second,)); NaN where it is not known.
    brightness
        Brightness of the background in each full second [grey levels], of the same shape; NaN where it is not known.
    masks_dropped
        Number of masks without a contour.
    border_events
        Number of events at the edge of their frame, which cuts the cell; None if it is not known.
    channel_width
        Width of the channel [µm]; None if it is not known.
    """

    features: dict[str, Values]
    time: Values
    events: int
    seconds: float
    events_per_second: Values
    brightness: Values
    masks_dropped: int | None = None
    border_events: int | None = None
    channel_width: float | None = None
