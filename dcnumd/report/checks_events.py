"""The checks of a report that judge the events: their number, their rate, and what became of masks and cells."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dcnumd.config.values import ReportLimits
from dcnumd.report.check import Check, Observations, State, above, unknown
from dcnumd.report.wording import count_of, percent, short

FEWEST_FOR_RATE = 60
"""Smallest number of events from which changes of the event rate can be judged."""
FEWEST_CELLS = 20
"""Smallest number of cells from which the share of those at the border, or with a ragged contour, can be judged."""
END_SHARE = 0.1
"""Share of the duration of a recording that counts as its end."""
SILENT_SHARE = 0.25
"""Share of the duration, at the end and without any event, above which the channel counts as clogged."""


def interrupted(seen: Observations) -> tuple[Check, ...]:
    """Warn of a recording that was interrupted; return no check for others."""
    frames = seen.interrupted_after
    if frames is None:
        return ()
    text = (
        f"The recording was interrupted after {count_of(frames, 'frame')}: its file was not closed. Look at the "
        "instrument and its software; record again if the events are too few."
    )
    return (Check("interrupted", "warning", float(frames), None, "frames", text),)


def few_events(seen: Observations, limits: ReportLimits) -> Check:
    """Warn of too few events for certain medians; without any, the check is `no_events`."""
    if not seen.events:
        return no_events(seen)
    count, least = seen.events, limits.min_events
    state: State = "ok"
    text = f"{count_of(count, 'event')} found."
    if count < least:
        state = "warning"
        text = (
            f"Only {count_of(count, 'event')} found, expected at least {least:,}. Record for longer, or check flow and "
            "concentration of the sample."
        )
    return Check("few_events", state, float(count), float(least), "events", text)


def no_events(seen: Observations) -> Check:
    """Return the alarm of a result without events, with the most likely reason."""
    text = "No events were found."
    if seen.online_events:
        text = f"The instrument counted {count_of(seen.online_events, 'event')}, dcnumd 0."
    return Check("no_events", "alarm", 0.0, 1.0, "events", f"{text} {_why_no_events(seen)}")


def _why_no_events(seen: Observations) -> str:
    threshold, darkest = seen.threshold, seen.darkest
    if threshold is not None and threshold >= 0:
        return (
            f"The segmenter's threshold is {threshold:g} grey levels. Cells are darker than the background: use a "
            "negative threshold, such as -6."
        )
    if threshold is None or not darkest:
        return (
            "Check that cells flow through the region in view, and that focus, illumination and the segmenter's "
            "threshold fit."
        )
    if seen.cells and seen.cells == seen.border_cells:
        return (
            f"The edge of the frame cuts {_all_of(seen.cells, 'object')} in the sampled frames; such objects are not "
            "measured. Align the region in view with the channel, or widen it."
        )
    if seen.cells:
        return (
            f"There {'is' if seen.cells == 1 else 'are'} {count_of(seen.cells, 'object')} darker than the threshold of "
            f"{threshold:g} grey levels in the sampled frames. Check which settings of masks, gate and features remove "
            "them."
        )
    return (
        f"In the sampled frames nothing of sufficient size is below the threshold of {threshold:g} grey levels; the "
        f"darkest spot reaches {min(darkest):.1f}. If the frames in the report show cells, use a threshold closer to "
        "0; otherwise, check flow, focus and light."
    )


def _all_of(count: int, word: str) -> str:
    return f"the only {word}" if count == 1 else f"all {count:,} {word}s"


def clogging(seen: Observations, limits: ReportLimits) -> Check:
    """Warn of a flow that stopped, or nearly so, before the end of the recording."""
    times, duration, least = seen.event_times, seen.duration, limits.clogging_share
    if times is None or duration is None or not duration > 0:
        return unknown("clogging", least, "1", "Whether the channel clogged is not known: the times are missing.")
    if len(times) < FEWEST_FOR_RATE:
        return unknown("clogging", least, "1", "Whether the channel clogged cannot be told: too few events.")
    usual = _usual_rate(times, duration)
    end = float(np.count_nonzero(times > (1 - END_SHARE) * duration)) / (END_SHARE * duration)
    share = end / usual
    silent = duration - float(times.max())
    if share >= least:
        text = f"The flow is steady: at the end {short(end)} events/s, usually {short(usual)}."
        return Check("clogging", "ok", share, least, "1", text)
    if silent > SILENT_SHARE * duration:
        text = (
            f"The channel clogged: no event during the last {short(silent)} of {short(duration)} s. Flush or change "
            "the chip before the next sample."
        )
        return Check("clogging", "alarm", share, least, "1", text)
    text = (
        f"The event rate fell from {short(usual)} to {short(end)} events/s at the end. The channel may be clogging, "
        "or the sample may be used up: look at the chip."
    )
    return Check("clogging", "warning", share, least, "1", text)


def border_cells(seen: Observations, limits: ReportLimits) -> Check:
    """Warn of many cells that the edge of the frame cuts."""
    cells, cut, most = seen.cells, seen.border_cells, limits.max_border_cells
    if cells is None or cut is None:
        text = "How many cells the edge of the frame cuts is not known: the recorded frames are not reachable."
        return unknown("border_cells", most, "1", text)
    if cells < FEWEST_CELLS:
        text = f"How many cells the edge of the frame cuts is not known: only {count_of(cells, 'cell')} in the sample."
        return unknown("border_cells", most, "1", text)
    share = cut / cells
    text = f"The edge of the frame cuts {percent(share)} of the cells."
    many = _is_above(share, most, cells)
    if many:
        text = (
            f"The edge of the frame cuts {percent(share)} of the cells, more than {percent(most)}; they are not "
            "measured. Align the region in view with the channel, or widen it."
        )
    return Check("border_cells", "warning" if many else "ok", share, most, "1", text)


def ragged_contours(seen: Observations, limits: ReportLimits) -> Check:
    """Warn of many events with a ragged contour, which the porosity shows."""
    ragged, gate, most = seen.ragged, limits.max_area_ratio, limits.max_ragged
    if not gate:
        text = "Whether contours are ragged is not checked: report.limits.max_area_ratio is 0."
        return unknown("ragged_contours", most, "1", text)
    if ragged is None:
        text = "Whether contours are ragged is not known: the result has no porosity (area_ratio)."
        return unknown("ragged_contours", most, "1", text)
    if seen.events < FEWEST_CELLS:
        text = f"Whether many contours are ragged cannot be told from {count_of(seen.events, 'event')}."
        return unknown("ragged_contours", most, "1", text)
    share = ragged / seen.events
    text = f"{percent(share)} of the events have a porosity above {gate:g}."
    many = _is_above(share, most, seen.events)
    if many:
        text = (
            f"{percent(share)} of the events have a porosity above {gate:g}, more than {percent(most)}: ragged "
            "contours, doublets or debris. Look at the contours in the gallery, and check focus and sample. If the "
            "contours follow noise, use a lower threshold, such as -8 instead of -6."
        )
    return Check("ragged_contours", "warning" if many else "ok", share, most, "1", text)


def masks_dropped(seen: Observations, limits: ReportLimits) -> Check:
    """Warn of many masks without a contour."""
    dropped, most = seen.masks_dropped, limits.max_masks_dropped
    masks = seen.events + (dropped or 0)
    if dropped is None or not masks:
        why = "there are none." if dropped is not None else "the logs do not say."
        return unknown("masks_dropped", most, "1", f"How many masks were dropped cannot be judged: {why}")
    share = dropped / masks
    text = f"{percent(share)} of the masks had no contour and were dropped."
    if share > most:
        text = (
            f"{percent(share)} of the masks had no contour and were dropped, more than {percent(most)}. Usually it "
            "is noise: check focus and light, or use a lower threshold or a larger minimum size."
        )
    return above("masks_dropped", share, most, "1", text)


def _is_above(share: float, most: float, sample: int) -> bool:
    """Return whether the share in a sample of this size is above a limit by more than two standard errors."""
    return share > most + 2 * math.sqrt(share * (1 - share) / sample)


def _usual_rate(times: npt.NDArray[np.float64], duration: float) -> float:
    """Return the usual event rate [1/s]: half of the events lie in intervals with this rate or a higher one.

    Why not the mean rate: it is too low if the flow has stopped early.
    """
    intervals = int(np.clip(len(times) // 20, 3, 40))
    counts = np.sort(np.histogram(times, intervals, (0.0, duration))[0])[::-1]
    half = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    return float(counts[half]) * intervals / duration
