"""What the command `process` tells of files, results and failures: lines, JSON, and a summary as CSV."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any, Self, TextIO

import click

from dcnumd.commands.report import LIGHTS
from dcnumd.errors import ConfigError, DcnumdError, JobCancelledError, printable
from dcnumd.logic.job import Job, JobResult
from dcnumd.report.request import ReportSummary
from dcnumd.report.wording import count_of
from dcnumd.words import duration

NO_REPORT: dict[str, Any] = {"report": (), "light": None, "warnings": ()}
"""Fields for other programs where there is no report."""


SUMMARY_COLUMNS = ("path", "result", "outcome", "reason", "worker", "frames", "events", "seconds", "ppid")
"""Columns of the summary; `path` and `result` are absolute, `seconds` is the duration of the processing [s]."""


class Summary:
    """Writes one row for each file that has ended, at once, so that a killed run leaves what was done.

    Parameters
    ----------
    path
        The file, which is replaced.

    Raises
    ------
    click.UsageError
        If it cannot be written.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        try:
            # File names are bytes; those that are no text are written as they are.
            self._file: TextIO = path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
        except OSError as error:
            raise click.UsageError(f"{path}: cannot be written: {error.strerror}") from error
        self._writer = csv.writer(self._file)
        self._write(SUMMARY_COLUMNS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

    def add(self, job: Job, end: JobResult | DcnumdError, worker: str) -> None:
        """Write the row of a file; `worker` is the name of the worker of a cluster, empty on this computer."""
        row: dict[str, object] = {"path": job.path_in, "worker": worker}
        if isinstance(end, DcnumdError):
            row["outcome"] = "stopped" if isinstance(end, JobCancelledError) else "failed"
            row["reason"] = end.reason
        else:
            counts = {"frames": end.frames, "events": end.events, "seconds": round(end.seconds, 3), "ppid": end.ppid}
            row |= {"result": end.path_out, "outcome": end.outcome, "reason": end.reason, **counts}
        self._write(row.get(column, "") for column in SUMMARY_COLUMNS)

    def _write(self, row: Iterable[object]) -> None:
        try:
            self._writer.writerow(row)
            self._file.flush()
        except OSError as error:
            raise click.ClickException(f"{self._path}: cannot be written: {error.strerror}") from error


class Outcomes:
    """Tells the outcome of each file when it is known, and how many there were of each kind at the end.

    Parameters
    ----------
    number
        Number of files.
    summary
        Summary to which rows are added; None for none.
    as_json
        Whether to print JSON for other programs.
    """

    def __init__(self, number: int, summary: Summary | None, *, as_json: bool) -> None:
        self._number = number
        self._summary = summary
        self._as_json = as_json
        self._ends: list[tuple[Job, JobResult | DcnumdError]] = []

    @property
    def exit_code(self) -> int:
        """The exit code for these outcomes; 1 also if files are left, which only a signal causes."""
        errors = [end for _, end in self._ends if isinstance(end, DcnumdError)]
        if any(isinstance(error, ConfigError) for error in errors):
            return 2
        return 1 if errors or len(self._ends) < self._number else 0

    def add(
        self, job: Job, end: JobResult | DcnumdError, report: ReportSummary | None = None, worker: str = ""
    ) -> None:
        """Print the outcome of a file, and add it to the summary."""
        self._ends.append((job, end))
        if isinstance(end, DcnumdError):
            tell_failure(job, end, as_json=self._as_json)
        else:
            tell(end, report, as_json=self._as_json)
        if self._summary is not None:
            self._summary.add(job, end, worker)

    def print_counts(self) -> None:
        """Print how many of several files came to which end, and a line for each that failed, on stderr."""
        if self._number <= 1 or self._as_json:
            return
        stopped = sum(isinstance(end, JobCancelledError) for _, end in self._ends)
        failed = [
            (job, end)
            for job, end in self._ends
            if isinstance(end, DcnumdError) and not isinstance(end, JobCancelledError)
        ]
        skipped = sum(isinstance(end, JobResult) and end.outcome == "skipped" for _, end in self._ends)
        done = len(self._ends) - skipped - stopped - len(failed)
        counts = {"done": done, "skipped": skipped, "failed": len(failed)}
        if stopped:
            counts["not finished"] = stopped
        if len(self._ends) < self._number:
            counts["not begun"] = self._number - len(self._ends)
        click.echo("\n" + ", ".join(f"{number} {end}" for end, number in counts.items()), err=True)
        for job, error in failed:
            click.echo(f"  {error.reason:16} {printable(os.fspath(job.path_in))}", err=True)


def announce(job: Job, *, as_json: bool) -> None:
    """Print a file and the path of its result."""
    exists = job.path_out.exists()
    if as_json:
        fields = {"path_in": os.fspath(job.path_in), "path_out": os.fspath(job.path_out), "exists": exists}
        click.echo(json.dumps(fields))
    else:
        click.echo(printable(f"{job.path_in} -> {job.path_out}{' (exists)' if exists else ''}"))


def tell(result: JobResult, summary: ReportSummary | None, *, as_json: bool) -> None:
    """Print the result of a file, with the outcome of its report if there is one."""
    if as_json:
        fields = NO_REPORT
        if summary is not None:
            fields = {"report": summary.paths, "light": summary.light, "warnings": summary.warnings}
        click.echo(json.dumps(dataclasses.asdict(result) | fields, default=os.fspath))
        return
    if result.outcome == "skipped":
        click.echo(printable(f"{result.path_in}: skipped ({result.reason}): {result.error or result.path_out}"))
        return
    speed = f", {result.frames / result.seconds:.0f} frames/s" if result.seconds else ""
    counts = f"{count_of(result.frames, 'frame')}, {count_of(result.events, 'event')}"
    if result.interrupted:
        counts = f"interrupted recording, {counts}"
    click.echo(printable(f"{result.path_in}: {counts} in {duration(result.seconds)}{speed} -> {result.path_out}"))
    if summary is not None:
        report = printable(os.fspath(summary.paths[0]))
        click.echo(f"  {click.style(summary.light, fg=LIGHTS[summary.light])}: {report}")
        for text in summary.texts:
            click.echo(f"  {printable(text)}")


def tell_failure(job: Job, error: DcnumdError, *, as_json: bool) -> None:
    """Print why a file was not processed."""
    if as_json:
        failure = {
            "outcome": "failed",
            "reason": error.reason,
            "error": error.message,
            "path_in": os.fspath(job.path_in),
            "path_out": os.fspath(job.path_out),
        }
        click.echo(json.dumps(failure | NO_REPORT))
    if isinstance(error, JobCancelledError):
        click.echo(printable(f"Stopped: {job.path_in} was not finished and will have no result"), err=True)
    else:
        text = error.message if str(job.path_in) in error.message else f"{job.path_in}: {error.message}"
        click.echo(f"Error: {printable(text)}", err=True)


def tell_fallback(job: Job, segmenter: str, reasons: tuple[str, ...]) -> None:
    """Print why a file is segmented by another segmenter than the configured one."""
    text = f"Note: {job.path_in}: segmented by {segmenter} instead ({'; '.join(reasons)})"
    click.echo(printable(text), err=True)


def tell_missing_report(result: pathlib.Path, error: DcnumdError) -> None:
    """Print why a result has no report."""
    click.echo(f"Warning: {printable(os.fspath(result))} has no report: {error.message}", err=True)
