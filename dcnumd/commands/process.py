"""The command `process`: processes measurements at once, in this process, with the same checks as the daemon."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, assert_never

import click

from dcnumd.commands.options import json_option, with_settings
from dcnumd.commands.process_jobs import FrameSelection, make_jobs
from dcnumd.config.values import Settings
from dcnumd.errors import ConfigError, DcnumdError, JobCancelledError, MeasurementError, printable
from dcnumd.kernels.cache import ensure_compiled
from dcnumd.logic.job import Job, JobResult, KnownContent, Progress
from dcnumd.processes.fork_server import start_fork_server
from dcnumd.words import duration

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
@click.option("--dry-run", is_flag=True, help="Only list the files and their results; process nothing.")
@json_option
@with_settings(config_needed=False)
def process(
    settings: Settings,
    paths: tuple[pathlib.Path, ...],
    output: pathlib.Path | None,
    recursive: bool,
    frames: FrameSelection | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Process each FILE now, or all measurements in a folder, without daemon or ledger.

    Works without a config file, too. Exit code 1 if a measurement failed, 2 if the config does not fit.
    """
    jobs = make_jobs(settings, paths, output, frames, recursive=recursive)
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
    with progress_of(len(jobs)) as show, stop_wish() as stop:
        # After the progress bar has taken over stderr, so that log lines appear above it.
        logs.configure(settings.log, sys.stderr)
        for job in jobs:
            if stop.is_set():
                break
            try:
                result = process_one(job, show, stop.is_set)
                ends.append(result)
                report(result, as_json=as_json)
            except DcnumdError as error:
                ends.append(error)
                report_failure(job, error, as_json=as_json)
    if len(jobs) > 1 and not as_json:
        summarize(jobs, ends)
    if any(isinstance(end, ConfigError) for end in ends):
        return 2
    return 1 if stop.is_set() or any(isinstance(end, DcnumdError) for end in ends) else 0


def process_one(job: Job, show: Callable[[Job, Progress | None], None], cancelled: Callable[[], bool]) -> JobResult:
    """Check one file, process it, and return the result.

    Raises
    ------
    DcnumdError
        If the file is not complete or cannot be processed.
    """
    from dcnumd.daemon.measurements.probe import inspect_file  # noqa: PLC0415 -- see `process`
    from dcnumd.logic.process import process_measurement  # noqa: PLC0415 -- likewise

    show(job, None)
    found = inspect_file(job)
    if found.verdict != "complete":
        problem, reason = not_complete(found.verdict)
        raise MeasurementError(f"{job.path_in}: {problem}", reason)
    if found.content is not None:
        job = dataclasses.replace(job, known=KnownContent(found.stamp, found.content.digest))
    return process_measurement(job, on_progress=lambda progress: show(job, progress), cancel=cancelled)


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
    failed = [(job, end) for job, end in zip(jobs, ends, strict=False) if isinstance(end, DcnumdError)]
    skipped = sum(isinstance(end, JobResult) and end.outcome == "skipped" for end in ends)
    counts = {"done": len(ends) - skipped - len(failed), "skipped": skipped, "failed": len(failed)}
    if len(ends) < len(jobs):
        counts["not begun"] = len(jobs) - len(ends)
    click.echo("\n" + ", ".join(f"{number} {end}" for end, number in counts.items()), err=True)
    for job, error in failed:
        click.echo(f"  {error.reason:16} {printable(os.fspath(job.path_in))}", err=True)


def report(result: JobResult, *, as_json: bool) -> None:
    """Print the result of a file."""
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(result), default=os.fspath))
    elif result.outcome == "skipped":
        click.echo(f"{result.path_in}: skipped ({result.reason}): {result.error or result.path_out}")
    else:
        speed = f", {result.frames / result.seconds:.0f} frames/s" if result.seconds else ""
        click.echo(
            f"{result.path_in}: {result.frames} frames, {result.events} events in {duration(result.seconds)}{speed}"
            f" -> {result.path_out}"
        )


def report_failure(job: Job, error: DcnumdError, *, as_json: bool) -> None:
    """Print why a file was not processed."""
    if as_json:
        failure = {
            "outcome": "failed",
            "reason": error.reason,
            "error": error.message,
            "path_in": os.fspath(job.path_in),
            "path_out": os.fspath(job.path_out),
        }
        click.echo(json.dumps(failure))
    if isinstance(error, JobCancelledError):
        click.echo(f"Stopped: {job.path_in} was not finished and will have no result", err=True)
    else:
        text = error.message if str(job.path_in) in error.message else f"{job.path_in}: {error.message}"
        click.echo(f"Error: {text}", err=True)


@contextlib.contextmanager
def progress_of(number: int) -> Iterator[Callable[[Job, Progress | None], None]]:
    """Yield a function that shows the progress of a job on stderr; it does nothing unless stderr is a terminal.

    Parameters
    ----------
    number
        Number of jobs.
    """
    if not sys.stderr.isatty():
        yield lambda _job, _progress: None
        return
    import rich.console  # noqa: PLC0415 -- see `process`
    import rich.progress  # noqa: PLC0415 -- likewise

    console = rich.console.Console(stderr=True)
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.TextColumn("{task.fields[stage]}"),
        rich.progress.TimeRemainingColumn(),
    )
    # Output that is piped to another program must stay on stdout.
    redirect = sys.stdout.isatty()
    with rich.progress.Progress(*columns, console=console, transient=True, redirect_stdout=redirect) as bar:
        task = bar.add_task("", total=None, stage="")

        def show(job: Job, progress: Progress | None) -> None:
            if progress is None:
                text = f"[{job.job_id}/{number}] {job.path_in.name}".replace("[", r"\[")
                bar.reset(task, description=text, total=None, stage="inspection")
            else:
                stage = f"{progress.stage}, {progress.events} events"
                bar.update(task, completed=progress.frames_done, total=progress.frames, stage=stage)

        yield show


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
