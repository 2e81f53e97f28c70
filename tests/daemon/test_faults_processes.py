"""Processes that are killed, crash, hang or are ended: each measurement comes out once all the same."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from tests.soak.results import faults_of, temporary_files
from tests.support.faults import JOB_SECONDS, assert_done_once, published, result_of, wait_until, workers_of, working

pytestmark = pytest.mark.timeout(300)


def test_worker_that_dies_while_it_works_costs_no_attempt(start_daemon, long_measurement):
    """A worker that is killed or crashes is replaced, and its measurement comes out at the first attempt."""
    daemon = start_daemon()
    for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT):
        path = long_measurement(f"{number.name}.rtdc")
        working(daemon, path)
        victim = workers_of(daemon)[0].pid
        os.kill(victim, number)
        daemon.wait_for("worker.lost", pid=victim, role="segmenter")
        daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
        assert_done_once(daemon, path)
        assert faults_of(result_of(path)) == []


def test_worker_that_is_stopped_is_noticed_and_the_job_repeated(start_daemon, write_config, long_measurement):
    """A worker that hangs ends the attempt when the job has no more time, and then either works or is gone."""
    config = write_config()
    usual = config.read_text().replace("[retry]", "[retry]\nattempts = 10")
    config.write_text(usual.replace("nice = 0", "nice = 0\njob_timeout_seconds = 10"))
    daemon = start_daemon(config=config)
    path = long_measurement()
    working(daemon, path)
    stopped = workers_of(daemon)[0]
    stopped.suspend()
    failed = daemon.wait_for("job.failed", path=str(path), timeout=JOB_SECONDS)
    assert failed["reason"] in {"timeout", "stalled"}
    assert failed["will_retry"] is True
    # on a busy computer a whole attempt may take longer than that
    config.write_text(usual)
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for("config.reloaded")
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert not stopped.is_running() or stopped.status() != psutil.STATUS_STOPPED
    assert temporary_files([path.parent]) == []


def test_pipeline_process_that_dies_in_a_job_costs_one_attempt(start_daemon, long_measurement):
    """The next attempt succeeds, and nothing of the first one is left over."""
    daemon = start_daemon()
    for count, number in enumerate((signal.SIGKILL, signal.SIGSEGV), start=1):
        path = long_measurement(f"{number.name}.rtdc")
        working(daemon, path)
        everybody = psutil.Process(daemon.process.pid).children(recursive=True)
        pipeline = daemon.wait_for("worker.started", role="pipeline", count=count)["pid"]
        os.kill(pipeline, number)
        failed = daemon.wait_for("job.failed", path=str(path))
        assert (failed["reason"], failed["will_retry"], failed["attempt"]) == ("worker_killed", True, 1)
        daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
        working_before = [process for process in everybody if process.is_running() and process.pid != pipeline]
        assert not {process.pid for process in working_before} & {process.pid for process in workers_of(daemon)}
        daemon.wait_for("leftover.removed", count=count)
        assert temporary_files([path.parent]) == []
    assert daemon.stop() == 0


def test_pipeline_process_that_dies_idle_is_replaced_at_once(start_daemon, watched_folder):
    """A pipeline that is killed while it has nothing to do costs nobody an attempt."""
    daemon = start_daemon()
    pipeline = daemon.wait_for("worker.started", role="pipeline")["pid"]
    os.kill(pipeline, signal.SIGKILL)
    daemon.wait_for("worker.lost", pid=pipeline)
    daemon.wait_for("worker.started", role="pipeline", count=2)
    path = published(watched_folder, "M001.rtdc")
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert_done_once(daemon, path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_pipeline_process_that_dies_while_it_starts_is_started_again(start_daemon, watched_folder, number):
    """A pipeline that is killed before it is ready, for want of memory perhaps, does not end the daemon."""
    daemon = start_daemon(ready=False)
    supervisor = psutil.Process(daemon.process.pid)
    wait_until(lambda: [c for c in supervisor.children() if "spawn_main" in " ".join(c.cmdline())])
    (child,) = [c for c in supervisor.children() if "spawn_main" in " ".join(c.cmdline())]
    wait_until(lambda: child.memory_info().rss > 20e6 or not child.is_running())
    child.send_signal(number)
    daemon.wait_for("daemon.ready", timeout=JOB_SECONDS)
    path = published(watched_folder, "M001.rtdc")
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert_done_once(daemon, path)


def test_probe_that_dies_is_replaced(start_daemon, watched_folder):
    """The process that looks into files may die between two files; the next one is looked at by another."""
    daemon = start_daemon()
    for count, number in enumerate((signal.SIGKILL, signal.SIGSEGV), start=1):
        probe = daemon.wait_for("worker.started", role="probe", count=count)["pid"]
        os.kill(probe, number)
        path = published(watched_folder, f"{number.name}.rtdc", seed=count)
        daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
        assert_done_once(daemon, path)


def test_fork_server_that_dies_is_replaced(start_daemon, watched_folder, long_measurement):
    """The server takes its workers along; all of them are started anew, and the measurement comes out."""
    daemon = start_daemon()
    path = long_measurement()
    working(daemon, path)
    workers_of(daemon)[0].parent().kill()
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    other = published(watched_folder, "M001.rtdc")
    daemon.wait_for("job.finished", path=str(other), timeout=JOB_SECONDS)
    assert faults_of(result_of(path)) == []
    assert_done_once(daemon, other)


def test_memory_limit_that_cannot_be_kept_fails_until_it_is_changed(start_daemon, watched_folder):
    """What can never fit is told at once and not tried again; with another limit it is processed."""
    path = published(watched_folder, "M001.rtdc")
    daemon = start_daemon("--set", "resources.max_memory_mb=1")
    failed = daemon.wait_for("job.failed", path=str(path), timeout=JOB_SECONDS)
    assert (failed["reason"], failed["will_retry"]) == ("memory_limit", False)
    assert daemon.stop() == 0
    daemon = start_daemon("--set", "resources.max_memory_mb=4000")
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)


def test_sigterm_in_the_middle_of_a_long_job(start_daemon, long_measurement):
    """The daemon ends within 5 s and leaves nothing; the next one finishes the job at its first attempt."""
    daemon = start_daemon()
    path = long_measurement()
    working(daemon, path)
    everybody = psutil.Process(daemon.process.pid).children(recursive=True)
    begin = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - begin < 5
    # what is killed takes a moment to go
    left = psutil.wait_procs(everybody, timeout=2)[1]
    assert [process for process in left if process.status() != psutil.STATUS_ZOMBIE] == []
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    daemon = start_daemon()
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert_done_once(daemon, path)
