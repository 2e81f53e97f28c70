"""While the scheduler or all workers have been gone for long, the daemon processes measurements itself, once each."""

from __future__ import annotations

import json
import urllib.request

import pytest

from tests.support.cluster import free_port
from tests.support.faults import draw_long, published, recording, result_of, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.soak]
SOON = 0.02
"""Time without a scheduler or a worker after which jobs run here [min]."""


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def config(cluster, write_config, port):
    """Return a config that has jobs processed here soon."""
    return write_config(cluster.config(fallback_minutes=SOON) + f'[web]\nlisten = "127.0.0.1:{port}"\n')


def test_jobs_run_here_until_the_scheduler_is_back(cluster, start_daemon, config, watched_folder, port):
    """What the worker completes without a scheduler and what is processed here makes one result."""
    worker = cluster.start_worker("there")
    worker.wait_for("worker.ready")
    daemon = start_daemon(config=config)
    long = long_measurement(watched_folder)
    wait_until(lambda: (status(port)["running"] or {}).get("worker") == "there")
    cluster.scheduler.kill()
    daemon.wait_for("executor.fallback")
    assert status(port)["cluster"]["fallback"]
    assert "executor.fallback" in [one["name"] for one in status(port)["conditions"]]
    wait_until(lambda: ends(daemon, long))
    here = published(watched_folder, "here.rtdc")
    daemon.wait_for("job.finished", path=str(here))

    cluster.start_scheduler()
    daemon.wait_for("executor.fallback_ended")
    worker.wait_for("worker.ready", count=2)
    there = published(watched_folder, "there.rtdc", seed=1)
    daemon.wait_for("job.finished", path=str(there))
    # Both are so short that the pipeline says so.
    assert worker.matching("log.message", path=str(there))
    assert not worker.matching("log.message", path=str(here))
    assert sorted(path.name for path in watched_folder.glob("*_dcn.rtdc")) == [
        result_of(path).name for path in (here, long, there)
    ]
    wait_until(lambda: not list(watched_folder.glob(".*")))
    assert not status(port)["cluster"]["fallback"]
    assert len(ends(daemon, long)) == 1
    assert not daemon.matching("job.failed")


def test_a_recording_suspends_jobs_only_while_they_run_here(cluster, start_daemon, config, watched_folder, port):
    """The scheduler has no worker; a job that is suspended goes on after the recording, though a worker has come."""
    daemon = start_daemon("--set", "resources.pause_while_acquiring=true", config=config)
    daemon.wait_for("executor.fallback")
    assert "so this computer processes them" in status(port)["conditions"][0]["text"]
    long = long_measurement(watched_folder)
    daemon.wait_for("job.started", path=str(long))
    with recording(watched_folder / "recording.rtdc"):
        daemon.wait_for("pipeline.held", path=str(long))
        cluster.start_worker("late").wait_for("worker.ready")
        wait_until(lambda: status(port)["cluster"]["workers"])
        assert not daemon.matching("executor.fallback_ended")
    daemon.wait_for("job.finished", path=str(long))
    daemon.wait_for("executor.fallback_ended")


def long_measurement(folder):
    draw_long(folder / ".writing", frames=6000)
    return (folder / ".writing").rename(folder / "long.rtdc")


def ends(daemon, path):
    """Return the events that say that a measurement has its result."""
    return [*daemon.matching("job.finished", path=str(path)), *daemon.matching("job.skipped", path=str(path))]


def status(port: int) -> dict[str, object]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/status", timeout=60) as answer:
        return json.load(answer)
