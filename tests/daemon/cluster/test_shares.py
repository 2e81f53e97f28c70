"""A worker with other mounts than the daemon, with little memory, or with another time."""

from __future__ import annotations

import datetime as dt
import time

import pytest

from dcnumd.cli import main
from tests.soak.results import temporary_files
from tests.support.cluster import HURRIED, an_hour_ahead, being_processed, dask_cluster, pipeline_of
from tests.support.compared import result_differences
from tests.support.daemon import HANG_SECONDS
from tests.support.faults import assert_done_once, draw_long, published, result_of

pytestmark = [pytest.mark.slow, pytest.mark.soak]


@pytest.fixture(scope="module")
def worker(facility):
    """Return a worker on the server."""
    started = facility.cluster.start_worker("server")
    started.wait_for("worker.ready")
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the watched folder of all tests here, because a result names the path of its measurement."""
    return tmp_path_factory.mktemp("acquisition")


@pytest.fixture
def watched_folder(folder):
    for path in folder.iterdir():
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def local_result(folder, tmp_path_factory):
    """Return the result of this computer for the measurement that `published` writes, beside that measurement."""
    place = tmp_path_factory.mktemp("local")
    path = published(folder, "M.rtdc")
    assert main(["process", str(path), "--no-report"]) == 0
    path.rename(place / path.name)
    return result_of(path).rename(place / result_of(path).name)


@pytest.fixture
def share(facility, tmp_path, watched_folder):
    """Return the place where the server has mounted the watched folder."""
    place = tmp_path / "mnt"
    place.mkdir()
    facility.server.mount(watched_folder, place)
    yield place
    facility.server.unmount(place)


@pytest.fixture
def run_daemon(facility, start_daemon, write_config, watched_folder):
    """Return a function that starts a daemon on the instrument, for workers that have its folder elsewhere."""

    def run(there, cluster=None, options=()):
        cluster = cluster or facility.cluster
        config = write_config(cluster.config(paths={str(watched_folder): str(there)}))
        return start_daemon(*options, config=config, environment=cluster.environment, enter=facility.instrument.enter)

    return run


def test_a_share_that_is_missing_on_the_worker_is_named(
    facility, worker, share, run_daemon, watched_folder, local_result
):
    """The measurement is tried again, and is done when the share is there."""
    facility.server.unmount(share)
    daemon = run_daemon(share)
    path = published(watched_folder, "M.rtdc")
    failed = daemon.wait_for("job.failed", path=str(path))
    assert (failed["reason"], failed["will_retry"]) == ("worker_path", True)
    assert f"{path}: cannot be found on the worker server" in failed["error"]
    facility.server.mount(watched_folder, share)
    daemon.wait_for("job.finished", path=str(path))
    assert result_differences(result_of(path), local_result) == []
    assert daemon.stop() == 0


def test_a_wrong_path_map_is_named(worker, share, tmp_path, run_daemon, watched_folder, local_result):
    """The measurement fails with the path that the worker has tried; with the right one, it is done."""
    daemon = run_daemon(share / "wrong")
    path = published(watched_folder, "M.rtdc")
    failed = daemon.wait_for("job.failed", path=str(path), will_retry=False)
    assert failed["reason"] == "worker_path"
    assert f"{path}: cannot be found on the worker server in {share}/wrong: No such file" in failed["error"]
    assert daemon.stop() == 0
    daemon = run_daemon(share)
    assert main(["retry", "-c", str(tmp_path / "config.toml"), str(path)]) == 0
    daemon.wait_for("job.finished", path=str(path))
    assert result_differences(result_of(path), local_result) == []
    assert daemon.stop() == 0


def test_a_share_that_is_read_only_on_the_worker_is_named(
    facility, worker, share, run_daemon, watched_folder, local_result
):
    """Measurements wait until it accepts results again, as for a folder here, without being tried all the time."""
    facility.server.remount(share, "ro")
    daemon = run_daemon(share)
    path = published(watched_folder, "M.rtdc")
    blocked = daemon.wait_for("output.blocked")
    assert blocked["reason"] == "output_read_only"
    daemon.wait_for("job.started", count=2)
    facility.server.remount(share, "rw")
    daemon.wait_for("output.recovered")
    daemon.wait_for("job.finished", path=str(path))
    assert result_differences(result_of(path), local_result) == []
    assert not daemon.matching("job.failed")
    assert temporary_files([watched_folder]) == []
    assert daemon.stop() == 0


def test_a_worker_out_of_memory_costs_an_attempt(facility, worker, share, run_daemon, watched_folder):
    """The kernel kills the process that executes the job; the worker starts another one, and the job succeeds."""
    daemon = run_daemon(share)
    draw_long(watched_folder / ".writing", frames=4000)
    path = (watched_folder / ".writing").rename(watched_folder / "long.rtdc")
    being_processed(path)
    pipeline_of(worker).kill()
    failed = daemon.wait_for("job.failed", path=str(path))
    assert (failed["reason"], failed["will_retry"]) == ("worker_killed", True)
    daemon.wait_for("job.finished", path=str(path))
    assert temporary_files([watched_folder]) == []
    assert len(worker.matching("worker.lost")) == 1
    assert daemon.stop() == 0


def test_a_worker_that_cannot_do_jobs_is_excluded(facility, worker, share, run_daemon, watched_folder):
    """Another one gets its jobs, and no attempt is lost; when it can do one, it is used as before."""
    node = facility.network.host("node")
    bad = facility.cluster.start_worker("node", host=node)
    bad.wait_for("worker.ready")
    daemon = run_daemon(share, options=("--set", "retry.attempts=1"))
    # The share is missing there.
    publish_until(watched_folder, daemon, lambda: daemon.matching("worker.excluded"))
    (excluded,) = daemon.matching("worker.excluded")
    assert (excluded["worker"], excluded["reason"]) == ("node", "worker_path")
    # It is there, but read-only.
    node.mount(watched_folder, share)
    node.remount(share, "ro")
    publish_until(watched_folder, daemon, lambda: "Read-only" in daemon.matching("job.returned")[-1]["error"])
    node.remount(share, "rw")
    publish_until(watched_folder, daemon, lambda: daemon.matching("worker.used_again"))
    assert len(daemon.matching("worker.excluded")) == 1
    assert bad.stop() == 0
    assert {event["reason"] for event in daemon.matching("job.returned")} == {"worker_unfit"}
    assert not daemon.matching("job.failed")
    assert not daemon.matching("output.blocked")
    assert temporary_files([watched_folder]) == []
    assert daemon.stop() == 0


def publish_until(folder, daemon, condition):
    """Publish measurements, one for each worker at a time, and wait for their results."""
    deadline = time.monotonic() + HANG_SECONDS
    while not condition():
        assert time.monotonic() < deadline, daemon.log()
        first = len(list(folder.glob("*.rtdc")))
        for path in [published(folder, f"M{first + number}.rtdc", seed=first + number) for number in range(3)]:
            daemon.wait_for("job.finished", path=str(path))


@pytest.mark.skipif(not an_hour_ahead(), reason="libfaketime of PyPI is not installed")
def test_the_clock_of_a_worker_may_differ(facility, share, tmp_path, run_daemon, watched_folder, local_result):
    """It is an hour ahead, and nobody notices but in the log of the worker."""
    with dask_cluster(tmp_path, facility.server, HURRIED) as cluster:
        worker = cluster.start_worker("ahead", environment=an_hour_ahead())
        daemon = run_daemon(share, cluster)
        path = published(watched_folder, "M.rtdc")
        finished = daemon.wait_for("job.finished", path=str(path))
        assert finished["seconds"] < HANG_SECONDS
        there = dt.datetime.fromisoformat(worker.wait_for("worker.ready")["timestamp"])
        assert there - dt.datetime.fromisoformat(finished["timestamp"]) > dt.timedelta(minutes=50)
        assert result_differences(result_of(path), local_result) == []
        assert_done_once(daemon, path)
        assert daemon.stop() == 0
        assert worker.stop() == 0
