"""The command `process`: processes measurements at once, with the same checks as the daemon, but without ledger."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, get_args

import click

from dcnumd.commands.options import json_option, with_settings
from dcnumd.commands.process_cluster import cluster_settings, process_on_cluster
from dcnumd.commands.process_here import process_here
from dcnumd.commands.process_jobs import FrameSelection, make_jobs
from dcnumd.commands.process_output import Outcomes, Summary, announce
from dcnumd.commands.report import make_requests
from dcnumd.config.choices import ExecutorKind
from dcnumd.config.values import Settings
from dcnumd.kernels.cache import ensure_compiled
from dcnumd.logic.job import Job
from dcnumd.logic.memory import for_reports, in_mb
from dcnumd.report.request import ReportRequest
from dcnumd.routing import report_folder_for


class FrameChoice(click.ParamType[FrameSelection]):
    """A selection of frames: ``1000`` (the first 1000), ``0:1000:2`` (a slice), ``3,5,8`` (single frames)."""

    name = "FRAMES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> FrameSelection:
        """Return the selection as an index mapping: a number, a slice or a tuple."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]  # click passes converted values through again
        if re.fullmatch(r"\d+", value):
            return int(value)
        if re.fullmatch(r"\d+(,\d+)*,?", value):
            return tuple(int(number) for number in value.rstrip(",").split(","))
        if re.fullmatch(r"(-?\d*)(:-?\d*){1,2}", value):
            return slice(*(int(number) if number else None for number in value.split(":")))
        return self.fail(f"{value!r}: expected 1000 (the first 1000), 0:1000:2 (a slice) or 3,5,8 (a list)", param, ctx)


@click.command(
    epilog="Example: dcnumd process M001_data.rtdc /data/2026-11-21 -o results --set output.basin_strategy=drain"
)
@click.argument("paths", metavar="FILE…", nargs=-1, required=True, type=click.Path(path_type=pathlib.Path))
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    type=click.Path(path_type=pathlib.Path, file_okay=False),
    help="Folder for the results; else as the config says, beside each file by default.",
)
@click.option("-r", "--recursive", is_flag=True, help="Process what is in the subfolders of folders, too.")
@click.option("--frames", type=FrameChoice(), help="Only these frames: 1000, 0:1000:2 or 3,5,8.")
@click.option(
    "--executor",
    type=click.Choice(get_args(ExecutorKind)),
    default="local",
    help='"dask": on the cluster that [executor] of the config names, several files at the same time.',
)
@click.option(
    "--summary",
    "summary_file",
    metavar="FILE",
    type=click.Path(path_type=pathlib.Path, dir_okay=False),
    help="Write a row for each file that has ended into this CSV file, which is replaced.",
)
@click.option(
    "--interrupted",
    is_flag=True,
    help="Process also files that are open for writing in SWMR mode, with the frames that all features have; only for "
    "recordings that nobody continues.",
)
@click.option("--no-report", is_flag=True, help="Make no reports of the results.")
@click.option("--dry-run", is_flag=True, help="Only list the files and their results; process nothing.")
@json_option
@with_settings(config_needed=False)
def process(
    settings: Settings,
    paths: tuple[pathlib.Path, ...],
    output: pathlib.Path | None,
    recursive: bool,
    frames: FrameSelection | None,
    executor: ExecutorKind,
    summary_file: pathlib.Path | None,
    interrupted: bool,
    no_report: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Process each FILE now, or all measurements in a folder, without daemon or ledger.

    Each result gets a report beside it or, without -o, where the config says. Works without a config file, too. Exit
    code 1 if a measurement failed, 2 if the config does not fit.
    """
    jobs = make_jobs(settings, paths, output, frames, recursive=recursive)
    jobs = [dataclasses.replace(job, interrupted=interrupted) for job in jobs]
    requests: Sequence[ReportRequest | None] = [None] * len(jobs)
    if settings.report.enabled and settings.report.formats and not no_report:
        requests = requests_for(settings, jobs, output)
        others = in_mb(for_reports(isoelastics=settings.report.plot.isoelastics))
        jobs = [dataclasses.replace(job, other_memory_mb=others) for job in jobs]
    if dry_run:
        for job in jobs:
            announce(job, as_json=as_json)
        return 0
    if executor == "dask":
        settings = cluster_settings(settings, jobs, requests)
    # The variable would override the locking that readers ask for; a lock of ours makes the instrument's writes fail.
    os.environ.pop("HDF5_USE_FILE_LOCKING", None)
    with contextlib.ExitStack() as stack:
        summary = stack.enter_context(Summary(summary_file)) if summary_file is not None else None
        outcomes = Outcomes(len(jobs), summary, as_json=as_json)
        ensure_compiled(lambda text: click.echo(text, err=True))
        run = process_on_cluster if executor == "dask" else process_here
        run(settings, jobs, requests, outcomes)
    outcomes.print_counts()
    return outcomes.exit_code


def requests_for(settings: Settings, jobs: Sequence[Job], output: pathlib.Path | None) -> list[ReportRequest]:
    """Return the requests for the reports of all jobs: beside their results in `output`, or as the settings say."""
    return make_requests(
        settings,
        [
            (job.path_out, job.path_out.parent if output else report_folder_for(settings, job.path_in, job.path_out))
            for job in jobs
        ],
    )
