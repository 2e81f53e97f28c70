"""The command `process`: processes measurements at once, in this process, with the same checks as the daemon."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, assert_never

import click

from dcnumd.commands.options import json_option, with_settings
from dcnumd.commands.process_jobs import FrameSelection, make_jobs
from dcnumd.commands.process_output import announce, summarize, tell, tell_failure
from dcnumd.commands.process_progress import ProgressDisplay, progress_display
from dcnumd.commands.report import make_requests
from dcnumd.config.values import Settings
from dcnumd.errors import ConfigError, DcnumdError, MeasurementError, printable
from dcnumd.kernels.cache import ensure_compiled
from dcnumd.logic.job import Job, JobResult, KnownContent
from dcnumd.logic.memory import for_reports, in_mb
from dcnumd.processes.fork_server import start_fork_server
from dcnumd.report.request import ReportRequest, ReportSummary
from dcnumd.routing import report_folder_for

if TYPE_CHECKING:
    from dcnumd.daemon.measurements.probe import Verdict


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
    no_report: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Process each FILE now, or all measurements in a folder, without daemon or ledger.

    Each result gets a report beside it or, without -o, where the config says. Works without a config file, too. Exit
    code 1 if a measurement failed, 2 if the config does not fit.
    """
    jobs = make_jobs(settings, paths, output, frames, recursive=recursive)
    requests: Sequence[ReportRequest | None] = [None] * len(jobs)
    if settings.report.enabled and settings.report.formats and not no_report:
        requests = requests_for(settings, jobs, output)
        others = in_mb(for_reports(isoelastics=settings.report.plot.isoelastics))
        jobs = [dataclasses.replace(job, other_memory_mb=others) for job in jobs]
    if dry_run:
        for job in jobs:
            announce(job, as_json=as_json)
        return 0
    # The variable would override the locking that readers ask for; a lock of ours makes the instrument's writes fail.
    os.environ.pop("HDF5_USE_FILE_LOCKING", None)
    ensure_compiled(lambda text: click.echo(text, err=True))
    # The fork server loads the kernels while this process imports the modules below, so they are not imported above.
    start_fork_server()
    from dcnumd.daemon import logs  # noqa: PLC0415

    ends: list[JobResult | DcnumdError] = []
    with progress_display(len(jobs)) as display, stop_wish() as stop:
        # After the display has taken over stderr, so that log lines appear above it.
        logs.configure(settings.log, sys.stderr)
        for job, request in zip(jobs, requests, strict=True):
            if stop.is_set():
                break
            ends.append(deal_with(job, request, display, stop, as_json=as_json))
    if len(jobs) > 1 and not as_json:
        summarize(jobs, ends)
    if any(isinstance(end, ConfigError) for end in ends):
        return 2
    return 1 if stop.is_set() or any(isinstance(end, DcnumdError) for end in ends) else 0


def deal_with(
    job: Job, request: ReportRequest | None, display: ProgressDisplay, stop: threading.Event, *, as_json: bool
) -> JobResult | DcnumdError:
    """Process one file, make the report of its result if wanted, and print and return the outcome."""
    try:
        result = process_one(job, display, stop)
    except DcnumdError as error:
        with display.hidden():
            tell_failure(job, error, as_json=as_json)
        return error
    summary = None
    if request is not None and result.outcome == "done":
        display.name_step("report")
        summary = report_on(request, display)
    with display.hidden():
        tell(result, summary, as_json=as_json)
    return result


def requests_for(settings: Settings, jobs: Sequence[Job], output: pathlib.Path | None) -> list[ReportRequest]:
    """Return the requests for the reports of all jobs: beside their results in `output`, or as the settings say."""
    return make_requests(
        settings,
        [
            (job.path_out, job.path_out.parent if output else report_folder_for(settings, job.path_in, job.path_out))
            for job in jobs
        ],
    )


def process_one(job: Job, display: ProgressDisplay, stop: threading.Event) -> JobResult:
    """Check one file, process it, and return the result.

    Raises
    ------
    DcnumdError
        If the file is not complete or cannot be processed.
    """
    from dcnumd.daemon.measurements.probe import inspect_file  # noqa: PLC0415 -- see `process`
    from dcnumd.logic.process import process_measurement  # noqa: PLC0415 -- likewise

    display.begin(job)
    found = inspect_file(job)
    if found.verdict != "complete":
        problem, reason = not_complete(found.verdict)
        raise MeasurementError(f"{job.path_in}: {problem}", reason)
    if found.not_applicable:
        with display.hidden():
            reasons = "; ".join(found.not_applicable)
            click.echo(printable(f"Note: {job.path_in}: segmented by {found.segmenter} instead ({reasons})"), err=True)
    if found.content is not None:
        job = dataclasses.replace(job, known=KnownContent(found.stamp, found.content.digest))
    return process_measurement(job, on_progress=display.update, cancel=stop.is_set)


def not_complete(verdict: Verdict) -> tuple[str, str]:
    """Return why a file is not processed now, as text and as reason code."""
    match verdict:
        case "complete":
            raise ValueError("a complete file is processed")
        case "own_output":
            return "is a result that was made here", verdict
        case "open_for_writing":
            return "is open for writing, or its recording was interrupted", verdict
        case "truncated":
            return "is shorter than its header says: it is still being copied, or was cut off", verdict
        case "blank":
            return "has frames that are all zero, so it was not copied to its end; copy it again", "incomplete"
        case "changing":
            return "is being written", verdict
    assert_never(verdict)


def report_on(request: ReportRequest, display: ProgressDisplay) -> ReportSummary | None:
    """Make the report of a result; if that fails, print why on stderr and return None."""
    from dcnumd.report.make import make_report  # noqa: PLC0415 -- see `process`

    try:
        return make_report(request)
    except DcnumdError as error:
        with display.hidden():
            click.echo(f"Warning: {printable(os.fspath(request.path_result))} has no report: {error.message}", err=True)
        return None


@contextlib.contextmanager
def stop_wish() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C or SIGTERM sets; the second one raises `KeyboardInterrupt`."""
    wish = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if wish.is_set():
            raise KeyboardInterrupt
        wish.set()

    earlier = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wish
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
