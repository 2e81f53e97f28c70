"""Functions that the daemon calls in its report process.

The supervisor imports this module to name the functions, so they import numerical code only when they are called.
"""

from __future__ import annotations

import pathlib

from dcnumd.config.values import PlotSettings
from dcnumd.report.request import IndexRow, LiveReport, LiveReportRequest, PlotKind, ReportRequest, ReportSummary


def warm_up(settings: PlotSettings) -> None:
    """Load all that reports need, so that the first of them is made as fast as the others."""
    from dcnumd.report import preload  # noqa: PLC0415 -- numerical code, which the supervisor must not load

    preload.load(with_isoelastics=settings.isoelastics)


def rate(request: ReportRequest) -> ReportSummary:
    """Rate a result; see `dcnumd.report.make.rate`."""
    from dcnumd.report import make  # noqa: PLC0415 -- numerical code, as above

    return make.rate(request)


def make_report(request: ReportRequest) -> ReportSummary:
    """Make the whole report of a result; see `dcnumd.report.make.make_report`."""
    from dcnumd.report import make  # noqa: PLC0415 -- numerical code, as above

    return make.make_report(request)


def export_plot(request: ReportRequest, name: str, kind: PlotKind) -> bytes | None:
    """Draw one plot of a report; see `dcnumd.report.make.export_plot`."""
    from dcnumd.report import make  # noqa: PLC0415 -- numerical code, as above

    return make.export_plot(request, name, kind)


def summarize_live(packed: bytes, request: LiveReportRequest) -> LiveReport:
    """Judge and draw a measurement that is being recorded; see `dcnumd.report.live.summarize`."""
    from dcnumd.report import live  # noqa: PLC0415 -- numerical code, as above

    return live.summarize(packed, request)


def update_index(
    folder: pathlib.Path, rows: list[IndexRow], failures: list[IndexRow] | None, removed: tuple[str, ...]
) -> None:
    """Update the index of a folder; see `dcnumd.report.index.update_index`."""
    from dcnumd.report import index  # noqa: PLC0415 -- numerical code, as above

    index.update_index(folder, rows, failures, removed=removed, root=folder)
