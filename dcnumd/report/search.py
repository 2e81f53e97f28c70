"""The pictures of a report without events: frames of the measurement, and how dark they are."""

from __future__ import annotations

import numpy as np

from dcnumd.errors import DcnumdError
from dcnumd.report.figures import Figures, Search
from dcnumd.report.gallery import BackgroundPictures, as_jpeg, grey_picture, grey_range, pictures_of_backgrounds
from dcnumd.report.page import number
from dcnumd.report.plots import Plot, bars
from dcnumd.report.result_file import ResultData
from dcnumd.report.sample import SPOT
from dcnumd.report.views import ChartView, FrameView, SearchView
from dcnumd.report.wording import count_of

FRAMES = 6
"""Largest number of frames to show."""
BINS = 40


def draw_search(data: ResultData, figures: Figures, missing: list[str]) -> SearchView | None:
    """Return the pictures of a result without events; None if the recorded frames cannot be reached.

    Parameters
    ----------
    data
        The open result.
    figures
        The figures of the result.
    missing
        Receives a sentence if there are no pictures.
    """
    search = figures.search
    shown = _frames(data, _to_show(search), figures)
    if not shown:
        missing.append("No frames are shown: those of the measurement cannot be reached.")
        return None
    return SearchView(shown, _chart(search))


def backgrounds_without_events(data: ResultData) -> BackgroundPictures | None:
    """Return the pictures of the background of a result without events; None if the result has no background images."""
    return pictures_of_backgrounds([image.astype(np.float32) for image in data.background_images])


def _to_show(search: Search) -> list[int]:
    """Return the frames to show: from each part of the measurement the darkest one, which may show a cell."""
    parts = np.array_split(np.arange(len(search.frame)), min(FRAMES, len(search.frame)) or 1)
    return [search.frame[min(part.tolist(), key=lambda place: search.darkest[place])] for part in parts if part.size]


def _frames(data: ResultData, chosen: list[int], figures: Figures) -> tuple[FrameView, ...]:
    if data.source_frames is None:
        return ()
    images = {}
    for frame in chosen:
        try:
            images[frame] = np.asarray(data.source_frames[frame], np.float32)
        except DcnumdError as error:
            data.miss(f"Some of the recorded frames cannot be read: {error.message}.")
    if not images:
        return ()
    ends = grey_range(np.stack(list(images.values())))
    darkest = dict(zip(figures.search.frame, figures.search.darkest, strict=True))
    return tuple(
        FrameView(
            as_jpeg(grey_picture(image, ends)), image.shape[1], image.shape[0], _title(frame, darkest[frame], figures)
        )
        for frame, image in images.items()
    )


def _title(frame: int, darkest: float, figures: Figures) -> str:
    rate = figures.frame_rate_hz
    time = f", at {number(frame / rate, 3)} s" if rate else ""
    return f"Frame {frame + 1:,}{time}: darkest spot {darkest:.1f}"


def _chart(search: Search) -> ChartView:
    """Return the histogram of the darkest spots, with the threshold as a line."""
    frames = count_of(len(search.darkest), "frame")
    note = (
        f"The darkest spot ({SPOT} by {SPOT} pixels) of each of {frames}, minus the background. In frames without "
        "cells it is near 0, in frames with cells far below."
    )
    if search.threshold is not None:
        note += f" The line is the threshold, {search.threshold:g}; the segmenter finds what is to its left."
    title = "Darkest spot of each frame"
    return ChartView("darkest_spot", title, _histogram(search), f"Histogram of the darkest spots of {frames}.", note)


def _histogram(search: Search) -> Plot:
    threshold = 0.0 if search.threshold is None else search.threshold
    values = np.array(search.darkest)
    low, high = min(values.min(), threshold, 0.0), max(values.max(), threshold, 0.0)
    margin = max(0.05 * (high - low), 0.5)
    counts, edges = np.histogram(values, BINS, range=(low - margin, high + margin))
    labels = "darkest spot minus background [grey levels]", "frames"
    return bars(counts, edges, search.threshold, labels, "search", ticks=6, width=440, height=190)
