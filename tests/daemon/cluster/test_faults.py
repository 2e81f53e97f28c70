"""Each measurement is processed once, whatever happens to a worker, the scheduler or the daemon."""

from __future__ import annotations

import signal

import pytest

from tests.soak.results import temporary_files
from tests.support.cluster import pipeline_of, processes, processor_of
from tests.support.faults import assert_done_once, result_of, wait_until

pytestmark = pytest.mark.slow


def ends(daemon, path):
    """Return the events that say that a measurement has its result."""
    return [*daemon.matching("job.finished", path=str(path)), *daemon.matching("job.skipped", path=str(path))]


def test_a_killed_daemon_finds_its_jobs_again(shared_cluster, pair, start_daemon, write_config, long):
    """Two are out; they go on meanwhile, and the next daemon waits for them instead of handing them out twice."""
    config = write_config(shared_cluster.config())
    daemon = start_daemon(config=config)
    paths = [long(name, frames=500) for name in ("first", "second")]
    # The jobs must not end before the next daemon asks for them.
    pipelines = [pipeline_of(processor_of(pair, path)) for path in paths]
    assert pipelines[0] != pipelines[1]
    for pipeline in pipelines:
        pipeline.suspend()
    daemon.close()
    again = start_daemon(config=config)
    for path in paths:
        again.wait_for("job.started", path=str(path))
    for pipeline in pipelines:
        pipeline.resume()
    for path in paths:
        # If it had been handed out twice, the second one would have found the result.
        assert "reason" not in again.wait_for("job.finished", path=str(path))
    assert_done_once(again, *paths)
    assert again.stop() == 0


def test_the_scheduler_may_be_killed(shared_cluster, pair, start_daemon, write_config, long):
    """Measurements wait for it without losing an attempt, and so do the workers."""
    daemon = start_daemon(config=write_config(shared_cluster.config()))
    path = long("long", frames=500)
    # The job must not end before the connection is there again.
    pipeline = pipeline_of(processor_of(pair, path))
    pipeline.suspend()
    shared_cluster.scheduler.kill()
    assert daemon.wait_for("job.returned")["reason"] == "executor_unreachable"
    daemon.wait_for("executor.unreachable")
    shared_cluster.start_scheduler()
    daemon.wait_for("executor.recovered")
    daemon.wait_for("job.started", count=2)
    pipeline.resume()
    # If the other worker has got it now, the slower of the two finds the result.
    wait_until(lambda: ends(daemon, path), daemon=daemon)
    wait_until(lambda: not temporary_files([path.parent]))
    assert {event["attempt"] for event in daemon.matching("job.started")} == {1}
    assert not daemon.matching("job.failed")
    assert daemon.stop() == 0
    assert len(ends(daemon, path)) == 1


@pytest.mark.soak
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
