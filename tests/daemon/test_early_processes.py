"""Early start with real daemons: results that appear when the settle time has passed, changes, kills and reloads."""

from __future__ import annotations

import os
import pathlib
import random
import signal
import time

import h5py
import pytest

from dcnumd.logic.job import Job
from dcnumd.logic.process import engine, process_measurement
from dcnumd.logic.stamp import Stamp
from tests.soak.results import faults_of, temporary_files
from tests.support.daemon import Daemon, draw_measurement
from tests.support.faults import JOB_SECONDS, result_of, wait_until
from tests.support.same import differences

pytestmark = pytest.mark.timeout(600)

SETTLE = 4.0
LONG_SETTLE = 60.0
"""Longer than anything in these tests takes, also on a busy computer [s]."""


def copied(folder: pathlib.Path, name: str, *, seed: int = 0, frames: int = 400) -> pathlib.Path:
    """Copy a measurement into a folder, in pieces."""
    hidden = folder / ".drawn"
    draw_measurement(hidden, frames=frames, seed=seed)
    content = hidden.read_bytes()
    hidden.unlink()
    path = folder / name
    with path.open("wb") as file:
        for start in range(0, len(content), 2**18):
            file.write(content[start : start + 2**18])
    return path


def sample_of(path: pathlib.Path) -> str:
    """Return from which measurement a result was made."""
    with h5py.File(path, locking=False) as h5:
        return str(h5.attrs["experiment:sample"])


def order(daemon: Daemon, path: pathlib.Path) -> list[str]:
    """Return the events about a measurement in their order."""
    return [event["event"] for event in daemon.events if event.get("path") == str(path)]


def test_result_appears_when_the_file_has_settled(start_daemon, write_config, watched_folder, tmp_path):
    """It is equal to a usual one; until then only a hidden file is there. A change, and a reload, discard it."""
    daemon = start_daemon(config=write_config(settle=SETTLE))
    path = copied(watched_folder, "M001.rtdc")
    written = time.time()
    daemon.wait_for("early.prepared", path=str(path))
    if not daemon.matching("file.settled", path=str(path)):
        assert not result_of(path).exists()
    finished = daemon.wait_for("job.finished", path=str(path))
    assert finished["early"]
    assert time.time() - written >= SETTLE - 1
    story = [name for name in order(daemon, path) if name.startswith(("early.", "file.", "job."))]
    # under load, the file may have settled before its result is prepared
    assert sorted(story) == sorted(
        [
            "file.detected",
            "early.started",
            "early.prepared",
            "file.settled",
            "job.queued",
            "job.started",
            "job.finished",
        ]
    )
    assert story.index("file.settled") < story.index("job.queued") < story.index("job.finished")
    assert story.index("early.started") < story.index("early.prepared") < story.index("job.finished")
    assert daemon.stop() == 0
    early = result_of(path).rename(tmp_path / "early.rtdc")
    process_measurement(Job(path, result_of(path), num_workers=1))
    engine.close()
    assert [where for where in differences(early, result_of(path)) if "dcnumd-job" not in where] == []


def test_changed_file_and_changed_config_give_their_own_results(start_daemon, write_config, watched_folder):
    """Nothing of a discarded result is ever visible, and no temporary file is left."""
    config = write_config(settle=LONG_SETTLE)
    daemon = start_daemon(config=config)
    changed, kept = copied(watched_folder, "changed.rtdc"), copied(watched_folder, "kept.rtdc", seed=7)
    for path in (changed, kept):
        daemon.wait_for("early.prepared", path=str(path))
    assert len(temporary_files([watched_folder])) == 2
    copied(watched_folder, "changed.rtdc", seed=1)
    assert daemon.wait_for("early.discarded", path=str(changed))["reason"] == "changed"
    wait_until(lambda: len(temporary_files([watched_folder])) == 1, daemon=daemon)
    assert not result_of(changed).exists()
    config.write_text(write_config(settle=SETTLE).read_text() + "[pipeline.segmenter]\nthresh = -9\n")
    daemon.process.send_signal(signal.SIGHUP)
    assert daemon.wait_for("early.discarded", path=str(kept))["reason"] == "stopped"
    for path, sample in ((changed, "discs 1"), (kept, "discs 7")):
        finished = daemon.wait_for("job.finished", path=str(path))
        assert "thresh:t=-9" in finished["ppid"]
        assert sample_of(result_of(path)) == sample
        assert len(daemon.matching("job.finished", path=str(path))) == 1
        assert not daemon.matching("job.failed", path=str(path))
    assert daemon.stop() == 0
    assert temporary_files([watched_folder]) == []


def test_end_of_the_daemon_leaves_nothing(start_daemon, write_config, watched_folder):
    config = write_config(settle=LONG_SETTLE)
    daemon = start_daemon(config=config)
    path = copied(watched_folder, "M001.rtdc")
    daemon.wait_for("early.prepared", path=str(path))
    assert daemon.stop() == 0
    assert temporary_files([watched_folder]) == []
    assert not result_of(path).exists()
    once = start_daemon("--once", config=write_config(settle=20.0), ready=False)
    assert once.wait() == 0
    assert once.wait_for("job.finished", path=str(path))["early"]
    assert temporary_files([watched_folder]) == []


def test_kills_leave_one_result_and_nothing_else(start_daemon, write_config, watched_folder):
    """The pipeline process, or the daemon, is killed while it prepares a result, or while this waits."""
    config = write_config(settle=SETTLE)
    daemon, moments, paths = start_daemon(config=config), random.Random(1), []
    for number in range(10):
        path = copied(watched_folder, f"M{number:03}.rtdc", seed=number)
        paths.append(path)
        daemon.wait_for(moments.choice(["early.started", "early.started", "early.prepared"]), path=str(path))
        time.sleep(moments.uniform(0, 0.2))  # any moment
        if number % 3 == 2:
            os.kill(daemon.process.pid, signal.SIGKILL)
            daemon.wait()
            daemon = start_daemon(config=config)
        else:
            os.kill(daemon.matching("worker.started", role="pipeline")[-1]["pid"], signal.SIGKILL)
            daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    stamps = {}
    for number, path in enumerate(paths):
        wait_until(result_of(path).exists, daemon=daemon)
        assert faults_of(result_of(path)) == []
        assert sample_of(result_of(path)) == f"discs {number}"
        stamps[path] = Stamp.at(result_of(path))
    daemon.wait_for("job.finished", path=str(paths[-1]), timeout=JOB_SECONDS)
    wait_until(lambda: temporary_files([watched_folder]) == [], daemon=daemon)
    assert daemon.stop() == 0
    assert {path: Stamp.at(result_of(path)) for path in paths} == stamps
    assert len(list(watched_folder.iterdir())) == 2 * len(paths)
