"""Makes the report of one measurement: what is needed to rate it at once, or the whole of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Mapping

from PIL import Image

from dcnumd.config.choices import Format
from dcnumd.errors import ResultError
from dcnumd.report import scatter
from dcnumd.report.cloud import Cloud
from dcnumd.report.document import as_document
from dcnumd.report.drawings import axis_labels, draw, standard_cloud
from dcnumd.report.figures import Figures, measure
from dcnumd.report.page import render
from dcnumd.report.plots import Plot
from dcnumd.report.request import ENDINGS, PAIR, PlotKind, ReportRequest, ReportSummary, report_path
from dcnumd.report.result_file import ResultData, open_result
from dcnumd.write.result import ResultFile


@dataclasses.dataclass(frozen=True, slots=True)
class Rating:
    """The part of a report that is made first: the figures, and the standard plot (None if there is nothing to plot).

    It takes a fraction of the time of the whole report, which also has a gallery and further plots.
    """

    figures: Figures
    main: Cloud | None
    raster: Image.Image | None
    labels: tuple[str, str]

    @classmethod
    def of(cls, data: ResultData, request: ReportRequest) -> Rating:
        """Evaluate an open result."""
        figures = measure(data, request.limits)
        main = standard_cloud(data, figures, request)
        return cls(figures, main, None if main is None else scatter.dots(main), axis_labels(figures, PAIR))

    def document(self) -> bytes:
        """Return the figures as JSON."""
        text = json.dumps(as_document(self.figures), ensure_ascii=False, allow_nan=False, indent=1)
        # Undecodable bytes in names are surrogates; "backslashreplace" writes "\\udc80", which is valid JSON, too.
        return text.encode("utf-8", "backslashreplace") + b"\n"

    def picture(self, *, paper: bool = False) -> bytes:
        """Return the standard plot, see `scatter.picture`; empty if there is nothing to plot."""
        if self.main is None or self.raster is None:
            return b""
        return scatter.picture(self.main, self.raster, self.labels, paper=paper)

    def summary(self, paths: tuple[pathlib.Path, ...]) -> ReportSummary:
        """Return what the index and the live page show, with the files that were written."""
        figures = self.figures
        found = [check for check in figures.checks if check.state in {"warning", "alarm"}]
        return ReportSummary(
            paths=paths,
            light=figures.light,
            warnings=tuple(check.name for check in found),
            texts=tuple(check.text for check in found),
            sample=figures.sample,
            recorded=figures.recorded,
            events=figures.events,
            frames=figures.frames,
            thumbnail=scatter.thumbnail(self.main) if self.main is not None else b"",
            plot=self.picture(),
        )


def rate(request: ReportRequest) -> ReportSummary:
    """Evaluate a result and write its figures, if these are a wanted format, but no other file.

    If the figures cannot be written, the result is rated all the same. They are not synced to the disk, because
    `make_report` writes them again.

    Parameters
    ----------
    request
        The result to evaluate, and the files of its report.

    Returns
    -------
    summary
        The main findings, and the file of figures if it was written.

    Raises
    ------
    MeasurementError
        If the file cannot be opened, or is not a result.
    """
    with open_result(request) as data:
        rating = Rating.of(data, request)
    paths: tuple[pathlib.Path, ...] = ()
    if "json" in request.formats:
        with contextlib.suppress(ResultError):
            paths = (_write(request, report_path(request, "json"), rating.document(), durable=False),)
    return rating.summary(paths)


def make_report(request: ReportRequest) -> ReportSummary:
    """Evaluate a result and write its report.

    Each file appears under its name when it is complete, and replaces an older one. After an error, files that were
    written before it remain.

    Parameters
    ----------
    request
        The result to evaluate, and the files to write.

    Returns
    -------
    summary
        The files that were written, and the main findings.

    Raises
    ------
    MeasurementError
        If the file cannot be opened, or is not a result.
    ResultError
        If a file cannot be written, see `ResultFile`.
    """
    with open_result(request) as data:
        rating = Rating.of(data, request)
        contents: dict[Format, bytes] = {}
        if "json" in request.formats:
            contents["json"] = rating.document()
        if "png" in request.formats and rating.raster is not None:
            contents["png"] = rating.picture(paper=True)
        drawings = None
        if "html" in request.formats or request.path_plots is not None:
            drawings = draw(data, rating.figures, request, rating.main, rating.raster)
        if "html" in request.formats and drawings is not None:
            data_name = report_path(request, "json").name if "json" in request.formats else ""
            contents["html"] = render(rating.figures, drawings, data_name).encode("utf-8", "backslashreplace")
    # The page is written last, when the files that it refers to exist, but comes first in the summary.
    written = [_write(request, report_path(request, kind), contents[kind]) for kind in ENDINGS if kind in contents]
    plots = _write_plots(request, drawings.plots()) if drawings is not None else ()
    return dataclasses.replace(rating.summary(tuple(reversed(written))), plots=plots)


def export_plot(request: ReportRequest, name: str, kind: PlotKind) -> bytes | None:
    """Return one plot of a report as the content of a file; None if there is no plot of this name.

    Raises
    ------
    MeasurementError
        As for `make_report`.
    """
    # Without a gallery, no images of cells need to be read.
    request = dataclasses.replace(request, gallery=0)
    with open_result(request) as data:
        rating = Rating.of(data, request)
        plot = draw(data, rating.figures, request, rating.main, rating.raster).plots().get(name)
    if plot is None:
        return None
    return plot.as_png() if kind == "png" else plot.as_svg_file()


def _write_plots(request: ReportRequest, plots: Mapping[str, Plot]) -> tuple[pathlib.Path, ...]:
    """Write each plot as a PNG and as an SVG file, on white, if a folder for them is given; return their paths."""
    if request.path_plots is None:
        return ()
    free = dataclasses.replace(request, root=None)
    return tuple(
        _write(free, request.path_plots / f"{request.path_report.name}_{name}{ending}", content)
        for name, plot in plots.items()
        for ending, content in ((".png", plot.as_png()), (".svg", plot.as_svg_file()))
    )


def _write(request: ReportRequest, path: pathlib.Path, content: bytes, *, durable: bool = True) -> pathlib.Path:
    with ResultFile(path, existing="replace", job_id=request.job_id, root=request.root, durable=durable) as target:
        target.temporary.write_bytes(content)
        target.commit()
    return path
