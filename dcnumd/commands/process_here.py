"""Processing of the files of the command `process` on this computer, in this process, one after the other."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

from dcnumd.commands.process_output import Outcomes, tell_fallback, tell_missing_report
from dcnumd.commands.process_progress import ProgressDisplay, progress_display
from dcnumd.config.values import Settings
from dcnumd.errors import DcnumdError
from dcnumd.logic.job import Job, JobResult
from dcnumd.processes.fork_server import start_fork_server
from dcnumd.report.request import ReportRequest, ReportSummary


def process_here(
    settings: Settings, jobs: Sequence[Job], requests: Sequence[ReportRequest | None], outcomes: Outcomes
) -> None:
    """Process files until all have ended, or until the first Ctrl-C or SIGTERM.

    Parameters
    ----------
    settings
        Settings of logging.
    jobs, requests
        The jobs, and for each the request for the report of its result; None if none is wanted.
    outcomes
        Is told the outcome of each file.
    """
    # The fork server loads the kernels while this process imports the modules below, so they are not imported above.
    start_fork_server()
    from dcnumd.daemon import logs  # noqa: PLC0415

    with progress_display(len(jobs)) as display, stop_wish() as stop:
        # After the display has taken over stderr, so that log lines appear above it.
        logs.configure(settings.log, sys.stderr)
        for number, (job, request) in enumerate(zip(jobs, requests, strict=True), 1):
            if stop.is_set():
                break
            display.begin(job, number)
            deal_with(job, request, display, stop, outcomes)


def deal_with(
    job: Job, request: ReportRequest | None, display: ProgressDisplay, stop: threading.Event, outcomes: Outcomes
) -> None:
    """Process one file, make the report of its result if wanted, and tell the outcome."""
    report: ReportSummary | None = None
    end: JobResult | DcnumdError
    try:
        end = process_one(job, display, stop)
    except DcnumdError as error:
        end = error
    if request is not None and isinstance(end, JobResult) and end.outcome == "done":
        display.name_step("report")
        report = report_on(request, display)
    with display.hidden():
        outcomes.add(job, end, report)


def process_one(job: Job, display: ProgressDisplay, stop: threading.Event) -> JobResult:
    """Check one file, process it, and return the result.

    Raises
    ------
    DcnumdError
        If the file is not complete or cannot be processed.
    """
    from dcnumd.daemon.measurements.probe import inspect_file, job_for_complete  # noqa: PLC0415 -- see `process_here`
    from dcnumd.logic.process import process_measurement  # noqa: PLC0415 -- likewise

    found = inspect_file(job)
    if found.not_applicable:
        with display.hidden():
            tell_fallback(job, found.segmenter, found.not_applicable)
    return process_measurement(job_for_complete(job, found), on_progress=display.update, cancel=stop.is_set)


def report_on(request: ReportRequest, display: ProgressDisplay) -> ReportSummary | None:
    """Make the report of a result; if that fails, print why on stderr and return None."""
    from dcnumd.report.make import make_report  # noqa: PLC0415 -- see `process_here`

    try:
        return make_report(request)
    except DcnumdError as error:
        with display.hidden():
            tell_missing_report(request.path_result, error)
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
