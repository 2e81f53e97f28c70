"""Draws the pictures of a report, and explains in a sentence why a picture is missing."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from PIL import Image

from dcnumd.meta.features import GREY
from dcnumd.report import plots, scatter
from dcnumd.report.axes import USUAL_WIDTH, follows_unknown_width, standard_limits
from dcnumd.report.cloud import Cloud, Limits, cloud
from dcnumd.report.features import FIRST, label_of
from dcnumd.report.figures import Course, FeatureFigures, Figures
from dcnumd.report.fluorescence import is_maximum, is_peak
from dcnumd.report.gallery import Gallery, background_pictures, choose, make_gallery
from dcnumd.report.isoelastics import isolines
from dcnumd.report.marks import beside
from dcnumd.report.page import MANY_CELLS, number, with_unit
from dcnumd.report.request import PAIR, ReportRequest
from dcnumd.report.result_file import ResultData
from dcnumd.report.scatter import SOLID
from dcnumd.report.search import backgrounds_without_events, draw_search
from dcnumd.report.views import CellView, ChartView, Drawings, Mark, ScatterView
from dcnumd.report.wording import count_of, inner


def cloud_of(data: ResultData, pair: tuple[str, str], wanted: tuple[Limits, Limits] | None = None) -> Cloud | None:
    """Return the data of a scatter plot, within wanted limits if there are any; None if there is nothing to plot."""
    x, y = (_values(data, name) for name in pair)
    if x is None or y is None:
        return None
    if not is_maximum(pair[1]):
        return cloud(x, y, wanted)
    positive = np.where(y > 0, y, np.nan)
    points = cloud(x, np.log10(positive), wanted)
    return points and dataclasses.replace(points, logarithmic=True)


def _values(data: ResultData, name: str) -> npt.NDArray[np.float64] | None:
    """Return a feature of the events; peaks of fluorescence may be those of the measurement's frames."""
    values = data.scalar(name)
    return data.scalar_of_frames(name) if values is None and is_peak(name) else values


def standard_cloud(data: ResultData, figures: Figures, request: ReportRequest) -> Cloud | None:
    """Return the data of the standard plot with its lines; None if there is nothing to plot."""
    points = cloud_of(data, PAIR, standard_limits(request.plot, figures.channel_width_um))
    if points is None:
        return None
    remarks = _remarks_on_axes(points, figures, request)
    lines, remark = isolines(figures) if request.plot.isoelastics else ((), "")
    return dataclasses.replace(points, isolines=lines, remarks=(*remarks, remark) if remark else tuple(remarks))


def axis_labels(figures: Figures, pair: tuple[str, str]) -> tuple[str, str]:
    """Return the labels of both axes of a scatter plot."""
    x, y = (with_unit(inner(_title(figures, name)), _unit(figures, name)) for name in pair)
    return x, y


def draw(
    data: ResultData, figures: Figures, request: ReportRequest, main: Cloud | None, raster: Image.Image | None
) -> Drawings:
    """Draw all pictures of the page.

    Parameters
    ----------
    data
        The open result.
    figures
        The figures of the result.
    request
        The request for the report.
    main
        The data of the standard plot; None if there are none.
    raster
        The drawing of `main` by `scatter.dots`; None if there is none.
    """
    missing: list[str] = []
    events = _to_show(main, len(data), request.gallery)
    gallery = make_gallery(data, events) if events.size else None
    if gallery is None and events.size and data.has_images:
        missing.append("None of the images of the gallery could be read, so no cells are shown.")
    cells = _cells(gallery, data, main)
    pairs = _pairs(data, figures, request, main, raster, cells, missing)
    histograms, courses = _histograms(data, figures, missing), _courses(figures, missing)
    background = background_pictures(data, len(data)) if len(data) else backgrounds_without_events(data)
    search = None if len(data) else draw_search(data, figures, missing)
    # Damage of some pictures is noticed only when they are read, after the figures were made.
    missing += [text for text in data.missing if text not in figures.missing]
    return Drawings(pairs, gallery, cells, histograms, courses, background, search, tuple(missing))


def _to_show(main: Cloud | None, events: int, wanted: int) -> npt.NDArray[np.int64]:
    """Return the events of the gallery, spread over the standard plot, or over the measurement if there is no plot."""
    if main is not None:
        return choose(main, wanted)
    return (
        np.unique(np.linspace(0, events - 1, min(wanted, events)).astype(np.int64)) if events else np.empty(0, np.int64)
    )


def _cells(gallery: Gallery | None, data: ResultData, main: Cloud | None) -> tuple[CellView, ...]:
    if gallery is None:
        return ()
    area, deform = (data.scalar(name) for name in PAIR)
    cells = []
    for place, cell in enumerate(gallery.cells, start=1):
        text = f"event {cell.event:,}"
        if main is not None and area is not None and deform is not None:
            text = f"{number(float(area[cell.event]), 3)} · {float(deform[cell.event]):.3f}"
        cells.append(CellView(place, cell.event, cell.left, cell.top, cell.contour, text, main is not None))
    return tuple(cells)


def _pairs(
    data: ResultData,
    figures: Figures,
    request: ReportRequest,
    main: Cloud | None,
    raster: Image.Image | None,
    cells: tuple[CellView, ...],
    missing: list[str],
) -> tuple[ScatterView, ...]:
    """Return the standard plot and the requested ones; add a sentence to `missing` for each that cannot be drawn."""
    views = []
    for place, pair in enumerate(dict.fromkeys((PAIR, *request.pairs, *_maxima(figures)))):
        points = main if pair == PAIR else cloud_of(data, pair)
        if points is None:
            if len(data):
                missing.append(_why_no_plot(data, figures, pair))
            continue
        dots = raster if pair == PAIR and raster is not None else scatter.dots(points)
        shown = [cell for cell in cells if cell.marked and points.has(cell.event)]
        marked = np.array([cell.event for cell in shown], np.int64)
        plot = scatter.plot(points, dots, axis_labels(figures, pair), marked, f"scatter{place}")
        places = plot.points if len(cells) > MANY_CELLS else beside(plot, dots)
        marks = tuple(
            Mark(cell.number, *np.round([*point, *place], 1).tolist())
            for cell, point, place in zip(shown, plot.points, places, strict=True)
        )
        x, y = (_title(figures, name) for name in pair)
        title, note = f"{x} and {inner(y)}", _scatter_note(points)
        text = _scatter_text(points, x, y)
        views.append(ScatterView("-".join(pair), title, plot, text, note, marks, points.remarks))
    return tuple(views)


def _maxima(figures: Figures) -> list[tuple[str, str]]:
    """Return the pairs of area and the maximum of each channel of fluorescence."""
    channels = figures.fluorescence if figures.events else ()
    return [(PAIR[0], name) for channel in channels for name in channel.peaks if name.endswith("_max")]


def _scatter_text(points: Cloud, x: str, y: str) -> str:
    low, high = (10**end if points.logarithmic else end for end in (float(points.y.min()), float(points.y.max())))
    return (
        f"Scatter plot of {count_of(points.index.size, 'event')}: {inner(x)} across, from "
        f"{number(float(points.x.min()), 3)} to {number(float(points.x.max()), 3)}, {inner(y)} up, from "
        f"{number(low, 3)} to {number(high, 3)}."
    )


def _scatter_note(points: Cloud) -> str:
    parts = [f"{count_of(points.index.size, 'event')}; the colour shows their density."]
    lines = [
        f"the {'solid' if contour.share == SOLID else 'dashed'} line encloses {100 * contour.share:g} %"
        for contour in points.contours
    ]
    if lines:
        parts.append(f"{' of the events, '.join(lines).capitalize()}.")
    if points.outside:
        parts.append(f"{count_of(points.outside, 'event')} beyond the axes.")
    if points.incomplete:
        kind = "positive values" if points.logarithmic else "finite values of both"
        parts.append(f"{count_of(points.incomplete, 'event')} without {kind}.")
    return " ".join(parts)


def _remarks_on_axes(points: Cloud, figures: Figures, request: ReportRequest) -> list[str]:
    """Return the sentences on the axes of the standard plot, if there is something unusual about them."""
    notes = []
    if points.unusual:
        area, deform = standard_limits(request.plot, figures.channel_width_um)
        than = "set" if request.plot.area or request.plot.deform else "usual"
        notes.append(
            f"Wider than {than}: {number(100 * points.unusual, 2)} % of the events lie outside of area "
            f"{number(area[0])} to {number(area[1])} µm² and deformation {number(deform[0])} to {number(deform[1])}."
        )
    if follows_unknown_width(request.plot, figures.channel_width_um):
        width = number(USUAL_WIDTH)
        notes.append(f"The width of the channel is not known; the axes are those for {width} µm.")
    return notes


def _why_no_plot(data: ResultData, figures: Figures, pair: tuple[str, str]) -> str:
    """Return the sentence that explains why a scatter plot is missing."""
    title = " and ".join(inner(_title(figures, name)) for name in pair)
    for name in pair:
        if _values(data, name) is None:
            return f"No plot of {title}: the result has no {name}."
    return f"No plot of {title}: no event has a finite value of both."


def _histograms(data: ResultData, figures: Figures, missing: list[str]) -> tuple[ChartView, ...]:
    views = []
    for name in FIRST:
        values = data.scalar(name)
        title, unit = _title(figures, name), _unit(figures, name)
        feature = _feature(figures, name)
        median = feature.median if feature else None
        plot = None
        if values is not None:
            plot = plots.histogram(values, with_unit(inner(title), unit), median, f"histogram-{name}")
        if plot is None:
            if len(data) and not any(name in text for text in figures.missing):
                why = f"the result has no {name}" if values is None else "no event has a finite value"
                missing.append(f"No distribution of {inner(title)}: {why}.")
            continue
        count = feature.count if feature else 0
        text = f"Histogram of the {inner(title)} of {count_of(count, 'event')}."
        views.append(ChartView(name, title, plot, text, f"Median of all events: {_with_unit(median, unit)}."))
    return tuple(views)


def _courses(figures: Figures, missing: list[str]) -> tuple[ChartView, ...]:
    views = []
    for course, name, title, label, rate in (
        (figures.event_rate, "event_rate", "Event rate", "events/s", True),
        (figures.background, "background", "Background brightness", GREY, False),
    ):
        plot = plots.course(course.time_s, course.values, label, f"course-{name}", rate=rate)
        if plot is None:
            if figures.events:
                missing.append(f"No course of the {inner(title)}: fewer than two intervals are known.")
            continue
        low, high = (number(end, 3) for end in _range(course))
        values = f"between {low} and {high}" if low != high else f"always {low}"
        text = f"{title} over time: {values} {label}."
        views.append(ChartView(name, title, plot, text, text))
    return tuple(views)


def _with_unit(value: float | None, unit: str) -> str:
    """Return a value of a feature with its unit, as part of a sentence."""
    return number(value) if unit in {"", "1"} else f"{number(value)} {unit}"


def _range(course: Course) -> tuple[float, float]:
    values = np.array([np.nan if value is None else value for value in course.values], np.float64)
    return float(np.nanmin(values)), float(np.nanmax(values))


def _feature(figures: Figures, name: str) -> FeatureFigures | None:
    return next((feature for feature in figures.features if feature.name == name), None)


def _title(figures: Figures, name: str) -> str:
    # A feature that the result lacks is called by its name in the file, where readers will search for it.
    return label_of(name)[0] if name in FIRST or is_peak(name) or _feature(figures, name) else name


def _unit(figures: Figures, name: str) -> str:
    return label_of(name)[1] if name in FIRST or is_peak(name) or _feature(figures, name) else ""
