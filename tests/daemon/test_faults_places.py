"""Folders that are full, read-only or not mounted: measurements wait, and are done once when the fault is gone."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import pytest

from tests.soak.results import faults_of, temporary_files
from tests.support.faults import (
    JOB_SECONDS,
    assert_done_once,
    draw_long,
    published,
    result_of,
    wait_until,
    workers_busy,
    working,
)
from tests.support.places import MountedFolder, mounted, needs_mount

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def results(tmp_path: pathlib.Path) -> Iterator[MountedFolder]:
    """Mount a file system for results."""
    with mounted(tmp_path / "results") as place:
        yield place


def output_to(place: MountedFolder, extra: str = "") -> str:
    return f"[output]\nfolder = {json.dumps(str(place.folder))}\n{extra}"


@needs_mount
def test_full_disk_for_results_makes_jobs_wait_until_there_is_room(start_daemon, write_config, watched_folder, results):
    """Without room no job starts; that is said once for the folder, and goes on by itself when there is room."""
    ballast = results.fill()
    daemon = start_daemon(config=write_config(output_to(results)))
    path = published(watched_folder, "M001.rtdc")
    daemon.wait_for("disk.low", folder=str(results.folder))
    other = published(watched_folder, "M002.rtdc", seed=2)
    daemon.wait_for("job.queued", path=str(other))
    ballast.unlink()
    for waiting in (path, other):
        daemon.wait_for("job.finished", path=str(waiting), timeout=JOB_SECONDS)
    assert len(daemon.matching("disk.low")) == len(daemon.matching("disk.ok")) == 1
    assert_done_once(daemon, path, other)


@needs_mount
def test_disk_that_fills_up_in_the_middle_costs_no_attempt(start_daemon, write_config, watched_folder, tmp_path):
    """A result that does not fit goes, its measurement waits, and comes out when there is more room."""
    with mounted(tmp_path / "results", megabytes=8) as results:
        # packed into little at first, and unpacked into much
        extra = 'basin_strategy = "drain"\ncompression = "none"\n'
        config = write_config(output_to(results, extra))
        config.write_text(config.read_text().replace("min_free_gb = 0.01", "min_free_gb = 0.0"))
        path = watched_folder / ".writing"
        draw_long(path, frames=400, cells=1)
        path = path.rename(watched_folder / "M001.rtdc")
        daemon = start_daemon(config=config)
        daemon.wait_for("job.started", path=str(path), timeout=JOB_SECONDS)
        daemon.wait_for("disk.low", folder=str(results.folder), timeout=JOB_SECONDS)
        assert list(results.store.iterdir()) == []
        results.resize(512)
        daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
        daemon.wait_for("disk.ok", folder=str(results.folder))
        assert_done_once(daemon, path)
        assert faults_of(results.folder / "M001_dcn.rtdc") == []
        assert len(daemon.matching("disk.low")) == 1
        assert daemon.stop() == 0


@needs_mount
def test_read_only_folder_for_results_makes_jobs_wait(start_daemon, write_config, watched_folder, results):
    """A folder that cannot be written is named once; its measurements wait, and are done when it can."""
    results.remount("ro")
    daemon = start_daemon(config=write_config(output_to(results)))
    path = published(watched_folder, "M001.rtdc")
    blocked = daemon.wait_for("output.blocked", folder=str(results.folder))
    assert blocked["reason"] == "output_read_only"
    results.remount("rw")
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    daemon.wait_for("output.recovered", folder=str(results.folder))
    assert_done_once(daemon, path)
    assert len(daemon.matching("output.blocked")) == 1


@needs_mount
def test_blocked_folder_does_not_keep_the_others_waiting(start_daemon, write_config, watched_folder, tmp_path, results):
    """Measurements whose results go elsewhere are processed while a folder is read-only."""
    second = tmp_path / "second"
    second.mkdir()
    text = write_config().read_text()
    watch, rest = text.split("[state]")
    groups = [
        f"{watch.replace('[watch]', '[[watch]]')}output.folder = {json.dumps(str(results.folder))}\n",
        watch.replace("[watch]", "[[watch]]").replace(str(watched_folder), str(second)),
    ]
    config = tmp_path / "groups.toml"
    config.write_text("".join(groups) + "[state]" + rest)
    results.remount("ro")
    daemon = start_daemon(config=config)
    path = published(watched_folder, "M001.rtdc", seed=1)
    daemon.wait_for("output.blocked", folder=str(results.folder))
    other = published(second, "M001.rtdc", seed=2)
    daemon.wait_for("job.finished", path=str(other), timeout=JOB_SECONDS)
    assert not daemon.matching("job.finished", path=str(path))
    results.remount("rw")
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert_done_once(daemon, path, other)


@needs_mount
def test_folder_for_results_that_is_not_mounted_gets_none(start_daemon, write_config, watched_folder, results):
    """Nothing is written into the empty mount point of a folder that was mounted once, also after a restart."""
    config = write_config(output_to(results))
    daemon = start_daemon(config=config)
    first = published(watched_folder, "M001.rtdc", seed=1)
    daemon.wait_for("job.finished", path=str(first), timeout=JOB_SECONDS)
    results.unmount()
    second = published(watched_folder, "M002.rtdc", seed=2)
    blocked = daemon.wait_for("output.blocked", folder=str(results.folder))
    assert blocked["reason"] == "output_not_mounted"
    assert daemon.stop() == 0
    daemon = start_daemon(config=config)
    daemon.wait_for("output.blocked", folder=str(results.folder))
    assert list(results.folder.iterdir()) == []
    results.mount()
    daemon.wait_for("job.finished", path=str(second), timeout=JOB_SECONDS)
    assert_done_once(daemon, second)
    assert sorted(path.name for path in results.folder.iterdir()) == ["M001_dcn.rtdc", "M002_dcn.rtdc"]
    assert not daemon.matching("job.queued", path=str(first))


@needs_mount
def test_unmounted_watched_folder_is_not_an_empty_one(start_daemon, write_config, watched_folder):
    """While a watched folder is not mounted nothing is forgotten; afterwards only what is new is processed."""
    with mounted(watched_folder) as place:
        config = write_config(rescan=0.5)
        daemon = start_daemon(config=config)
        first = published(watched_folder, "M001.rtdc", seed=1)
        daemon.wait_for("job.finished", path=str(first), timeout=JOB_SECONDS)
        inode = result_of(first).stat().st_ino
        place.unmount()
        daemon.wait_for("watch.unreachable", folder=str(watched_folder))
        published(place.store, "M002.rtdc", seed=2)
        place.mount()
        daemon.wait_for("watch.recovered", folder=str(watched_folder))
        second = watched_folder / "M002.rtdc"
        daemon.wait_for("job.finished", path=str(second), timeout=JOB_SECONDS)
        assert_done_once(daemon, first, second)
        assert result_of(first).stat().st_ino == inode
        assert daemon.stop() == 0


@needs_mount
def test_watched_folder_that_is_not_mounted_at_the_start_is_known_from_before(
    start_daemon, write_config, watched_folder
):
    """A measurement that waited keeps its place while a restarted daemon finds an empty mount point."""
    with mounted(watched_folder) as place:
        config = write_config(rescan=0.5)
        # no room anywhere: it waits in the queue
        daemon = start_daemon("--set", "resources.min_free_gb=1e9", config=config)
        path = published(watched_folder, "M001.rtdc")
        daemon.wait_for("disk.low")
        assert daemon.stop() == 0
        place.unmount()
        daemon = start_daemon(config=config)
        daemon.wait_for("watch.unreachable", folder=str(watched_folder))
        assert not daemon.matching("file.ignored", path=str(path))
        assert list(watched_folder.iterdir()) == []
        place.mount()
        daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
        assert_done_once(daemon, path)
        assert daemon.stop() == 0


@needs_mount
def test_share_that_goes_away_in_the_middle_of_a_job_costs_nothing(
    start_daemon, write_config, watched_folder, long_store
):
    """A folder that is unmounted while its measurement is being processed: it is done when the folder is back."""
    with mounted(watched_folder) as place:
        daemon = start_daemon(config=write_config(rescan=0.5))
        (place.store / ".writing").write_bytes(long_store.read_bytes())
        (watched_folder / ".writing").rename(watched_folder / "long.rtdc")
        path = watched_folder / "long.rtdc"
        working(daemon, path)
        place.unmount()
        daemon.wait_for("watch.unreachable", folder=str(watched_folder))
        wait_until(lambda: not workers_busy(daemon))
        place.mount()
        # The result may have been in place before the folder went away; then it is recognized.
        wait_until(
            lambda: (
                daemon.matching("job.finished", path=str(path))
                or daemon.matching("job.skipped", path=str(path), reason="output_exists")
            ),
            JOB_SECONDS,
        )
        daemon.wait_for("watch.recovered", folder=str(watched_folder))
        assert daemon.stop(timeout=30) == 0
        again = start_daemon("--once", ready=False)
        assert again.wait() == 0
        assert not again.matching("job.queued")
        assert faults_of(result_of(path)) == []
        assert temporary_files([watched_folder]) == []
