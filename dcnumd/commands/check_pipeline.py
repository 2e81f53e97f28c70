"""Checks of the pipeline that a config describes: its ID, its memory, and probable mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dcnumd import routing
from dcnumd.commands.finding import Finding
from dcnumd.config.values import SegmenterSettings, Settings
from dcnumd.errors import WorkerError
from dcnumd.logic.memory import (
    expected_workload,
    fitting_layout,
    in_mb,
    usually_needed,
)
from dcnumd.report.wording import count_of

if TYPE_CHECKING:
    from dcnumd.logic.speed import Speed

USUAL_FRAME, LARGE_FRAME = (80, 320), (1024, 1280)
"""Height and width [px] of a usual and of a large frame, for which the memory is estimated."""
USUAL_RATE = 3000.0
"""Frame rate of usual cameras [Hz]."""


def check_pipeline(settings: Settings, identifier: str) -> Iterator[Finding]:
    """Yield the findings about a pipeline whose methods exist.

    Parameters
    ----------
    settings
        Settings of one group of folders.
    identifier
        Its pipeline ID.
    """
    yield _memory(settings)
    yield Finding("ok", "pipeline", identifier)
    yield from _fallback(settings)
    yield from _threshold(settings)


def measured_speeds(settings: Settings) -> list[Speed]:
    """Return the speed of each configured segmenter that has a model.

    Raises
    ------
    DcnumdError
        If a segmenter or its model cannot be used.
    """
    from dcnumd.logic.speed import speed_with_model  # noqa: PLC0415 -- as below

    segmenters: list[SegmenterSettings] = []
    speeds = []
    for group in settings.groups:
        if group.pipeline.segmenter not in segmenters:
            segmenters.append(group.pipeline.segmenter)
            speeds.append(speed_with_model(routing.pipeline_settings(group), routing.number_of_workers(settings)))
    return [speed for speed in speeds if speed is not None]


def speed_in_words(speed: Speed) -> Finding:
    """Return how fast this computer segments, and whether this is as fast as a camera records."""
    height, width = speed.frame_shape
    camera = speed.frame_rate or USUAL_RATE
    text = (
        f"up to {speed.frames_per_second:.0f} frames/s with {count_of(speed.processes, 'worker')} "
        f"and frames of {height}x{width} pixels; "
    )
    what = f"{'its' if speed.frame_rate else 'a usual'} camera with {camera:.0f} frames/s"
    if speed.frames_per_second >= camera:
        return Finding("ok", "speed", f"{text}as fast as {what}")
    return Finding("note", "speed", f"{text}{what} records {camera / speed.frames_per_second:.1f} times as fast")


def pipeline_id(settings: Settings) -> str:
    """Return the pipeline ID of these settings, with placeholders for the parts that depend on the measurement.

    Raises
    ------
    DcnumdError
        If a method or one of its keywords does not exist.
    """
    # Importing the engine takes a second, so it is imported only where it is used.
    from dcnumd.logic.plan import configured_ids  # noqa: PLC0415
    from dcnumd.meta.ppid import DCNUM_PPID_GENERATION, PipelineID, get_data_ppid  # noqa: PLC0415

    pipeline = routing.pipeline_settings(settings)
    # "auto" is resolved to true or false for each measurement.
    automatic = pipeline.background_kwargs.get("offset_correction") == "auto"
    data = get_data_ppid(pipeline.pixel_size) if pipeline.pixel_size else "hdf:p=(from the file)^i=0"
    identifier = PipelineID(generation=DCNUM_PPID_GENERATION, data=data, **configured_ids(pipeline))
    return f"{identifier}" + (" (o=1 where the light flickers, else o=0)" if automatic else "")


def _memory(settings: Settings) -> Finding:
    """Report the largest memory that all processes take together, for usual frames and for large ones."""
    workers, limit = routing.number_of_workers(settings), settings.resources.max_memory_mb
    others = routing.memory_beside_pipeline(settings)
    if settings.executor.kind == "dask" and not settings.executor.fallback_minutes:
        return Finding("ok", "memory", f"at most {in_mb(others)} MB on this computer, which runs no pipeline")
    pipeline, strategy = routing.pipeline_settings(settings), settings.output.basin_strategy
    works = [expected_workload(shape, pipeline, basin_strategy=strategy) for shape in (USUAL_FRAME, LARGE_FRAME)]
    sizes = [in_mb(others + usually_needed(workers, work)) for work in works]
    usual, large = (f"{height}x{width} pixels" for height, width in (USUAL_FRAME, LARGE_FRAME))
    text = f"at most {sizes[0]} MB with {workers} workers and frames of {usual}, {sizes[1]} MB with {large}"
    if not 0 < limit < max(sizes):
        return Finding("ok", "memory", text)
    shortest = expected_workload(USUAL_FRAME, pipeline, basin_strategy=strategy, seconds=1.0)
    try:
        fitting_layout(workers, shortest, limit * 10**6, others)
    except WorkerError as error:
        return Finding("problem", "memory", str(error))
    return Finding("note", "memory", f"{text}; held below {limit} MB (resources.max_memory_mb)")


def _fallback(settings: Settings) -> Iterator[Finding]:
    """Yield the segmenter of measurements for which the configured one is not made."""
    from dcnumd.logic.plan import fallback_id  # noqa: PLC0415 -- as above

    if (identifier := fallback_id(routing.pipeline_settings(settings))) is not None:
        text = f"{identifier} where {settings.pipeline.segmenter.code} is not made for the measurement"
        yield Finding("ok", "fallback", text)


def _threshold(settings: Settings) -> Iterator[Finding]:
    """Yield a warning if cells would have to be brighter than the background."""
    segmenter = settings.pipeline.segmenter
    thresh = segmenter.keywords.get("thresh", -6)
    if segmenter.code == "thresh" and thresh >= 0:
        text = (
            f"{thresh} selects all pixels that are not clearly brighter than the background; cells are darker: try -6"
        )
        yield Finding("warning", "thresh", text)
