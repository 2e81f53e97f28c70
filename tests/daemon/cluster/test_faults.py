"""Each measurement is processed once, whatever happens to a worker, the scheduler or the daemon."""

from __future__ import annotations

import signal

import pytest

from tests.support.cluster import pipeline_of, processes
from tests.support.faults import assert_done_once, result_of, wait_until

pytestmark = pytest.mark.slow


def test_workers_may_be_killed_or_stopped(cluster, start_daemon, write_config, long):
    """A killed worker costs an attempt, one that is asked to stop costs none; the next worker does the job."""
    config = write_config(cluster.config())
    killed = cluster.start_worker("killed")
    daemon = start_daemon(config=config)
    path = long("long")
    processes(killed, path)
    killed.process.kill()
    lost = daemon.wait_for("job.failed", path=str(path))
    assert (lost["reason"], lost["will_retry"]) == ("worker_lost", True)

    stopped = cluster.start_worker("stopped")
    processes(stopped, path)
    assert stopped.stop() == 0
    assert daemon.wait_for("job.returned")["reason"] == "worker_ended"

    cluster.start_worker("last")
    daemon.wait_for("job.finished", path=str(path))
    assert [event["attempt"] for event in daemon.matching("job.started")] == [1, 2, 2]
    assert len(daemon.matching("job.finished")) == 1


def test_the_scheduler_may_be_killed(cluster, start_daemon, write_config, long):
    """Measurements wait for it without losing an attempt, and so do the workers."""
    config = write_config(cluster.config())
    worker = cluster.start_worker("stays")
    daemon = start_daemon(config=config)
    path = long("long")
    processes(worker, path)
    # The job must not end before the connection is there again.
    pipeline = pipeline_of(worker)
    pipeline.suspend()
    cluster.scheduler.kill()
    assert daemon.wait_for("job.returned")["reason"] == "executor_unreachable"
    daemon.wait_for("executor.unreachable")
    cluster.start_scheduler()
    daemon.wait_for("executor.recovered")
    daemon.wait_for("job.started", count=2)
    pipeline.resume()
    daemon.wait_for("job.finished", path=str(path))
    assert {event["attempt"] for event in daemon.matching("job.started")} == {1}
    assert not daemon.matching("job.failed")
    assert_done_once(daemon, path)


def test_a_killed_daemon_finds_its_job_again(cluster, start_daemon, write_config, long):
    """The job goes on meanwhile; the next daemon waits for it instead of handing it out twice."""
    config = write_config(cluster.config())
    worker = cluster.start_worker("goes on")
    daemon = start_daemon(config=config)
    path = long("long")
    processes(worker, path)
    # The job must not end before the next daemon asks for it.
    pipeline = pipeline_of(worker)
    pipeline.suspend()
    daemon.close()
    again = start_daemon(config=config)
    again.wait_for("job.started", path=str(path))
    pipeline.resume()
    # If it had been handed out twice, the second one would have found the result.
    assert "reason" not in again.wait_for("job.finished", path=str(path))
    assert_done_once(again, path)


def test_a_late_result_is_harmless(cluster, start_daemon, write_config, long):
    """A worker that was given up completes its result all the same; the next job finds it and has nothing to do."""
    worker = cluster.start_worker("late")
    config = write_config(cluster.config())
    daemon = start_daemon(config=config)
    path = long("long")
    processes(worker, path)
    # The process that talks to the scheduler stops, the one that computes does not.
    worker.process.send_signal(signal.SIGSTOP)
    assert daemon.wait_for("job.failed")["reason"] == "worker_lost"
    wait_until(result_of(path).exists)
    result = result_of(path).stat()
    cluster.start_worker("next")
    worker.process.send_signal(signal.SIGCONT)
    daemon.wait_for("job.skipped", path=str(path), reason="output_exists")
    assert result_of(path).stat().st_ino == result.st_ino
    # What it has to say is of no use to anybody, and it takes jobs again.
    worker.wait_for("worker.ready", count=2)
    assert daemon.stop() == 0
    assert worker.stop() == 0
