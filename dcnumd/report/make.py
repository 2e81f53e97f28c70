"""Makes the report of one measurement."""

from __future__ import annotations

import json
import pathlib

from dcnumd.config.choices import Format
from dcnumd.report import scatter
from dcnumd.report.document import as_document
from dcnumd.report.drawings import axis_labels, draw, standard_cloud
from dcnumd.report.figures import measure
from dcnumd.report.page import render
from dcnumd.report.request import PAIR, ReportRequest, ReportSummary
from dcnumd.report.result_file import open_result
from dcnumd.write.result import ResultFile

ENDINGS: dict[Format, str] = {"png": ".png", "json": ".json", "html": ".html"}
"""Suffix of each format, in the order in which the files are written."""


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
        figures = measure(data, request.limits)
        main = standard_cloud(data, figures, request)
        labels = axis_labels(figures, PAIR)
        raster = scatter.dots(main) if main is not None else None
        contents: dict[Format, bytes] = {}
        if "json" in request.formats:
            document = as_document(figures)
            text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1)
            # Undecodable bytes in names are surrogates; "backslashreplace" writes "\\udc80", which is valid JSON, too.
            contents["json"] = text.encode("utf-8", "backslashreplace") + b"\n"
        if "png" in request.formats and main is not None and raster is not None:
            contents["png"] = scatter.picture(main, raster, labels, paper=True)
        if "html" in request.formats:
            data_name = report_path(request, "json").name if "json" in request.formats else ""
            page = render(figures, draw(data, figures, request, main, raster), data_name)
            contents["html"] = page.encode("utf-8", "backslashreplace")
    # The page is written last, when the files that it refers to exist, but comes first in the summary.
    paths = tuple(reversed([_write(request, kind, contents[kind]) for kind in ENDINGS if kind in contents]))
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
        thumbnail=scatter.thumbnail(main) if main is not None else b"",
        plot=scatter.picture(main, raster, labels) if main is not None and raster is not None else b"",
    )


def report_path(request: ReportRequest, kind: Format) -> pathlib.Path:
    """Return the path of one file of a report."""
    return request.path_report.with_name(request.path_report.name + ENDINGS[kind])


def _write(request: ReportRequest, kind: Format, content: bytes) -> pathlib.Path:
    path = report_path(request, kind)
    with ResultFile(path, existing="replace", job_id=request.job_id, root=request.root) as target:
        target.temporary.write_bytes(content)
        target.commit()
    return path
