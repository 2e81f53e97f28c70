"""The statistics of features of many measurements as one table, for the command `history`."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import click

from dcnumd import routing
from dcnumd.commands.shown import print_csv, print_json
from dcnumd.config.values import Settings
from dcnumd.daemon.ledger.records import Entry
from dcnumd.errors import DcnumdError, printable
from dcnumd.report.index_rebuild import read_document
from dcnumd.report.request import report_path

MEASUREMENT_COLUMNS = ("path", "sample", "recorded", "events", "light", "pphash")
"""Columns of a measurement, before those of its features."""
STATISTICS = ("median", "mean", "sd")
"""Statistics of each feature; their columns are named like ``area_um_median``."""

Row = dict[str, Any]


def print_features(settings: Settings, entries: Iterable[Entry], *, as_json: bool) -> int:
    """Print one row for each measurement with a result, and return the exit code: 1 if a result cannot be read.

    Parameters
    ----------
    settings
        Settings with the folders of results and reports.
    entries
        The measurements.
    as_json
        Whether to print JSON instead of CSV.
    """
    rows, failures = [], 0
    # A row without an output belongs to a former content of its measurement, whose result was replaced.
    for entry in (one for one in entries if one.output):
        try:
            rows.append(_row(entry, _document_of(settings, entry)))
        except DcnumdError as error:
            failures += 1
            click.echo(f"Error: {printable(entry.path)}: {error.message}", err=True)
    if as_json:
        print_json(rows)
    else:
        columns = [*dict.fromkeys([*MEASUREMENT_COLUMNS, *(name for row in rows for name in row)])]
        print_csv(columns, ([row.get(name) for name in columns] for row in rows))
    return 1 if failures else 0


def _document_of(settings: Settings, entry: Entry) -> Mapping[str, Any]:
    """Return the figures of a result: from the file beside its report, or else computed from the result.

    Raises
    ------
    DcnumdError
        If the result cannot be read.
    """
    assert entry.output is not None
    request = routing.report_request_for(settings, pathlib.Path(entry.path), pathlib.Path(entry.output), entry.job_id)
    # The figures are written when the result is rated, before its page.
    document = read_document(report_path(request, "json")) if entry.light else None
    if document is not None and document.get("pphash") == entry.pphash:
        return document
    # Imported here because only results without such a file need numerical code.
    from dcnumd.report.document import as_document  # noqa: PLC0415
    from dcnumd.report.figures import measure  # noqa: PLC0415
    from dcnumd.report.result_file import open_result  # noqa: PLC0415

    with open_result(request) as data:
        return as_document(measure(data, request.limits))


def _row(entry: Entry, document: Mapping[str, Any]) -> Row:
    """Return the row of a measurement; what is not known is None."""
    row: Row = {
        "path": entry.path,
        "sample": document.get("sample"),
        "recorded": document.get("recorded"),
        "events": document.get("events"),
        "light": document.get("light"),
        "pphash": entry.pphash,
    }
    features = document.get("features")
    for feature in features if isinstance(features, list) else ():
        if isinstance(feature, dict) and isinstance(name := feature.get("name"), str):
            row |= {f"{name}_{statistic}": feature.get(statistic) for statistic in STATISTICS}
    return row
