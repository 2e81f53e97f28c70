"""The nine checks behind the traffic light of a report, each with a value, a limit, and a sentence with the cure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from dcnumd.config.values import ReportLimits
from dcnumd.report.request import Light

State = Literal["ok", "warning", "alarm", "unknown"]

BLACK, WHITE = 10.0, 250.0
"""Brightness below or above which a background shows nothing [grey levels]."""
MOSTLY_SATURATED = 0.5
"""Share of saturated pixels above which the images are useless."""
FEWEST_FOR_RATE = 60
"""Smallest number of events from which changes of the event rate can be judged."""
FEWEST_CELLS = 20
"""Smallest number of cells in the sampled frames from which the share at the border can be judged."""
END_SHARE = 0.1
"""Share of the duration of a recording that counts as its end."""
SILENT_SHARE = 0.25
"""Share of the duration, at the end and without any event, above which the channel counts as clogged."""


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
    masks_dropped
        Number of masks without a contour.
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
    """

    events: int
    masks_dropped: int | None = None
    flicker: float | None = None
    background: tuple[float, ...] = ()
    saturated: float | None = None
    cells: int | None = None
    border_cells: int | None = None
    event_times: npt.NDArray[np.float64] | None = None
    duration: float | None = None


def judge(seen: Observations, limits: ReportLimits) -> tuple[Check, ...]:
    """Make all nine checks."""
    return (
        _few_events(seen, limits),
        _clogging(seen, limits),
        _flicker(seen, limits),
        _background_drift(seen, limits),
        _too_dark(seen, limits),
        _too_bright(seen, limits),
        _saturated(seen, limits),
        _border_cells(seen, limits),
        _masks_dropped(seen, limits),
    )


def light_of(checks: Sequence[Check]) -> Light:
    """Return the colour of the traffic light; grey if nothing but the number of events could be judged."""
    states = {check.state for check in checks}
    if "alarm" in states:
        return "red"
    if "warning" in states:
        return "yellow"
    known = [check for check in checks if check.state != "unknown" and check.name != "few_events"]
    return "green" if known else "grey"


def _few_events(seen: Observations, limits: ReportLimits) -> Check:
    count, least = seen.events, limits.min_events
    state: State = "ok"
    text = f"{_count(count, 'event')} found."
    if not count:
        state = "alarm"
        text = (
            "No events were found. Check that cells flow through the region in view, and that focus, illumination and "
            "the segmenter's threshold fit."
        )
    elif count < least:
        state = "warning"
        text = (
            f"Only {_count(count, 'event')} found, expected at least {least:,}. Record for longer, or check flow and "
            "concentration of the sample."
        )
    return Check("few_events", state, float(count), float(least), "events", text)


def _flicker(seen: Observations, limits: ReportLimits) -> Check:
    value, most = seen.flicker, limits.max_flicker
    if value is None:
        return _unknown("flicker", most, "grey levels", "Whether the light flickers is not known: too few frames.")
    text = f"The light is steady: {value:.2f} grey levels from frame to frame."
    if value > most:
        text = (
            f"The light flickers by {value:.2f} grey levels from frame to frame, more than {_short(most)}. Check the "
            "lamp and its trigger; keep the offset correction of the background on."
        )
    return _above("flicker", value, most, "grey levels", text)


def _masks_dropped(seen: Observations, limits: ReportLimits) -> Check:
    dropped, most = seen.masks_dropped, limits.max_masks_dropped
    masks = seen.events + (dropped or 0)
    if dropped is None or not masks:
        why = "there are none." if dropped is not None else "the logs do not say."
        return _unknown("masks_dropped", most, "1", f"How many masks were dropped cannot be judged: {why}")
    share = dropped / masks
    text = f"{_percent(share)} of the masks had no contour and were dropped."
    if share > most:
        text = (
            f"{_percent(share)} of the masks had no contour and were dropped, more than {_percent(most)}. Usually it "
            "is noise: check focus and light, or use a lower threshold or a larger minimum size."
        )
    return _above("masks_dropped", share, most, "1", text)


def _background_drift(seen: Observations, limits: ReportLimits) -> Check:
    values, most = np.array(seen.background, np.float64), limits.max_background_drift
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return _unknown("background_drift", most, "grey levels", "Whether the background drifts is not known.")
    drift = float(values.max() - values.min())
    text = f"The background is steady: its brightness changed by {drift:.1f} grey levels."
    if drift > most:
        text = (
            f"The background's brightness changed by {drift:.1f} grey levels, more than {_short(most)}. Let the light "
            "warm up, check the focus, and look for dirt that settles in the channel."
        )
    return _above("background_drift", drift, most, "grey levels", text)


def _brightness(seen: Observations) -> float | None:
    values = np.array(seen.background, np.float64)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def _too_dark(seen: Observations, limits: ReportLimits) -> Check:
    value, least = _brightness(seen), limits.min_brightness
    if value is None:
        return _unknown("too_dark", least, "grey levels", "Whether the images are too dark is not known.")
    if value >= least:
        text = f"The background is bright enough: {value:.0f} grey levels."
        return Check("too_dark", "ok", value, least, "grey levels", text)
    if value < BLACK:
        text = (
            f"The images are black: the background has {value:.0f} of 255 grey levels. Check lamp, trigger and cables."
        )
        return Check("too_dark", "alarm", value, least, "grey levels", text)
    text = (
        f"The images are too dark: the background has {value:.0f} of 255 grey levels, expected at least "
        f"{_short(least)}. Use more light, or flash for longer."
    )
    return Check("too_dark", "warning", value, least, "grey levels", text)


def _too_bright(seen: Observations, limits: ReportLimits) -> Check:
    value, most = _brightness(seen), limits.max_brightness
    if value is None:
        return _unknown("too_bright", most, "grey levels", "Whether the images are too bright is not known.")
    if value <= most:
        text = f"The background is not too bright: {value:.0f} grey levels."
        return Check("too_bright", "ok", value, most, "grey levels", text)
    if value > WHITE:
        text = f"The images are white: the background has {value:.0f} of 255 grey levels. Use less light."
        return Check("too_bright", "alarm", value, most, "grey levels", text)
    text = (
        f"The images are too bright: the background has {value:.0f} of 255 grey levels, expected at most "
        f"{_short(most)}. Use less light, or flash for shorter."
    )
    return Check("too_bright", "warning", value, most, "grey levels", text)


def _saturated(seen: Observations, limits: ReportLimits) -> Check:
    share, most = seen.saturated, limits.max_saturated
    if share is None:
        return _unknown("saturated", most, "1", "Whether pixels are saturated is not known: no images are reachable.")
    if share <= most:
        text = f"{_percent(share)} of the pixels are saturated."
        return Check("saturated", "ok", share, most, "1", text)
    text = (
        f"{_percent(share)} of the pixels are saturated (255), more than {_percent(most)}; what is brighter is lost. "
        "Use less light, or lower the gain of the camera."
    )
    return Check("saturated", "alarm" if share > MOSTLY_SATURATED else "warning", share, most, "1", text)


def _border_cells(seen: Observations, limits: ReportLimits) -> Check:
    cells, cut, most = seen.cells, seen.border_cells, limits.max_border_cells
    if cells is None or cut is None:
        text = "How many cells the edge of the frame cuts is not known: the recorded frames are not reachable."
        return _unknown("border_cells", most, "1", text)
    if cells < FEWEST_CELLS:
        text = f"How many cells the edge of the frame cuts is not known: only {_count(cells, 'cell')} in the sample."
        return _unknown("border_cells", most, "1", text)
    share = cut / cells
    # The share comes from a sample: warn only if it is above the limit by more than two standard errors.
    sure = most + 2 * math.sqrt(share * (1 - share) / cells)
    text = f"The edge of the frame cuts {_percent(share)} of the cells."
    if share > sure:
        text = (
            f"The edge of the frame cuts {_percent(share)} of the cells, more than {_percent(most)}; they are not "
            "measured. Align the region in view with the channel, or widen it."
        )
    return Check("border_cells", "warning" if share > sure else "ok", share, most, "1", text)


def _clogging(seen: Observations, limits: ReportLimits) -> Check:
    times, duration, least = seen.event_times, seen.duration, limits.clogging_share
    if times is None or duration is None or not duration > 0:
        return _unknown("clogging", least, "1", "Whether the channel clogged is not known: the times are missing.")
    if len(times) < FEWEST_FOR_RATE:
        return _unknown("clogging", least, "1", "Whether the channel clogged cannot be told: too few events.")
    usual = _usual_rate(times, duration)
    end = float(np.count_nonzero(times > (1 - END_SHARE) * duration)) / (END_SHARE * duration)
    share = end / usual
    silent = duration - float(times.max())
    if share >= least:
        text = f"The flow is steady: at the end {_short(end)} events/s, usually {_short(usual)}."
        return Check("clogging", "ok", share, least, "1", text)
    if silent > SILENT_SHARE * duration:
        text = (
            f"The channel clogged: no event during the last {_short(silent)} of {_short(duration)} s. Flush or change "
            "the chip before the next sample."
        )
        return Check("clogging", "alarm", share, least, "1", text)
    text = (
        f"The event rate fell from {_short(usual)} to {_short(end)} events/s at the end. The channel may be clogging, "
        "or the sample may be used up: look at the chip."
    )
    return Check("clogging", "warning", share, least, "1", text)


def _usual_rate(times: npt.NDArray[np.float64], duration: float) -> float:
    """Return the usual event rate [1/s]: half of the events lie in intervals with this rate or a higher one.

    Why not the mean rate: it is too low if the flow has stopped early.
    """
    intervals = int(np.clip(len(times) // 20, 3, 40))
    counts = np.sort(np.histogram(times, intervals, (0.0, duration))[0])[::-1]
    half = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    return float(counts[half]) * intervals / duration


def _unknown(name: str, limit: float, unit: str, text: str) -> Check:
    return Check(name, "unknown", None, float(limit), unit, text)


def _above(name: str, value: float, most: float, unit: str, text: str) -> Check:
    return Check(name, "warning" if value > most else "ok", value, most, unit, text)


def _count(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{_short(100 * share)} %"


def _short(value: float) -> str:
    """Return a number with two significant digits, or with all of those before the decimal point."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    decimals = max(0, 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
