"""Judges and draws a measurement while it is recorded, with the checks and the plot of its later report."""

from __future__ import annotations

import pickle

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dcnumd.report import scatter
from dcnumd.report.axes import standard_limits
from dcnumd.report.checks import Check, Observations, judge, light_of
from dcnumd.report.cloud import cloud
from dcnumd.report.features import label_of
from dcnumd.report.live_values import LiveValues, Values
from dcnumd.report.page import with_unit
from dcnumd.report.request import PAIR, LiveReport, LiveReportRequest
from dcnumd.report.timeline import (
    COURSE_FRAMES,
    EVENTS_PER_INTERVAL,
    FEWEST_INTERVALS,
    FEWEST_OFFSETS,
    MOST_INTERVALS,
)
from dcnumd.report.wording import inner
from dcnumd.status import Course

EARLY_SECONDS = 10.0
"""Time at the beginning of a recording in which missing events are no cause for alarm [s]."""
RECENT_SECONDS = 3
"""Number of the last seconds whose event rate is shown."""
DECIMALS = 2
"""Decimals of the values in courses."""


def summarize(packed: bytes, request: LiveReportRequest) -> LiveReport:
    """Judge a measurement that is being recorded, and draw its latest events.

    Parameters
    ----------
    packed
        Its `LiveValues`, pickled, as another process of dcnumd has collected them.
    request
        What is wanted.
    """
    values = pickle.loads(packed)  # noqa: S301 -- a process of our own made it
    assert isinstance(values, LiveValues)
    checks = _checks(values, request)
    return LiveReport(
        light=light_of(checks),
        warnings=tuple((one.name, one.state, one.text) for one in checks if one.state in {"warning", "alarm"}),
        event_rate=_course(values.events_per_second),
        brightness=_course(values.brightness),
        events_per_second=_recent(values.events_per_second),
        plot=_picture(values, request) if request.draw else b"",
    )


def _checks(values: LiveValues, request: LiveReportRequest) -> tuple[Check, ...]:
    """Return the checks that make sense before the end of a recording.

    Few events are no fault as long as more are recorded. That there are none may be due to the flow, which needs some
    time after the start.
    """
    checks = judge(_observations(values, request.limits.max_area_ratio), request.limits)
    premature = {"few_events", *(["no_events"] if values.seconds < EARLY_SECONDS else [])}
    return tuple(check for check in checks if check.name not in premature)


def _observations(values: LiveValues, max_area_ratio: float) -> Observations:
    return Observations(
        events=values.events,
        masks_dropped=values.masks_dropped,
        ragged=_ragged(values, max_area_ratio),
        flicker=_flicker(values),
        background=_background(values),
        cells=values.events if values.border_events is not None else None,
        border_cells=values.border_events,
        event_times=_event_times(values.events_per_second),
        duration=float(values.events_per_second.size),
    )


def _ragged(values: LiveValues, most: float) -> int | None:
    """Return the number of ragged contours among all events, estimated from the latest ones; None if not known."""
    ratio = values.features.get("area_ratio")
    if ratio is None or not most:
        return None
    # As in the final report, a porosity that is NaN is not known to be small enough.
    share = 1 - np.count_nonzero(ratio <= most) / ratio.size if ratio.size else 0.0
    return round(values.events * share)


def _flicker(values: LiveValues) -> float | None:
    """Return the variation of the brightness from its slow changes [grey levels]; None if it is not known."""
    offset = values.features.get("bg_off")
    if offset is None:
        return None
    known = np.isfinite(offset)
    # All events of a frame have the same offset.
    _, first = np.unique(values.time[known], return_index=True)
    series = offset[known][first]
    if series.size < FEWEST_OFFSETS:
        return None
    return float(np.std(series - ndimage.median_filter(series, min(COURSE_FRAMES, series.size), mode="nearest")))


def _event_times(rates: Values) -> Values | None:
    """Return times of events [s] with the given numbers of events per second, evenly spread in each second.

    Seconds with an unknown rate get that of their neighbours, so that they do not look like a flow that stopped.
    """
    known = np.flatnonzero(np.isfinite(rates))
    if not known.size:
        return None
    counts = np.rint(np.interp(np.arange(rates.size), known, rates[known])).astype(np.int64)
    seconds = np.repeat(np.arange(counts.size), counts)
    place = np.arange(seconds.size) - np.repeat(np.cumsum(counts) - counts, counts)
    times: Values = seconds + (place + 0.5) / counts[seconds]
    return times


def _background(values: LiveValues) -> tuple[float, ...]:
    """Return the brightness of the background in intervals as long as those of the report [grey levels].

    In a single second, there may be too few events to tell a drift from noise.
    """
    intervals = int(np.clip(values.events // EVENTS_PER_INTERVAL, FEWEST_INTERVALS, MOST_INTERVALS))
    return _course(values.brightness, intervals).values


def _course(values: Values, intervals: int = MOST_INTERVALS) -> Course:
    """Return values of successive seconds as a course with a limited number of intervals of equal length."""
    width = max(1, -(-values.size // intervals))
    starts = np.arange(0, values.size, width)
    known = np.isfinite(values)
    if not known.any():
        return Course()
    sums = np.add.reduceat(np.where(known, values, 0.0), starts)
    counts = np.add.reduceat(known.astype(np.int64), starts)
    ends = np.minimum(starts + width, values.size)
    filled = counts > 0
    middle = ((starts + ends) / 2)[filled]
    return Course(tuple(middle.tolist()), tuple(np.round(sums[filled] / counts[filled], DECIMALS).tolist()))


def _recent(rates: Values) -> float | None:
    last = rates[-RECENT_SECONDS:]
    known: npt.NDArray[np.float64] = last[np.isfinite(last)]
    return round(float(known.mean()), DECIMALS) if known.size else None


def _picture(values: LiveValues, request: LiveReportRequest) -> bytes:
    """Return the standard plot of the latest events; empty if there is nothing to plot."""
    x, y = (values.features.get(name) for name in PAIR)
    if x is None or y is None:
        return b""
    points = cloud(x, y, standard_limits(request.plot, values.channel_width))
    if points is None:
        return b""
    labels = [with_unit(inner(label), unit) for label, unit in map(label_of, PAIR)]
    return scatter.picture(points, scatter.dots(points), (labels[0], labels[1]))
