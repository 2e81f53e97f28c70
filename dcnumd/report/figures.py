"""The figures of a report: all that it says about a measurement, as numbers and sentences."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math

from dcnumd.config.values import ReportLimits
from dcnumd.report.checks import Check, Observations, judge, light_of
from dcnumd.report.features import FIRST, FeatureFigures, describe_feature
from dcnumd.report.fluorescence import Channel, channels_of, told
from dcnumd.report.headline import Headline, headline_of
from dcnumd.report.pipeline_words import PARTS, PipelinePart, parts_in_words
from dcnumd.report.processing import Processing
from dcnumd.report.request import Light
from dcnumd.report.result_file import ResultData
from dcnumd.report.sample import sample_frames
from dcnumd.report.timeline import background_course, duration_of, event_rate, event_times, flicker_of
from dcnumd.status import Course

__all__ = [
    "Check",
    "Course",
    "FeatureFigures",
    "Figures",
    "Headline",
    "PipelinePart",
    "Processing",
    "Search",
    "measure",
]

MAX_TEXT = 500
"""Largest length of a text of the file that is shown [characters]."""


@dataclasses.dataclass(frozen=True, slots=True)
class Search:
    """How dark the sampled frames of a result without events are.

    Attributes
    ----------
    threshold
        Threshold of the segmenter ``thresh`` [grey levels]; None for other segmenters, or without frames.
    frame, darkest
        Index of each sampled frame, and deviation of its darkest spot from the background [grey levels].
    """

    threshold: float | None
    frame: tuple[int, ...]
    darkest: tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a report. None, or an empty text, stands for a value that is not stored or cannot be computed.

    Attributes
    ----------
    result
        Name of the result's file.
    made
        Time when these figures were computed: UTC, ISO 8601.
    recorded
        Date and time of the recording, as the instrument wrote them.
    frame_size
        Number of rows and columns of a frame.
    frames
        Number of frames that were processed.
    duration_s
        Duration of the recording, from the first to the last frame [s].
    events_per_second
        Number of events per second of this duration.
    yield_per_frame
        Number of events per frame.
    ppid, pphash, generation, parts
        Pipeline ID, its hash, its generation, and its parts in words.
    software
        Version of each program and library.
    processing
        Speed of the processing, and its warnings.
    online_events
        Number of events that the instrument measured.
    search
        How dark the sampled frames are, for a result without events.
    fluorescence
        Channels of fluorescence.
    fluorescence_text
        A sentence that says whether the result has the fluorescence of the measurement; empty without any.
    headline
        Medians of the events with a small porosity.
    features
        Statistics of each feature; area, deformation, brightness and volume come first.
    event_rate
        Events per second over time.
    background
        Brightness of the background over time [grey levels].
    light, checks
        Colour of the traffic light, and all checks.
    missing
        Sentences on what cannot be shown.
    """

    result: str
    made: str
    sample: str
    recorded: str
    run_index: int | None
    instrument: str
    chip_region: str
    channel_width_um: float | None
    flow_rate_ul_s: float | None
    medium: str
    temperature_c: float | None
    frame_rate_hz: float | None
    pixel_size_um: float | None
    frame_size: tuple[int, int] | None
    frames: int | None
    duration_s: float | None
    events: int
    online_events: int | None
    events_per_second: float | None
    yield_per_frame: float | None
    ppid: str
    pphash: str
    generation: str
    parts: tuple[PipelinePart, ...]
    software: dict[str, str]
    processing: Processing
    search: Search
    fluorescence: tuple[Channel, ...]
    fluorescence_text: str
    headline: Headline
    features: tuple[FeatureFigures, ...]
    event_rate: Course
    background: Course
    light: Light
    checks: tuple[Check, ...]
    missing: tuple[str, ...]


def measure(data: ResultData, limits: ReportLimits) -> Figures:
    """Compute all figures of a result.

    Parameters
    ----------
    data
        The open result.
    limits
        Limits of the checks, and of the porosity of the events at the top of the report.
    """
    events, rate = len(data), _positive(data, "imaging:frame rate")
    recorded = len(data.source_frames) if data.source_frames is not None else None
    frames = data.run.frames
    if data.whole:
        frames = recorded if frames is None else frames
        recorded = frames if recorded is None else recorded
    times = event_times(data, rate)
    duration = duration_of(data, times, frames, rate)
    sample = sample_frames(data)
    background = background_course(data, times, duration, sample, rate)
    processing = data.run.processing
    headline = headline_of(data, limits.max_area_ratio)
    checks = judge(
        Observations(
            events=events,
            online_events=data.online_events,
            threshold=sample.threshold,
            darkest=sample.darkest,
            masks_dropped=processing.masks_dropped,
            ragged=None if headline.max_area_ratio is None else events - headline.events,
            flicker=flicker_of(data, sample),
            background=background.values,
            saturated=sample.saturated,
            cells=sample.cells,
            border_cells=sample.border_cells,
            event_times=times,
            # The end of the recording is only known from the number of frames or their times; without them, the
            # duration ends with the last event.
            duration=duration if frames or data.source_times is not None else None,
            interrupted_after=data.interrupted_after,
        ),
        limits,
    )
    channels = channels_of(data)
    codes = [_text(data, f"pipeline:dcnum {name}") for name in ("generation", *PARTS)]
    return Figures(
        result=data.path.name,
        made=f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}",
        sample=_text(data, "experiment:sample"),
        recorded=f"{_text(data, 'experiment:date')} {_text(data, 'experiment:time')}".strip(),
        run_index=_whole(data, "experiment:run index"),
        instrument=_text(data, "setup:identifier"),
        chip_region=_text(data, "setup:chip region"),
        channel_width_um=_number(data, "setup:channel width"),
        flow_rate_ul_s=_number(data, "setup:flow rate"),
        medium=_text(data, "setup:medium"),
        temperature_c=_number(data, "setup:temperature"),
        frame_rate_hz=rate,
        pixel_size_um=_positive(data, "imaging:pixel size"),
        frame_size=data.frame_size or _stored_size(data),
        frames=frames,
        duration_s=duration,
        events=events,
        online_events=data.online_events,
        events_per_second=events / duration if duration else None,
        yield_per_frame=events / frames if frames else None,
        ppid="|".join(codes) if all(codes) else "",
        pphash=_text(data, "pipeline:dcnum hash"),
        generation=codes[0],
        parts=parts_in_words(data.meta, recorded, data.run.model),
        software=_software(data),
        processing=processing,
        search=Search(sample.threshold, sample.frame, sample.darkest),
        fluorescence=channels,
        fluorescence_text=told(channels, events),
        headline=headline,
        features=tuple(_features(data)),
        event_rate=event_rate(times, duration),
        background=background,
        light=light_of(checks),
        checks=checks,
        missing=tuple(data.missing),
    )


def _features(data: ResultData) -> list[FeatureFigures]:
    names = [*FIRST, *sorted(set(data.scalar_names).difference(FIRST))]
    described = [describe_feature(name, values) for name in names if (values := data.scalar(name)) is not None]
    for feature in described:
        if len(data) and feature.name in FIRST and not feature.count:
            data.miss(f"No event has a finite value of {feature.name}.")
    return described


def _software(data: ResultData) -> dict[str, str]:
    recorder = _text(data, "setup:software version")
    return {**data.run.software, **({"Recorded with": recorder} if recorder else {})}


def _stored_size(data: ResultData) -> tuple[int, int] | None:
    height, width = (_whole(data, f"imaging:roi size {axis}") for axis in "yx")
    return (height, width) if height and width else None


def _text(data: ResultData, key: str) -> str:
    """Return an attribute as one line of text, cut if it is very long."""
    value = data.meta.get(key)
    if value is None:
        return ""
    text = " ".join(str(value)[: 4 * MAX_TEXT].split())
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} …"


def _number(data: ResultData, key: str) -> float | None:
    value = data.meta.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _positive(data: ResultData, key: str) -> float | None:
    value = _number(data, key)
    return value if value is not None and value > 0 else None


def _whole(data: ResultData, key: str) -> int | None:
    value = _number(data, key)
    return int(value) if value is not None else None
