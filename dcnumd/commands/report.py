"""The command `report`: makes the report of processed measurements, at once and in this process."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import click

from dcnumd import routing
from dcnumd.commands.options import json_option, with_settings
from dcnumd.config.values import Settings
from dcnumd.errors import DcnumdError, printable
from dcnumd.report.request import ReportRequest, ReportSummary

LIGHTS = {"green": "green", "yellow": "yellow", "red": "red", "grey": "white"}
"""Terminal colour of each traffic light."""


class Pair(click.ParamType[tuple[str, str]]):
    """A pair of features, such as ``area_um:bright_avg``."""

    name = "X:Y"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return the names of both features."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]  # click passes converted values through again
        x, _, y = value.partition(":")
        if not (x.isidentifier() and y.isidentifier()):
            self.fail(f"{value!r}: expected two features, such as area_um:bright_avg", param, ctx)
        return x, y


@click.command(epilog="Example: dcnumd report results/*_dcn.rtdc -o reports --pair area_um:bright_avg")
@click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path(path_type=pathlib.Path))
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(path_type=pathlib.Path, file_okay=False),
    help="Folder for the reports; else report.folder of the config, beside each file by default.",
)
@click.option("--pair", "pairs", type=Pair(), multiple=True, help="Two more features to plot. Can be repeated.")
@click.option(
    "--plots",
    "plots_folder",
    metavar="DIR",
    type=click.Path(path_type=pathlib.Path, file_okay=False),
    help="Also write each plot as a PNG and an SVG file into this folder.",
)
@json_option
@with_settings(config_needed=False)
def report(
    settings: Settings,
    files: tuple[pathlib.Path, ...],
    output: pathlib.Path | None,
    pairs: tuple[tuple[str, str], ...],
    plots_folder: pathlib.Path | None,
    as_json: bool,
) -> int:
    """Make the report of each FILE, a processed measurement of dcnumd or dcnum: a page, and its figures as JSON.

    An older report is replaced. Works without a config file, too. Exit code 1 if a report could not be made.
    """
    # The variable would override the locking that readers ask for; a lock of ours makes the writes of others fail.
    os.environ.pop("HDF5_USE_FILE_LOCKING", None)
    folder = output or settings.report.folder
    requests = make_requests(settings, [(path, folder or path.absolute().parent) for path in files], pairs)
    if plots_folder is not None:
        requests = [dataclasses.replace(request, path_plots=plots_folder.absolute()) for request in requests]
    # Importing the plotting library is slow, so wrong options are reported before.
    from dcnumd.report.make import make_report  # noqa: PLC0415

    failures = 0
    for request in requests:
        try:
            show(request, make_report(request), as_json=as_json)
        except DcnumdError as error:
            failures += 1
            show_failure(request, error, as_json=as_json)
    return 1 if failures else 0


def make_requests(
    settings: Settings, results: Iterable[tuple[pathlib.Path, pathlib.Path]], pairs: tuple[tuple[str, str], ...] = ()
) -> list[ReportRequest]:
    """Return one request for each result.

    Parameters
    ----------
    settings
        Settings of reports.
    results
        The path of each result, and the folder of its report.
    pairs
        Pairs of features to plot in addition to those of the settings.

    Raises
    ------
    click.UsageError
        If two results would have the same report.
    """
    requests: dict[pathlib.Path, ReportRequest] = {}
    for name, folder in results:
        path = name.absolute()
        request = routing.report_request(settings, path, folder.absolute())
        request = dataclasses.replace(request, pairs=tuple(dict.fromkeys((*request.pairs, *pairs))))
        if request.path_report in requests:
            raise click.UsageError(
                f"the reports of {path} and {requests[request.path_report].path_result} would both become "
                f"{request.path_report}; make them separately, with different -o"
            )
        requests[request.path_report] = request
    return list(requests.values())


def show(request: ReportRequest, summary: ReportSummary, *, as_json: bool) -> None:
    """Print the traffic light of a report, the paths of its files, and how many plots were written."""
    if as_json:
        values = {
            field.name: getattr(summary, field.name)
            for field in dataclasses.fields(summary)
            if field.name not in {"thumbnail", "plot"}
        }
        click.echo(json.dumps({"outcome": "done", "result": request.path_result, **values}, default=os.fspath))
        return
    light = click.style(summary.light, fg=LIGHTS[summary.light])
    events = f"{summary.events} event" + ("" if summary.events == 1 else "s")
    where = ", ".join(os.fspath(path) for path in summary.paths) or "nothing to write (report.formats)"
    click.echo(f"{printable(os.fspath(request.path_result))}: {light}, {events} -> {printable(where)}")
    for text in summary.texts:
        click.echo(f"  {text}")
    if summary.plots:
        folder = printable(os.fspath(summary.plots[0].parent))
        click.echo(f"  {len(summary.plots)} files of plots in {folder}")


def show_failure(request: ReportRequest, error: DcnumdError, *, as_json: bool) -> None:
    """Print why a report was not made."""
    if as_json:
        failure = {
            "outcome": "failed",
            "result": os.fspath(request.path_result),
            "reason": error.reason,
            "error": error.message,
        }
        click.echo(json.dumps(failure))
    text = error.message if str(request.path_result) in error.message else f"{request.path_result}: {error.message}"
    click.echo(f"Error: {printable(text)}", err=True)
