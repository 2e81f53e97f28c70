"""A daemon that looks at everything once, in the process of the test: cheap when there is little to do."""

from __future__ import annotations

import asyncio
import pathlib
import signal
from typing import Any

import structlog

from dcnumd.config.file import load_settings
from dcnumd.config.values import PlotSettings
from dcnumd.daemon.measurements.report_process import ReportProcess
from dcnumd.daemon.supervisor import Supervisor
from dcnumd.daemon.workers import Workers
from tests.support.fakes import FakeChild, FakeExecutor

HANDLED = (signal.SIGUSR1, signal.SIGHUP)


def run_once(config: pathlib.Path) -> list[Any]:
    """Do what ``dcnumd run --once`` does, with calls instead of processes; return what is logged."""
    supervisor = Supervisor(load_settings(config), once=True)
    report = FakeChild()
    supervisor._workers = Workers(FakeExecutor(), FakeChild(), report, ReportProcess(report, PlotSettings()))
    handlers = [(number, signal.getsignal(number)) for number in HANDLED]
    try:
        with structlog.testing.capture_logs() as heard:
            assert asyncio.run(supervisor.run()) == 0, heard
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)
    return heard


def assert_nothing_left_to_do(config: pathlib.Path) -> None:
    """Look at everything: the ledger is sound, nothing waits, and no job begins."""
    names = {event["event"] for event in run_once(config)}
    assert "daemon.ready" in names
    assert not names & {"ledger.damaged", "job.queued", "job.started"}, names
