"""What happens to a job whose worker ends or is stopped, or for which it is too large, or whose result is seen late."""

from __future__ import annotations

import pytest

from tests.support.cluster import processes, processor_of
from tests.support.faults import draw_long, published, result_of, wait_until

pytestmark = pytest.mark.slow


def test_workers_may_be_killed_or_stopped(shared_cluster, pair, start_daemon, write_config, long):
    """A killed worker costs an attempt, one that is asked to stop costs none; the next worker does the job."""
    daemon = start_daemon(config=write_config(shared_cluster.config()))
    path = long("long", frames=2500)
    killed = processor_of(pair, path)
    killed.process.kill()
    lost = daemon.wait_for("job.failed", path=str(path))
    assert (lost["reason"], lost["will_retry"]) == ("worker_lost", True)

    (stopped,) = [worker for worker in pair if worker is not killed]
    # Dask gives it to the other worker at once, without telling; what counts is that the daemon does so.
    daemon.wait_for("job.started", count=2)
    processes(stopped, path)
    assert stopped.stop() == 0
    assert daemon.wait_for("job.returned")["reason"] == "worker_ended"

    shared_cluster.have_workers("one")
    daemon.wait_for("job.finished", path=str(path))
    assert [event["attempt"] for event in daemon.matching("job.started")] == [1, 2, 2]
    assert len(daemon.matching("job.finished")) == 1
    assert daemon.stop() == 0


@pytest.mark.soak
def test_a_stopped_job_frees_its_worker(cluster, start_daemon, write_config, watched_folder, tmp_path):
    """A job of another daemon need not wait for what is left of it, and no temporary files stay."""
    worker = cluster.start_worker("freed")
    config = write_config(cluster.config())
    daemon = start_daemon(config=config)
    draw_long(watched_folder / ".writing", frames=30_000)
    long = (watched_folder / ".writing").rename(watched_folder / "long.rtdc")
    daemon.wait_for("job.started", path=str(long))
    wait_until(lambda: list(watched_folder.glob(".long*~")))
    assert daemon.stop() == 0
    assert not result_of(long).exists()

    other = tmp_path / "other"
    other.mkdir()
    overrides = [f'watch.folders=["{other}"]', f"state.folder={other}/.state"]
    second = start_daemon(*(word for one in overrides for word in ("--set", one)), config=config)
    short = published(other, "short.rtdc")
    second.wait_for("job.finished", path=str(short))
    assert not result_of(long).exists()
    assert not list(watched_folder.glob(".*"))
    assert worker.stop() == 0


@pytest.mark.soak
def test_a_result_that_is_seen_late_is_waited_for(cluster, start_daemon, write_config, watched_folder, tmp_path):
    """The daemon does so, because a share may show it to other computers after a minute only."""
    there = tmp_path / "there"
    there.mkdir()
    cluster.start_worker("late")
    daemon = start_daemon(config=write_config(cluster.config(paths={str(watched_folder): str(there)})))
    path = watched_folder / "M1.rtdc"
    path.hardlink_to(published(there, path.name))
    written = there / result_of(path).name
    wait_until(written.exists)
    assert not daemon.matching("job.finished")
    # Half of it comes first.
    content = written.read_bytes()
    result_of(path).write_bytes(content[: len(content) // 2])
    with result_of(path).open("ab") as result:
        assert not daemon.matching("job.finished")
        result.write(content[len(content) // 2 :])
    daemon.wait_for("job.finished", path=str(path))
    assert not daemon.matching("job.failed")


@pytest.mark.soak
def test_a_worker_with_too_little_memory_says_so(cluster, start_daemon, write_config, watched_folder):
    """The limit is that of the worker, whatever the config of the daemon says, and the message names it."""
    cluster.start_worker("small", "resources.max_memory_mb=400")
    daemon = start_daemon("--set", "resources.max_memory_mb=100000", config=write_config(cluster.config()))
    path = published(watched_folder, "M1.rtdc")
    failed = daemon.wait_for("job.failed", path=str(path))
    assert (failed["reason"], failed["will_retry"]) == ("memory_limit", False)
    assert "resources.max_memory_mb is 400" in failed["error"]
    assert "on the worker" in failed["error"]
