"""What a result says over time: the times of its events, their rate, and the brightness of the background."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dcnumd.report.result_file import ResultData
from dcnumd.report.sample import FrameSample
from dcnumd.status import Course

Values = npt.NDArray[np.float64]

MOST_INTERVALS = 60
FEWEST_INTERVALS = 5
EVENTS_PER_INTERVAL = 20
"""Mean number of events in an interval, which determines the number of intervals."""
COURSE_FRAMES = 31
"""Width of the median filter that separates flicker from drift [frames with events]."""
FEWEST_OFFSETS = 20


def event_times(data: ResultData, rate: float | None) -> Values | None:
    """Return the times of all events [s since the first frame], ascending; None if they are not known.

    Parameters
    ----------
    data
        The result.
    rate
        Frames per second, if known.
    """
    time, position = data.scalar("time"), data.positions
    if time is not None and np.isfinite(time).any():
        origin = float(np.nanmin(time))
        if data.source_times is not None:
            origin = min(origin, float(data.source_times[0]))
        elif position is not None and rate:
            # The first event lies this number of frames after the first frame.
            origin -= float(np.nanmin(position)) / rate
        found = time - origin
    elif position is not None and rate:
        found = position / rate
    else:
        return None
    return np.sort(found[np.isfinite(found)])


def duration_of(data: ResultData, times: Values | None, frames: int | None, rate: float | None) -> float | None:
    """Return the duration of the recording [s]; None if not known.

    Parameters
    ----------
    data
        The result.
    times
        What `event_times` returns.
    frames
        Number of frames that were processed, if known.
    rate
        Frames per second, if known.
    """
    last = float(times[-1]) if times is not None and times.size else 0.0
    step = 1 / rate if rate else 0.0
    if data.whole and data.source_times is not None:
        first, end = data.source_times.tolist()
        return max(end - first, last) + step or None
    by_frames = frames / rate if frames and rate else 0.0
    return max(by_frames, last + step) or None


def event_rate(times: Values | None, duration: float | None) -> Course:
    """Return the number of events per second over time; times and duration are in seconds."""
    if times is None or not times.size or not duration:
        return Course()
    count = _intervals(times.size)
    found = np.histogram(times, count, (0.0, duration))[0]
    width = duration / count
    return Course(tuple(((np.arange(count) + 0.5) * width).tolist()), tuple((found / width).tolist()))


def background_course(
    data: ResultData, times: Values | None, duration: float | None, sample: FrameSample, rate: float | None
) -> Course:
    """Return the brightness of the background over time: that of the events, or else of the sampled frames."""
    level, time = data.scalar("bg_med"), _unsorted_times(data, times, rate)
    if level is not None and time is not None and duration and np.isfinite(level).any():
        known = np.isfinite(level) & np.isfinite(time)
        count = _intervals(int(known.sum()))
        width = duration / count
        place = np.clip((time[known] / width).astype(np.int64), 0, count - 1)
        events = np.bincount(place, minlength=count)
        sums = np.bincount(place, level[known], minlength=count)
        filled = np.flatnonzero(events)
        return Course(tuple(((filled + 0.5) * width).tolist()), tuple((sums[filled] / events[filled]).tolist()))
    if rate and sample.level:
        return Course(tuple(position / rate for position in sample.position), sample.level)
    return Course()


def flicker_of(data: ResultData, sample: FrameSample) -> float | None:
    """Return the standard deviation of the brightness from its slow changes [grey levels]; None if not known."""
    offset, position = data.scalar("bg_off"), data.positions
    if offset is None or position is None:
        return sample.flicker
    known = np.isfinite(offset) & np.isfinite(position)
    # All events of a frame have the same offset.
    _, first = np.unique(position[known], return_index=True)
    series = offset[known][first]
    if series.size < FEWEST_OFFSETS:
        return sample.flicker
    return float(np.std(series - ndimage.median_filter(series, min(COURSE_FRAMES, series.size), mode="nearest")))


def _unsorted_times(data: ResultData, times: Values | None, rate: float | None) -> Values | None:
    """Return the time of each event [s], in the order of the events."""
    stored = data.scalar("time")
    if times is None or not times.size:
        return None
    if stored is not None and np.isfinite(stored).any():
        return stored - float(np.nanmin(stored)) + float(times[0])
    return data.positions / rate if data.positions is not None and rate else None


def _intervals(count: int) -> int:
    return int(np.clip(count // EVENTS_PER_INTERVAL, FEWEST_INTERVALS, MOST_INTERVALS))
