"""Folders that are full, read-only or not mounted: measurements wait, and are done once when the fault is gone."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable

import pytest

from tests.soak.results import faults_of, temporary_files
from tests.support.daemon import Daemon
from tests.support.faults import (
    JOB_SECONDS,
    assert_done_once,
    draw_long,
    published,
    result_of,
    shorten,
    wait_until,
    workers_busy,
    working,
)
from tests.support.once import assert_nothing_left_to_do
from tests.support.places import MountedFolder, mounted, needs_mount

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def two_groups(
    tmp_path: pathlib.Path, watched_folder: pathlib.Path, write_config: Callable[..., pathlib.Path]
) -> Callable[..., pathlib.Path]:
    """Return a function that writes a config with a second watched folder, whose results go to one of their own."""

    def write(extra: str = "") -> pathlib.Path:
        for name in ("second", "results"):
            (tmp_path / name).mkdir()
        watch, rest = write_config(rescan=0.5).read_text().split("[state]")
        watch = watch.replace("[watch]", "[[watch]]")
        other = watch.replace(str(watched_folder), str(tmp_path / "second"))
        other += f"output.folder = {json.dumps(str(tmp_path / 'results'))}\n{extra}"
        config = tmp_path / "groups.toml"
        config.write_text(f"{watch}{other}[state]{rest.replace('min_free_gb = 0.01', 'min_free_gb = 0.0')}")
        return config

    return write


def others_go_on(daemon: Daemon, folder: pathlib.Path, waiting: pathlib.Path) -> None:
    """Check that a measurement whose result goes elsewhere is processed meanwhile."""
    path = published(folder, waiting.name, seed=9)
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert_done_once(daemon, path)
    assert not daemon.matching("job.finished", path=str(waiting))


@needs_mount
def test_folder_that_takes_no_results_makes_its_measurements_wait(start_daemon, two_groups, watched_folder, tmp_path):
    """Full, read-only, or full in the middle of a job: said once, others go on, no attempt is lost."""
    second = tmp_path / "second"
    # Results that are unpacked and larger than their measurements fill up a disk that seemed large enough.
    config = two_groups('output.basin_strategy = "drain"\noutput.compression = "none"\n')
    with mounted(tmp_path / "results", megabytes=24) as results:
        folder = str(results.folder)
        ballast = results.fill()
        daemon = start_daemon(config=config)
        paths = [published(second, "M1.rtdc", seed=1)]
        daemon.wait_for("disk.low", folder=folder)
        paths.append(published(second, "M2.rtdc", seed=2))
        daemon.wait_for("job.queued", path=str(paths[1]))
        others_go_on(daemon, watched_folder, paths[0])
        ballast.unlink()
        for path in paths:
            daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
        assert len(daemon.matching("disk.low")) == len(daemon.matching("disk.ok")) == 1

        results.remount("ro")
        paths.append(published(second, "M3.rtdc", seed=3))
        assert daemon.wait_for("output.blocked", folder=folder)["reason"] == "output_read_only"
        others_go_on(daemon, watched_folder, paths[2])
        results.remount("rw")
        daemon.wait_for("job.finished", path=str(paths[2]), timeout=JOB_SECONDS)
        daemon.wait_for("output.recovered", folder=folder)
        assert len(daemon.matching("output.blocked")) == 1

        draw_long(second / ".writing", frames=400, cells=1)
        paths.append((second / ".writing").rename(second / "M4.rtdc"))
        daemon.wait_for("job.started", path=str(paths[3]), timeout=JOB_SECONDS)
        daemon.wait_for("disk.low", count=2, folder=folder, timeout=JOB_SECONDS)
        assert sorted(path.name for path in results.store.iterdir()) == [f"M{number}_dcn.rtdc" for number in (1, 2, 3)]
        results.resize(512)
        daemon.wait_for("job.finished", path=str(paths[3]), timeout=JOB_SECONDS)
        daemon.wait_for("disk.ok", count=2, folder=folder)
        assert len(daemon.matching("disk.low")) == 2
        assert_done_once(daemon, *paths)
        assert daemon.stop() == 0
        assert [fault for path in paths for fault in faults_of(results.folder / result_of(path).name)] == []


@needs_mount
def test_folders_that_are_not_mounted_are_not_empty_ones(
    start_daemon, two_groups, watched_folder, tmp_path, long_store
):
    """Nothing is forgotten, and nothing is written to where a folder was mounted, also after a restart."""
    second, config = tmp_path / "second", two_groups()
    with mounted(watched_folder) as beside, mounted(second) as source, mounted(tmp_path / "results") as results:
        daemon = start_daemon(config=config)
        lose_watched_folder(daemon, beside)
        long = lose_share_in_a_job(daemon, beside, long_store)

        first = published(second, "M1.rtdc", seed=1)
        daemon.wait_for("job.finished", path=str(first), timeout=JOB_SECONDS)
        results.unmount()
        waiting = published(second, "M2.rtdc", seed=2)
        blocked = daemon.wait_for("output.blocked", folder=str(results.folder))
        assert blocked["reason"] == "output_not_mounted"
        assert daemon.stop(timeout=30) == 0

        # What waited keeps its place while a restarted daemon finds an empty mount point.
        source.unmount()
        daemon = start_daemon(config=config)
        daemon.wait_for("watch.unreachable", folder=str(second))
        assert not daemon.matching("file.ignored", path=str(waiting))
        assert list(second.iterdir()) == []
        source.mount()
        daemon.wait_for("output.blocked", folder=str(results.folder))
        assert list(results.folder.iterdir()) == []
        results.mount()
        daemon.wait_for("job.finished", path=str(waiting), timeout=JOB_SECONDS)
        assert_done_once(daemon, waiting)
        assert daemon.stop() == 0
        assert sorted(path.name for path in results.folder.iterdir()) == ["M1_dcn.rtdc", "M2_dcn.rtdc"]
        assert {event["path"] for event in daemon.matching("job.queued")} <= {str(waiting)}

        assert_nothing_left_to_do(config)
        assert faults_of(result_of(long)) == []
        assert temporary_files([watched_folder, second, results.folder]) == []


def lose_watched_folder(daemon: Daemon, place: MountedFolder) -> None:
    """Unmount a watched folder and mount it again: only what is new is processed."""
    first = published(place.folder, "M1.rtdc", seed=1)
    daemon.wait_for("job.finished", path=str(first), timeout=JOB_SECONDS)
    inode = result_of(first).stat().st_ino
    place.unmount()
    daemon.wait_for("watch.unreachable", folder=str(place.folder))
    published(place.store, "M2.rtdc", seed=2)
    place.mount()
    daemon.wait_for("watch.recovered", folder=str(place.folder))
    second = place.folder / "M2.rtdc"
    daemon.wait_for("job.finished", path=str(second), timeout=JOB_SECONDS)
    assert_done_once(daemon, first, second)
    assert result_of(first).stat().st_ino == inode


def lose_share_in_a_job(daemon: Daemon, place: MountedFolder, store: pathlib.Path) -> pathlib.Path:
    """Unmount a folder while its measurement is being processed: it is done when the folder is back; return it."""
    (place.store / ".writing").write_bytes(store.read_bytes())
    shorten(place.store / ".writing", 1200)
    path = (place.folder / ".writing").rename(place.folder / "long.rtdc")
    working(daemon, path)
    place.unmount()
    daemon.wait_for("watch.unreachable", count=2, folder=str(place.folder))
    wait_until(lambda: not workers_busy(daemon))
    place.mount()

    def done() -> bool:
        # The result may have been in place before the folder went away; then it is recognized.
        skipped = daemon.matching("job.skipped", path=str(path), reason="output_exists")
        return bool(skipped or daemon.matching("job.finished", path=str(path)))

    wait_until(done, JOB_SECONDS, daemon)
    daemon.wait_for("watch.recovered", count=2, folder=str(place.folder))
    return path
