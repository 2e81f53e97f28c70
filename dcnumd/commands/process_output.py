"""What the command `process` prints of files, results and failures."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

import click

from dcnumd.commands.report import LIGHTS
from dcnumd.errors import DcnumdError, JobCancelledError, printable
from dcnumd.logic.job import Job, JobResult
from dcnumd.report.request import ReportSummary
from dcnumd.report.wording import count_of
from dcnumd.words import duration

NO_REPORT: dict[str, Any] = {"report": (), "light": None, "warnings": ()}
"""Fields for other programs where there is no report."""


def announce(job: Job, *, as_json: bool) -> None:
    """Print a file and the path of its result."""
    exists = job.path_out.exists()
    if as_json:
        fields = {"path_in": os.fspath(job.path_in), "path_out": os.fspath(job.path_out), "exists": exists}
        click.echo(json.dumps(fields))
    else:
        click.echo(printable(f"{job.path_in} -> {job.path_out}{' (exists)' if exists else ''}"))


def summarize(jobs: Sequence[Job], ends: Sequence[JobResult | DcnumdError]) -> None:
    """Print how many files came to which end, and a line for each that failed, on stderr."""
    stopped = sum(isinstance(end, JobCancelledError) for end in ends)
    failed = [
        (job, end)
        for job, end in zip(jobs, ends, strict=False)
        if isinstance(end, DcnumdError) and not isinstance(end, JobCancelledError)
    ]
    skipped = sum(isinstance(end, JobResult) and end.outcome == "skipped" for end in ends)
    counts = {"done": len(ends) - skipped - stopped - len(failed), "skipped": skipped, "failed": len(failed)}
    if stopped:
        counts["not finished"] = stopped
    if len(ends) < len(jobs):
        counts["not begun"] = len(jobs) - len(ends)
    click.echo("\n" + ", ".join(f"{number} {end}" for end, number in counts.items()), err=True)
    for job, error in failed:
        click.echo(f"  {error.reason:16} {printable(os.fspath(job.path_in))}", err=True)


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
