"""Processes that are killed, crash, hang or are ended: each measurement comes out once all the same."""

from __future__ import annotations

import os
import pathlib
import signal
import time
from collections.abc import Callable

import psutil
import pytest

from tests.soak.results import faults_of, temporary_files
from tests.support.daemon import Daemon
from tests.support.faults import JOB_SECONDS, assert_done_once, published, result_of, wait_until, workers_of, working

pytestmark = pytest.mark.timeout(300)

DEATHS = (signal.SIGKILL, signal.SIGSEGV)
FRAMES = 1200
"""Frames of a measurement that takes long enough to be disturbed."""
LongMeasurement = Callable[..., pathlib.Path]


def test_processes_that_die_are_replaced(start_daemon, watched_folder, long_measurement):
    """Killed or crashed, while they start, work or wait, they take no measurement along; nor does the end."""
    daemon = start_daemon(ready=False)
    for count, number in enumerate(DEATHS, start=1):
        kill_while_it_starts(daemon, number, count)
    daemon.wait_for("daemon.ready", timeout=JOB_SECONDS)
    for role, number in (("pipeline", DEATHS[0]), *(("probe", number) for number in DEATHS)):
        pid = daemon.wait_for("worker.started", role=role)["pid"]
        count = len(daemon.matching("worker.started", role=role))
        os.kill(pid, number)
        daemon.wait_for("worker.lost", pid=pid)
        if role == "pipeline":
            # at once, before there is anything to do
            daemon.wait_for("worker.started", role=role, count=count + 1)
        come_out_once(daemon, published(watched_folder, f"{role} {number.name}.rtdc"))
    kill_pipeline_in_a_job(daemon, long_measurement)
    kill_workers_in_a_job(daemon, long_measurement)
    kill_fork_server_in_a_job(daemon, long_measurement)
    come_out_once(daemon, published(watched_folder, "after.rtdc"))
    path = stop_in_a_job(daemon, long_measurement)
    daemon = start_daemon()
    come_out_once(daemon, path)
    assert daemon.stop() == 0


def come_out_once(daemon: Daemon, path: pathlib.Path) -> None:
    """Wait for a whole result, made at the first attempt."""
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert_done_once(daemon, path)
    assert faults_of(result_of(path)) == []


def kill_while_it_starts(daemon: Daemon, number: signal.Signals, count: int) -> None:
    """Kill the pipeline process before it is ready, as happens for want of memory: that does not end the daemon."""
    supervisor = psutil.Process(daemon.process.pid)

    def starting() -> list[psutil.Process]:
        children = [child for child in supervisor.children() if "spawn_main" in " ".join(child.cmdline())]
        return [child for child in children if child.memory_info().rss > 20e6]

    wait_until(starting)
    (child,) = starting()
    child.send_signal(number)
    daemon.wait_for("worker.failed", role="pipeline", count=count)


def kill_pipeline_in_a_job(daemon: Daemon, long_measurement: LongMeasurement) -> None:
    """Kill the pipeline process: that costs one attempt, takes the workers along, and leaves nothing over."""
    path = long_measurement("pipeline in a job.rtdc", FRAMES)
    for attempt, number in enumerate(DEATHS, start=1):
        daemon.wait_for("job.started", path=str(path), attempt=attempt)
        working(daemon, path)
        everybody = psutil.Process(daemon.process.pid).children(recursive=True)
        pipeline = daemon.wait_for("worker.started", role="pipeline")["pid"]
        os.kill(pipeline, number)
        failed = daemon.wait_for("job.failed", path=str(path), count=attempt)
        assert (failed["reason"], failed["will_retry"], failed["attempt"]) == ("worker_killed", True, attempt)
        daemon.wait_for("job.started", path=str(path), attempt=attempt + 1)
        working_before = [process for process in everybody if process.is_running() and process.pid != pipeline]
        assert not {process.pid for process in working_before} & {process.pid for process in workers_of(daemon)}
        daemon.wait_for("leftover.removed", count=attempt)
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert temporary_files([path.parent]) == []


def kill_workers_in_a_job(daemon: Daemon, long_measurement: LongMeasurement) -> None:
    """Kill a worker: another one tries the frames again, which costs no attempt."""
    for number in DEATHS:
        path = long_measurement(f"worker {number.name}.rtdc", FRAMES)
        working(daemon, path)
        victim = workers_of(daemon)[0].pid
        os.kill(victim, number)
        daemon.wait_for("worker.lost", pid=victim, role="segmenter")
        come_out_once(daemon, path)


def kill_fork_server_in_a_job(daemon: Daemon, long_measurement: LongMeasurement) -> None:
    """Kill what takes the workers along: all of them are started anew, and the measurement comes out."""
    path = long_measurement("fork server.rtdc", FRAMES)
    working(daemon, path)
    workers_of(daemon)[0].parent().kill()
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert faults_of(result_of(path)) == []


def stop_in_a_job(daemon: Daemon, long_measurement: LongMeasurement) -> pathlib.Path:
    """End the daemon: within 5 s, leaving no process and no file; return the measurement that waits again."""
    path = long_measurement("stopped.rtdc", FRAMES)
    working(daemon, path)
    everybody = psutil.Process(daemon.process.pid).children(recursive=True)
    begin = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - begin < 5
    # what is killed takes a moment to go
    left = psutil.wait_procs(everybody, timeout=30)[1]
    assert [process for process in left if process.status() != psutil.STATUS_ZOMBIE] == []
    assert not result_of(path).exists()
    assert temporary_files([path.parent]) == []
    return path


def test_limits_that_cannot_be_kept(start_daemon, write_config, watched_folder, long_measurement):
    """Too little memory is told at once and not tried again; a worker that hangs ends the attempt, and works or goes.

    Another config, which is read while the daemon runs, lifts the first, and gives the second the time that it needs.
    """
    config = write_config()
    usual = config.read_text().replace("[retry]", "[retry]\nattempts = 10")
    config.write_text(usual.replace("nice = 0", "nice = 0\nmax_memory_mb = 1"))
    path = published(watched_folder, "M001.rtdc")
    daemon = start_daemon(config=config)
    failed = daemon.wait_for("job.failed", path=str(path), timeout=JOB_SECONDS)
    assert (failed["reason"], failed["will_retry"]) == ("memory_limit", False)

    def reload(text: str, count: int) -> None:
        config.write_text(text)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("config.reloaded", count=count)

    reload(usual.replace("nice = 0", "nice = 0\nmax_memory_mb = 4000\njob_timeout_seconds = 10"), 1)
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)

    path = long_measurement(frames=FRAMES)
    working(daemon, path)
    stopped = workers_of(daemon)[0]
    stopped.suspend()
    failed = daemon.wait_for("job.failed", path=str(path), timeout=JOB_SECONDS)
    assert failed["reason"] in {"timeout", "stalled"}
    assert failed["will_retry"] is True
    # on a busy computer a whole attempt may take longer than that
    reload(usual, 2)
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert not stopped.is_running() or stopped.status() != psutil.STATUS_STOPPED
    assert temporary_files([path.parent]) == []
    # reports are off, so there is neither a page nor an index nor a process for them
    assert not list(watched_folder.glob("*.html"))
    assert not daemon.matching("worker.started", role="report")
    assert daemon.stop() == 0
