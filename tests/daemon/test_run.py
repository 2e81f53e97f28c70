"""The daemon from the folder to the result: real processes, real files, heard through its log."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import h5py
import psutil
import pytest

from dcnumd.daemon.folders.events import STEP_MS
from tests.support.faults import JOB_SECONDS, published, result_of
from tests.support.usual import table

pytestmark = pytest.mark.timeout(300)


def assert_sound(path: pathlib.Path) -> None:
    with h5py.File(path) as h5:
        assert h5.attrs["experiment:event count"] == len(h5["events/deform"]) > 0
        assert h5.attrs["pipeline:dcnum hash"]


def test_ready_means_that_a_measurement_would_be_processed(usual):
    """The daemon is ready when the folder is watched and the pipeline waits; it says how long that took."""
    events = usual.daemon.events
    ready = [event["event"] for event in events].index("daemon.ready")
    before = events[:ready]
    assert [event["role"] for event in before if event["event"] == "worker.started"] == ["pipeline"]
    assert [event["folder"] for event in before if event["event"] == "watch.armed"] == [str(usual.watched)]
    assert events[ready]["seconds"] > 0


def test_file_dropped_while_running_comes_out_once(usual):
    """A file that appears in a watched folder is processed; its whole story is logged with its pipeline.

    Spaces, umlauts and folders that are made at the last moment are nothing special.
    """
    daemon, folder = usual.daemon, usual.folder() / "Größe 2" / "Zellen; 50 %"
    folder.mkdir(parents=True)
    path = published(folder, "Übung 1 (data).rtdc")
    finished = daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert finished["output"] == str(result_of(path))
    assert finished["frames"] == 60
    assert finished["events"] > 0
    assert_sound(result_of(path))
    with h5py.File(result_of(path)) as h5:
        assert h5.attrs["pipeline:dcnum hash"] == finished["pphash"]
    story = ["file.detected", "file.settled", "job.queued", "job.started", "job.finished"]
    about = [event for event in daemon.events if event.get("path") == str(path)]
    heard = [event for event in about if event["event"] not in {"job.progress", "log.message"}]
    assert [event["event"] for event in heard] == story
    assert len({(event["job_id"], event["ppid"], event["pphash"]) for event in heard[2:]}) == 1
    assert sorted(p.name for p in folder.iterdir()) == ["Übung 1 (data).rtdc", "Übung 1 (data)_dcn.rtdc"]


SLOW_WRITER = """
import sys, h5py, numpy as np
rng = np.random.default_rng(3)
with h5py.File(sys.argv[1], "w") as h5:
    h5.attrs.update({"experiment:event count": 0, "imaging:pixel size": 0.34, "imaging:frame rate": 2000.0,
        "experiment:date": "2026-01-02", "experiment:time": "03:04:05", "setup:identifier": "slow"})
    image = h5.create_dataset("events/image", (0, 48, 96), "u1", maxshape=(None, 48, 96), chunks=(16, 48, 96))
    for number in range(4):
        image.resize(16 * (number + 1), axis=0)
        frames = rng.normal(180, 1.5, (16, 48, 96))
        frames[::2, 15:32, 30:47] -= 40
        image[-16:] = frames.astype("u1")
        h5.attrs["experiment:event count"] = len(image)
        h5.flush()
        print(len(image), flush=True)
        sys.stdin.readline()
"""


def test_file_written_slowly_is_processed_when_complete(usual):
    """A file that grows in place, with pauses longer than the settle time, is processed once and whole."""
    daemon, path = usual.daemon, usual.folder() / "growing.rtdc"
    # A process of its own, because HDF5's lock and flags are those of another program in real life.
    command = [sys.executable, "-c", SLOW_WRITER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        for number in range(4):
            assert int(writer.stdout.readline()) == 16 * (number + 1)
            if number == 1:
                daemon.wait_for("file.detected", path=str(path))
                with pytest.raises(subprocess.TimeoutExpired):
                    # a pause in the recording that is longer than the settle time
                    writer.wait(1.5)
            assert not daemon.matching("job.queued", path=str(path))
            writer.stdin.write("\n")
            writer.stdin.flush()
    finished = daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert finished["frames"] == 64
    for event in ("file.detected", "file.settled"):
        assert len(daemon.matching(event, path=str(path))) == 1


def test_broken_file_is_reported_and_taken_up_when_it_is_repaired(usual):
    """A file that is no HDF5 fails once, with a reason and without a traceback, and stops nobody; until it changes."""
    daemon, folder = usual.daemon, usual.folder()
    broken = folder / "broken.rtdc"
    broken.write_bytes(b"this is not HDF5 " * 1000)
    good = published(folder, "good.rtdc")
    failed = daemon.wait_for("job.failed", path=str(broken))
    assert failed["will_retry"] is False
    assert failed["reason"] not in {"internal", "error"}
    assert "exception" not in failed
    daemon.wait_for("job.finished", path=str(good), timeout=JOB_SECONDS)
    assert [event["path"] for event in usual.about(folder, "job.failed")] == [str(broken)]
    assert not result_of(broken).exists()
    published(folder, "broken.rtdc", seed=2)
    daemon.wait_for("job.finished", path=str(broken), timeout=JOB_SECONDS)


def test_content_counts_and_not_its_date(usual):
    """A new date on the same content changes nothing; other content is a new measurement, whose result replaces."""
    daemon, folder = usual.daemon, usual.folder()
    path = published(folder, "M001_data.rtdc", seed=1)
    first = daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    os.utime(path)
    daemon.wait_for("file.ignored", path=str(path), reason="already_done")
    assert len(daemon.matching("job.queued", path=str(path))) == 1
    published(folder, "M001_data.rtdc", seed=2, frames=50)
    second = daemon.wait_for("job.finished", path=str(path), count=2, timeout=JOB_SECONDS)
    assert (first["frames"], second["frames"]) == (60, 50)
    with h5py.File(result_of(path)) as h5:
        assert "discs 2" in h5.attrs["experiment:sample"]


def test_file_replaced_while_queued_is_processed_once_as_it_is(usual):
    """A measurement that is replaced behind a running job is processed with its new content only."""
    daemon, folder = usual.daemon, usual.folder()
    with usual.standing_still():
        busy = published(folder, "busy.rtdc", seed=3)
        daemon.wait_for("job.started", path=str(busy))
        path = published(folder, "M001.rtdc", seed=1)
        daemon.wait_for("job.queued", path=str(path))
        published(folder, "M001.rtdc", seed=2, frames=50)
        daemon.wait_for("job.queued", path=str(path), count=2)
    finished = daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert finished["frames"] == 50
    assert len(daemon.matching("job.started", path=str(path))) == 1


def test_killed_segmentation_worker_is_replaced_without_a_new_attempt(usual):
    """A worker that dies is named and replaced; the measurement comes out at the first attempt."""
    daemon, folder = usual.daemon, usual.folder()
    first = published(folder, "first.rtdc")
    daemon.wait_for("job.finished", path=str(first), timeout=JOB_SECONDS)
    workers = [event["pid"] for event in daemon.matching("worker.started", role="segmenter")]
    os.kill(workers[-1], signal.SIGKILL)
    path = published(folder, "second.rtdc", seed=1)
    daemon.wait_for("worker.lost", pid=workers[-1], timeout=JOB_SECONDS)
    finished = daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert {"load", "segment", "extract", "write", "publish"} <= set(finished["stage_seconds"])
    assert sum(finished["stage_shares"].values()) == pytest.approx(1, abs=0.02)
    assert set(finished["waiting_seconds"]) == {"workers", "pipeline"}
    assert finished["bottleneck"] in finished["stage_seconds"]
    assert finished["bytes_written"] == pathlib.Path(finished["output"]).stat().st_size
    assert finished["bytes_read"] > 0
    assert not usual.about(folder, "job.failed")
    assert len(daemon.matching("worker.started", role="segmenter")) == len(workers) + 1
    assert_sound(result_of(path))


def test_name_that_is_not_utf8_is_found(usual):
    """Such a name stops the file events for a moment, and a scan finds it; those after it are found as usual."""
    daemon, folder = usual.daemon, usual.folder()
    strange = os.fsdecode(os.fsencode(folder) + b"/caf\xe9.rtdc")
    published(folder, strange)
    daemon.wait_for("job.finished", path=strange, timeout=JOB_SECONDS)
    path = published(folder, "M002.rtdc", seed=2)
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    degraded = daemon.wait_for("watch.degraded", folder=str(usual.watched))
    assert "caf" in degraded["error"]
    assert "not UTF-8" in degraded["error"]
    daemon.wait_for("watch.recovered", folder=str(usual.watched), timeout=JOB_SECONDS)


def test_events_follow_folders_that_come_and_are_renamed(usual):
    """Without any rescan, a file in a new folder is found, and one in a folder that has got another name."""
    daemon, folder = usual.daemon, usual.folder()
    deep = folder / "2026" / "11"
    deep.mkdir(parents=True)
    first = published(deep, "first.rtdc")
    daemon.wait_for("job.finished", path=str(first), timeout=JOB_SECONDS)
    (folder / "2026").rename(folder / "archive")
    moved = folder / "archive" / "11"
    daemon.wait_for("file.detected", path=str(moved / "first.rtdc"))
    second = published(moved, "second.rtdc", seed=2)
    daemon.wait_for("job.finished", path=str(second), timeout=JOB_SECONDS)


def test_missing_folder_is_taken_up_when_it_appears(usual, tmp_path):
    """A folder that is missing at first is a warning; it recovers, and so does one that is made anew."""
    daemon, folder = usual.daemon, tmp_path / "missing"
    with usual.changed(table(folder, rescan=0.5)):
        for count in (1, 2):
            daemon.wait_for("watch.unreachable", count=count, folder=str(folder))
            folder.mkdir()
            path = published(folder, f"M{count}.rtdc", seed=count)
            daemon.wait_for("watch.recovered", count=count, folder=str(folder))
            daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
            if count == 1:
                shutil.rmtree(folder)
        assert len(daemon.matching("watch.unreachable", folder=str(folder))) == 2


def test_polling_finds_files_without_events(usual, tmp_path):
    """For network shares the folder is listed every poll_seconds, however rare the rescans are."""
    with usual.changed(table(tmp_path, more="force_polling = true\npoll_seconds = 0.2\n")):
        usual.daemon.wait_for("watch.armed", folder=str(tmp_path), mode="polling")
        path = published(tmp_path, "M001.rtdc")
        usual.daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)


def test_full_disk_makes_a_job_wait(usual):
    """Without room for the result no job starts; that is said once, nothing fails, and it goes on when there is."""
    folder = usual.folder()
    with usual.changed(min_free_gb=1e9):
        path = published(folder, "M001.rtdc")
        usual.daemon.wait_for("disk.low", folder=str(usual.watched))
        assert not usual.about(folder, "job.started")
    usual.daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert len(usual.daemon.matching("disk.low")) == 1
    assert not usual.about(folder, "job.failed")


def test_job_that_takes_too_long_is_ended_and_repeated(usual, long_store):
    """A job has a limit; when it is over, the job is stopped, reported and tried again."""
    folder = usual.folder()
    with usual.changed(job_timeout_seconds=0.05):
        path = usual.copied(long_store, folder)
        usual.daemon.wait_for("job.failed", path=str(path), will_retry=False, timeout=JOB_SECONDS)
    failures = [(event["reason"], event["will_retry"]) for event in usual.about(folder, "job.failed")]
    assert failures == [("timeout", True), ("timeout", True), ("timeout", False)]
    assert [p.name for p in folder.iterdir() if not p.name.startswith(".")] == [path.name]


def test_retry_reaches_a_running_daemon(usual):
    """``dcnumd retry`` has a running daemon process a file again and replace its own result."""
    path = published(usual.folder(), "M001.rtdc")
    usual.daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    inode = result_of(path).stat().st_ino
    usual.command("retry", path)
    usual.daemon.wait_for("job.finished", path=str(path), count=2, timeout=JOB_SECONDS)
    assert result_of(path).stat().st_ino != inode


def test_retry_hurries_a_measurement_that_waits_for_its_next_attempt(usual):
    """After a transient fault and a long pause before the next attempt, ``dcnumd retry`` means now."""
    daemon = usual.daemon
    with usual.changed(backoff_seconds=3000.0):
        with usual.standing_still() as pipeline:
            path = published(usual.folder(), "M001.rtdc")
            daemon.wait_for("job.started", path=str(path))
            os.kill(pipeline, signal.SIGKILL)
        daemon.wait_for("job.failed", path=str(path), will_retry=True)
        assert "will be tried again now" in usual.command("retry", path)
        daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)


def test_frames_of_other_shape_use_the_same_process(usual):
    """Files of different shapes are processed by the same persistent child."""
    daemon, folder = usual.daemon, usual.folder()
    before = len(daemon.matching("worker.started", role="pipeline"))
    for number, shape in enumerate([(48, 96), (60, 150), (40, 80)]):
        path = published(folder, f"M{number}.rtdc", shape=shape, seed=number)
        daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert len(daemon.matching("worker.started", role="pipeline")) == before


def voluntary_switches(daemon) -> int:
    """Return how often any thread of the daemon and its children has gone to sleep, which it does after each waking."""
    supervisor = psutil.Process(daemon.process.pid)
    return sum(
        int(line.split()[1])
        for process in [supervisor, *supervisor.children(recursive=True)]
        for status in pathlib.Path(f"/proc/{process.pid}/task").glob("*/status")
        for line in status.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


def test_idle_daemon_sleeps(usual):
    """Between rescans only file events and the look at its own files wake a daemon without work, also after a job."""
    daemon = usual.daemon
    path = published(usual.folder(), "M001.rtdc")
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    counts = []
    few = 5000 // STEP_MS + 20
    while not counts or counts[-1] >= few:
        # On a busy computer it takes a while until the last events have come, and threads have ended.
        assert len(counts) < 6, counts
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.process.wait(1.0)
        before = voluntary_switches(daemon)
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.process.wait(5.0)
        counts.append(voluntary_switches(daemon) - before)
