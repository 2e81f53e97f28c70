"""The daemon from the folder to the result: real processes, real files, heard through its log."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import h5py
import psutil
import pytest

from dcnumd.daemon.folders.events import STEP_MS
from tests.support.daemon import HANG_SECONDS, START_SECONDS, Daemon
from tests.support.faults import LONG_FRAMES, wait_until

pytestmark = pytest.mark.timeout(300)

JOB_SECONDS = HANG_SECONDS


def result_of(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.stem}_dcn.rtdc")


def published(draw, folder: pathlib.Path, name: str, **keywords) -> pathlib.Path:
    """Write a measurement elsewhere and move it into place, as a careful instrument does."""
    hidden = folder / ".writing"
    draw(hidden, **keywords)
    return hidden.rename(folder / name)


@dataclasses.dataclass
class Usual:
    """A daemon for tests that leave it as they found it, each in a folder of its own; it lists nothing but at first."""

    daemon: Daemon
    config: pathlib.Path
    watched: pathlib.Path
    numbers: Iterator[int] = dataclasses.field(default_factory=itertools.count)

    def folder(self) -> pathlib.Path:
        """Return a new watched folder."""
        folder = self.watched / str(next(self.numbers))
        folder.mkdir()
        return folder


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> Iterator[Usual]:
    """Return a daemon that is started once for this module."""
    place = tmp_path_factory.mktemp("usual")
    watched, config = place / "acquisition", place / "config.toml"
    watched.mkdir()
    config.write_text(
        f"[watch]\nfolders = [{json.dumps(str(watched))}]\nsettle_seconds = 0.3\nrescan_seconds = 3600.0\n"
        f"[state]\nfolder = {json.dumps(str(place / 'state'))}\n"
        "[resources]\nnum_workers = 1\nmin_free_gb = 0.01\nnice = 0\n"
        "[report]\nenabled = false\n[retry]\nbackoff_seconds = 0.2\n"
    )
    daemon = Daemon.start(config)
    try:
        daemon.wait_for("daemon.ready", timeout=START_SECONDS)
        yield Usual(daemon, config, watched)
        assert daemon.stop() == 0
    finally:
        daemon.close()


def assert_sound(path: pathlib.Path) -> None:
    with h5py.File(path) as h5:
        assert h5.attrs["experiment:event count"] == len(h5["events/deform"]) > 0
        assert h5.attrs["pipeline:dcnum hash"]


def test_file_dropped_while_running_comes_out_once(start_daemon, watched_folder, measurement):
    """A file that appears in a watched folder is processed; its whole story is logged with its pipeline."""
    daemon = start_daemon()
    path = published(measurement, watched_folder, "M001_data.rtdc")
    finished = daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert finished["output"] == str(result_of(path))
    assert finished["frames"] == 60
    assert finished["events"] > 0
    assert_sound(result_of(path))
    with h5py.File(result_of(path)) as h5:
        assert h5.attrs["pipeline:dcnum hash"] == finished["pphash"]
    story = ["file.detected", "file.settled", "job.queued", "job.started", "job.finished"]
    heard = [event["event"] for event in daemon.events if event.get("path") == str(path)]
    assert [name for name in heard if name not in {"job.progress", "log.message"}] == story
    jobs = [event for event in daemon.events if event["event"] in story[2:]]
    assert len({(event["job_id"], event["ppid"], event["pphash"]) for event in jobs}) == 1
    assert daemon.stop() == 0
    assert daemon.matching("daemon.stopped")
    assert not daemon.matching("not json")
    assert sorted(p.name for p in watched_folder.iterdir()) == ["M001_data.rtdc", "M001_data_dcn.rtdc"]


def test_files_before_and_between_runs_come_out_once_each(start_daemon, watched_folder, measurement):
    """What was there before the start, or came while the daemon was down, is processed; nothing is repeated."""
    before = published(measurement, watched_folder, "before.rtdc", seed=1)
    first = start_daemon()
    first.wait_for("job.finished", path=str(before), timeout=JOB_SECONDS)
    assert first.stop() == 0
    between = published(measurement, watched_folder, "between.rtdc", seed=2)
    second = start_daemon()
    second.wait_for("job.finished", path=str(between), timeout=JOB_SECONDS)
    assert second.stop() == 0
    assert not second.matching("file.detected", path=str(before))
    assert not second.matching("job.queued", path=str(before))


def test_name_with_spaces_umlauts_and_folders_is_found(usual, measurement):
    """Spaces, umlauts and folders that are made at the last moment are nothing special."""
    folder = usual.folder() / "Größe 2" / "Zellen; 50 %"
    folder.mkdir(parents=True)
    path = published(measurement, folder, "Übung 1 (data).rtdc")
    usual.daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert_sound(result_of(path))


def test_file_written_slowly_is_processed_when_complete(start_daemon, write_config, watched_folder):
    """A file that grows in place, with pauses longer than the settle time, is processed once and whole."""
    daemon = start_daemon(config=write_config(settle=0.5, rescan=1.0))
    path = watched_folder / "growing.rtdc"
    # A process of its own, because HDF5's lock and flags are those of another program in real life.
    script = (
        "import sys, h5py, numpy as np\n"
        "rng = np.random.default_rng(3)\n"
        "with h5py.File(sys.argv[1], 'w') as h5:\n"
        "    h5.attrs.update({'experiment:event count': 0, 'imaging:pixel size': 0.34, 'imaging:frame rate': 2000.0,\n"
        "        'experiment:date': '2026-01-02', 'experiment:time': '03:04:05', 'setup:identifier': 'slow'})\n"
        "    image = h5.create_dataset('events/image', (0, 48, 96), 'u1', maxshape=(None, 48, 96), \n"
        "        chunks=(16, 48, 96))\n"
        "    for number in range(4):\n"
        "        image.resize(16 * (number + 1), axis=0)\n"
        "        frames = rng.normal(180, 1.5, (16, 48, 96))\n"
        "        frames[::2, 15:32, 30:47] -= 40\n"
        "        image[-16:] = frames.astype('u1')\n"
        "        h5.attrs['experiment:event count'] = len(image)\n"
        "        h5.flush()\n"
        "        print(len(image), flush=True)\n"
        "        sys.stdin.readline()\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        for number in range(4):
            assert int(writer.stdout.readline()) == 16 * (number + 1)
            if number == 1:
                daemon.wait_for("file.detected", path=str(path))
                with pytest.raises(subprocess.TimeoutExpired):
                    # a pause in the recording that is longer than the settle time
                    writer.wait(1.5)
            assert not daemon.matching("job.queued")
            writer.stdin.write("\n")
            writer.stdin.flush()
    finished = daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert finished["frames"] == 64
    assert len(daemon.matching("file.detected", path=str(path))) == 1
    assert len(daemon.matching("file.settled", path=str(path))) == 1


def test_broken_file_is_reported_and_others_go_on(usual, measurement):
    """A file that is no HDF5 fails once, with a reason and without a traceback, and stops nobody."""
    daemon, folder = usual.daemon, usual.folder()
    broken = folder / "broken.rtdc"
    broken.write_bytes(b"this is not HDF5 " * 1000)
    good = published(measurement, folder, "good.rtdc")
    failed = daemon.wait_for("job.failed", path=str(broken))
    assert failed["will_retry"] is False
    assert failed["reason"] not in {"internal", "error"}
    assert "exception" not in failed
    daemon.wait_for("job.finished", path=str(good), timeout=JOB_SECONDS)
    failures = [
        path for event in daemon.matching("job.failed") if (path := pathlib.Path(event["path"])).parent == folder
    ]
    assert failures == [broken]
    assert not result_of(broken).exists()


def test_repaired_file_lifts_its_own_failure(usual, measurement):
    """A file that failed is taken up again when it changes."""
    daemon, folder = usual.daemon, usual.folder()
    path = folder / "later.rtdc"
    path.write_bytes(b"nothing yet" * 100)
    daemon.wait_for("job.failed", path=str(path))
    published(measurement, folder, "later.rtdc")
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)


def test_other_content_under_the_same_name_is_processed_too(usual, measurement):
    """A file that is replaced is a new measurement; the outdated result makes way for the new one."""
    daemon, folder = usual.daemon, usual.folder()
    path = published(measurement, folder, "M001_data.rtdc", seed=1)
    first = daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    published(measurement, folder, "M001_data.rtdc", seed=2, frames=50)
    second = daemon.wait_for("job.finished", path=str(path), count=2, timeout=JOB_SECONDS)
    assert (first["frames"], second["frames"]) == (60, 50)
    with h5py.File(result_of(path)) as h5:
        assert h5["events/nevents"].attrs is not None
        assert "discs 2" in h5.attrs["experiment:sample"]


def test_touched_file_is_not_processed_again(usual, measurement):
    """A new date on the same content changes nothing."""
    daemon = usual.daemon
    path = published(measurement, usual.folder(), "M001_data.rtdc")
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    os.utime(path)
    daemon.wait_for("file.ignored", path=str(path), reason="already_done")
    assert len(daemon.matching("job.queued", path=str(path))) == 1


def test_results_hidden_and_temporary_files_are_no_inputs(start_daemon, watched_folder, measurement):
    """Only measurements are taken up; a folder with the name of one is reported."""
    for name in (".hidden.rtdc", "a.rtdc~", "b.rtdc.tmp", "c.rtdc.part", "e_dce.rtdc", "notes.txt"):
        measurement(watched_folder / name)
    (watched_folder / "folder.rtdc").mkdir()
    path = published(measurement, watched_folder, "real.rtdc")
    daemon = start_daemon("--once", ready=False)
    assert daemon.wait(JOB_SECONDS) == 0
    assert [event["path"] for event in daemon.matching("file.detected")] == [str(path)]
    assert daemon.matching("file.ignored", path=str(watched_folder / "folder.rtdc"), reason="not_a_file")


def test_names_that_differ_in_the_ending_only_are_told(start_daemon, watched_folder, measurement):
    """Both would have one result: the second is left out with the name of the first, and what to do."""
    for number, name in enumerate(("M001.RTDC", "M001.rtdc")):
        published(measurement, watched_folder, name, seed=number)
    daemon = start_daemon("--once", ready=False)
    assert daemon.wait(JOB_SECONDS) == 0
    (done,) = daemon.matching("job.finished")
    (skipped,) = daemon.matching("job.skipped", reason="output_differs")
    assert {done["path"], skipped["path"]} == {str(watched_folder / name) for name in ("M001.RTDC", "M001.rtdc")}
    assert f"is the result of another measurement, {done['path']}" in skipped["error"]
    assert "rename one of them" in skipped["error"]


def test_links_out_of_the_watched_folders_are_told_and_left_out(
    start_daemon, write_config, watched_folder, measurement, tmp_path
):
    """A link to a file elsewhere is no measurement here; one to a file in the folder is."""
    (tmp_path / "elsewhere").mkdir()
    other = published(measurement, tmp_path / "elsewhere", "other.rtdc", seed=1)
    path = published(measurement, watched_folder, "real.rtdc")
    (watched_folder / "deep").mkdir()
    (watched_folder / "deep" / "within.rtdc").symlink_to(path)
    (watched_folder / "out.rtdc").symlink_to(other)
    (watched_folder / "folder").symlink_to(other.parent)
    config = write_config()
    daemon = start_daemon("--once", config=config, ready=False)
    assert daemon.wait(JOB_SECONDS) == 0
    within = str(watched_folder / "deep" / "within.rtdc")
    assert {event["path"] for event in daemon.matching("job.started")} == {str(path), within}
    (told,) = daemon.matching("file.ignored", reason="outside")
    assert told["path"] == str(watched_folder / "out.rtdc")
    assert f"leads to {other}, which is outside" in told["error"]
    assert [file.name for file in other.parent.iterdir()] == ["other.rtdc"]
    command = [sys.executable, "-m", "dcnumd", "why", told["path"], "-c", str(config)]
    why = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "ignored: a symbolic link leads to" in why.stdout + why.stderr


def test_output_folder_mirrors_the_tree(start_daemon, write_config, watched_folder, measurement, tmp_path):
    """With an output folder nothing is written beside the measurements, and equal names do not meet."""
    results = watched_folder / "results"
    config = write_config(f"[output]\nfolder = {json.dumps(str(results))}\n")
    for name in ("a", "b"):
        (watched_folder / name).mkdir()
        published(measurement, watched_folder / name, "M001_data.rtdc", seed=ord(name))
    daemon = start_daemon("--once", config=config, ready=False)
    assert daemon.wait(JOB_SECONDS) == 0
    found = sorted(str(p.relative_to(watched_folder)) for p in watched_folder.rglob("*.rtdc"))
    assert found == [
        "a/M001_data.rtdc",
        "b/M001_data.rtdc",
        "results/a/M001_data_dcn.rtdc",
        "results/b/M001_data_dcn.rtdc",
    ]
    again = start_daemon("--once", config=config, ready=False)
    assert again.wait(JOB_SECONDS) == 0
    assert not again.matching("file.detected")


def test_once_exits_1_when_a_measurement_failed(start_daemon, watched_folder, measurement):
    """``--once`` deals with everything that is there, and says whether all of it worked."""
    good = published(measurement, watched_folder, "good.rtdc")
    (watched_folder / "bad.rtdc").write_bytes(b"no")
    daemon = start_daemon("--once", ready=False)
    assert daemon.wait(JOB_SECONDS) == 1
    assert result_of(good).exists()


def test_sigterm_puts_the_running_measurement_back(start_daemon, watched_folder, long_measurement):
    """SIGTERM in the middle of a long file ends the daemon within 5 s; the next start finishes the file."""
    path = long_measurement()
    first = start_daemon(ready=False)
    first.wait_for("job.started", path=str(path), timeout=JOB_SECONDS)
    begin = time.monotonic()
    assert first.stop() == 0
    assert time.monotonic() - begin < 5
    if first.matching("job.finished"):
        pytest.skip("the job was quicker than the signal")
    assert [p.name for p in watched_folder.iterdir() if not p.name.startswith(".")] == ["long.rtdc"]
    second = start_daemon()
    finished = second.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert finished["frames"] == LONG_FRAMES
    assert not second.matching("file.detected", path=str(path))


def test_two_signals_force_the_end(start_daemon, watched_folder, long_measurement):
    """A second SIGINT does not wait for the running job."""
    path = long_measurement()
    daemon = start_daemon(ready=False)
    daemon.wait_for("job.started", path=str(path), timeout=JOB_SECONDS)
    daemon.process.send_signal(signal.SIGINT)
    daemon.wait_for("daemon.stopping")
    daemon.stop(signal.SIGINT)
    assert daemon.matching("daemon.stopped")


def test_killed_daemon_loses_and_doubles_nothing(start_daemon, watched_folder, long_measurement):
    """After SIGKILL in the middle of a job the next start processes that file, once."""
    path = long_measurement()
    first = start_daemon(ready=False)
    started = first.wait_for("job.started", path=str(path), timeout=JOB_SECONDS)
    children = [psutil.Process(event["pid"]) for event in first.matching("worker.started")]
    children += [worker for child in children for worker in child.children(recursive=True)]
    first.process.kill()
    first.wait()
    assert psutil.wait_procs(children, timeout=10)[1] == []
    second = start_daemon()
    finished = second.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert finished["job_id"] == started["job_id"]
    assert second.stop() == 0
    third = start_daemon("--once", ready=False)
    assert third.wait() == 0
    assert not third.matching("job.queued")


def test_killed_pipeline_process_is_replaced_and_the_job_repeated(start_daemon, watched_folder, long_measurement):
    """A child that is killed in the middle of a job costs an attempt, not the measurement."""
    path = long_measurement()
    daemon = start_daemon(ready=False)
    child = daemon.wait_for("worker.started", role="pipeline", timeout=JOB_SECONDS)
    daemon.wait_for("job.started", path=str(path), timeout=JOB_SECONDS)
    # nothing tells when the child has got the job, but its first file
    wait_until(lambda: list(watched_folder.glob(".long*")))
    os.kill(child["pid"], signal.SIGKILL)
    failed = daemon.wait_for("job.failed", path=str(path))
    assert (failed["reason"], failed["will_retry"], failed["attempt"]) == ("worker_killed", True, 1)
    daemon.wait_for("worker.lost", pid=child["pid"])
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert daemon.wait_for("job.started", path=str(path), count=2)["attempt"] == 2


def test_killed_segmentation_worker_is_replaced_without_a_new_attempt(start_daemon, watched_folder, measurement):
    """A worker that dies is named and replaced; the measurement comes out at the first attempt."""
    daemon = start_daemon()
    published(measurement, watched_folder, "first.rtdc")
    daemon.wait_for("job.finished", timeout=JOB_SECONDS)
    workers = {event["pid"] for event in daemon.matching("worker.started", role="segmenter")}
    os.kill(min(workers), signal.SIGKILL)
    path = published(measurement, watched_folder, "second.rtdc", seed=1)
    daemon.wait_for("worker.lost", pid=min(workers), timeout=JOB_SECONDS)
    finished = daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert {"load", "segment", "extract", "write", "publish"} <= set(finished["stage_seconds"])
    assert sum(finished["stage_shares"].values()) == pytest.approx(1, abs=0.02)
    assert set(finished["waiting_seconds"]) == {"workers", "pipeline"}
    assert finished["bottleneck"] in finished["stage_seconds"]
    assert finished["bytes_written"] == pathlib.Path(finished["output"]).stat().st_size
    assert finished["bytes_read"] > 0
    assert not daemon.matching("job.failed")
    replaced = {event["pid"] for event in daemon.matching("worker.started", role="segmenter")} - workers
    assert len(replaced) == 1
    assert_sound(result_of(path))


def test_second_daemon_on_the_same_ledger_is_refused(start_daemon, write_config):
    """The second daemon exits with 2 and says who owns the ledger."""
    config = write_config()
    first = start_daemon(config=config)
    second = subprocess.run(
        [sys.executable, "-m", "dcnumd", "run", "-c", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 2
    assert f"process {first.process.pid}" in second.stderr
    assert "Traceback" not in second.stderr


def test_missing_folder_is_taken_up_when_it_appears(start_daemon, write_config, watched_folder, measurement):
    """A folder that is missing at the start is a warning; it recovers, and so does one that is made anew."""
    watched_folder.rmdir()
    daemon = start_daemon(config=write_config(rescan=0.5))
    daemon.wait_for("watch.unreachable", folder=str(watched_folder))
    watched_folder.mkdir()
    path = published(measurement, watched_folder, "M001.rtdc")
    daemon.wait_for("watch.recovered", folder=str(watched_folder))
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    shutil.rmtree(watched_folder)
    daemon.wait_for("watch.unreachable", count=2, folder=str(watched_folder))
    watched_folder.mkdir()
    again = published(measurement, watched_folder, "M002.rtdc", seed=2)
    daemon.wait_for("job.finished", path=str(again), timeout=JOB_SECONDS)
    assert len(daemon.matching("watch.unreachable")) == 2


def test_name_that_is_not_utf8_is_found(usual, measurement):
    """Such a name stops the file events for a moment, and a scan finds it; those after it are found as usual."""
    daemon, folder = usual.daemon, usual.folder()
    strange = os.fsdecode(os.fsencode(folder) + b"/caf\xe9.rtdc")
    published(measurement, folder, strange)
    daemon.wait_for("job.finished", path=strange, timeout=JOB_SECONDS)
    path = published(measurement, folder, "M002.rtdc", seed=2)
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    degraded = daemon.wait_for("watch.degraded", folder=str(usual.watched))
    assert "caf" in degraded["error"]
    assert "not UTF-8" in degraded["error"]
    daemon.wait_for("watch.recovered", folder=str(usual.watched), timeout=JOB_SECONDS)


def test_events_follow_folders_that_come_and_are_renamed(usual, measurement):
    """Without any rescan, a file in a new folder is found, and one in a folder that has got another name."""
    daemon, folder = usual.daemon, usual.folder()
    deep = folder / "2026" / "11"
    deep.mkdir(parents=True)
    first = published(measurement, deep, "first.rtdc")
    daemon.wait_for("job.finished", path=str(first), timeout=JOB_SECONDS)
    (folder / "2026").rename(folder / "archive")
    moved = folder / "archive" / "11"
    daemon.wait_for("file.detected", path=str(moved / "first.rtdc"))
    second = published(measurement, moved, "second.rtdc", seed=2)
    daemon.wait_for("job.finished", path=str(second), timeout=JOB_SECONDS)


def test_polling_finds_files_without_events(start_daemon, write_config, watched_folder, measurement):
    """For network shares the folder is listed every poll_seconds, however rare the rescans are."""
    polling = ("--set", "watch.force_polling=true", "--set", "watch.poll_seconds=0.2")
    daemon = start_daemon(*polling, config=write_config(rescan=3600.0))
    daemon.wait_for("watch.armed", folder=str(watched_folder), mode="polling")
    path = published(measurement, watched_folder, "M001.rtdc")
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)


def test_ready_means_that_a_measurement_would_be_processed(start_daemon, watched_folder):
    """The daemon is ready when the folder is watched and the pipeline waits; it says how long that took."""
    daemon = start_daemon()
    ready = [event["event"] for event in daemon.events].index("daemon.ready")
    before = daemon.events[:ready]
    assert [event["role"] for event in before if event["event"] == "worker.started"] == ["pipeline"]
    assert [event["folder"] for event in before if event["event"] == "watch.armed"] == [str(watched_folder)]
    assert daemon.events[ready]["seconds"] > 0


def test_pipeline_that_cannot_start_ends_the_daemon(start_daemon, watched_folder, measurement, tmp_path, monkeypatch):
    """A broken installation is told at the start, and costs no measurement an attempt."""
    published(measurement, watched_folder, "M001.rtdc")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "numba.py").write_text("raise ImportError('no compiler here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    daemon = start_daemon(ready=False)
    assert daemon.wait() == 1
    assert "no compiler here" in daemon.wait_for("daemon.stopped", level="critical")["error"]
    assert not daemon.matching("daemon.ready")
    assert not daemon.matching("job.failed")


def test_wrong_method_is_refused_although_there_is_nothing_to_do(start_daemon, watched_folder):
    """`--once` on an empty folder does not end well before the config was checked."""
    daemon = start_daemon("--once", "--set", "pipeline.segmenter.code=nonsense", ready=False)
    assert daemon.wait() == 2


def test_daemon_stops_while_it_compiles(start_daemon, watched_folder, tmp_path, monkeypatch):
    """SIGTERM during the first start ends the daemon and the processes that compile for it."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "nothing compiled"))
    daemon = start_daemon(ready=False)
    daemon.wait_for("kernels.status", timeout=JOB_SECONDS)
    everybody = psutil.Process(daemon.process.pid).children(recursive=True)
    daemon.process.terminate()
    assert daemon.wait() == 0
    _, left = psutil.wait_procs(everybody, timeout=10)
    assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]
    assert not daemon.matching("daemon.ready")


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


def test_idle_daemon_sleeps(start_daemon, watched_folder, measurement):
    """Between rescans only file events and the look at its own files wake a daemon without work, also after a job."""
    daemon = start_daemon()
    path = published(measurement, watched_folder, "M001.rtdc")
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


def test_file_replaced_while_queued_is_processed_once_as_it_is(
    start_daemon, watched_folder, long_measurement, measurement
):
    """A measurement that is replaced behind a running job is processed with its new content only."""
    daemon = start_daemon()
    long = long_measurement()
    daemon.wait_for("job.started", path=str(long), timeout=JOB_SECONDS)
    path = published(measurement, watched_folder, "M001.rtdc", seed=1)
    daemon.wait_for("job.queued", path=str(path))
    published(measurement, watched_folder, "M001.rtdc", seed=2, frames=50)
    finished = daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    if finished["frames"] == 60:
        finished = daemon.wait_for("job.finished", count=2, path=str(path), timeout=JOB_SECONDS)
    assert finished["frames"] == 50
    assert daemon.stop() == 0
    again = start_daemon("--once", ready=False)
    assert again.wait() == 0
    assert not again.matching("job.queued")


def test_job_that_takes_too_long_is_ended_and_repeated(start_daemon, watched_folder, long_measurement):
    """A job has a limit; when it is over, the job is stopped, reported and tried again."""
    path = long_measurement()
    daemon = start_daemon("--once", "--set", "resources.job_timeout_seconds=0.05", ready=False)
    assert daemon.wait(JOB_SECONDS) == 1
    failures = [(event["reason"], event["will_retry"]) for event in daemon.matching("job.failed", path=str(path))]
    assert failures == [("timeout", True), ("timeout", True), ("timeout", False)]
    assert [p.name for p in watched_folder.iterdir() if not p.name.startswith(".")] == ["long.rtdc"]


def test_full_disk_makes_a_job_wait(start_daemon, watched_folder, measurement):
    """Without room for the result no job starts; that is said once, and nothing fails."""
    path = published(measurement, watched_folder, "M001.rtdc")
    daemon = start_daemon("--set", "resources.min_free_gb=1e9")
    daemon.wait_for("disk.low")
    assert not daemon.matching("job.started")
    assert daemon.stop() == 0
    assert len(daemon.matching("disk.low")) == 1
    once = start_daemon("--once", "--set", "resources.min_free_gb=1e9", ready=False)
    assert once.wait() == 1
    assert once.wait_for("job.failed", path=str(path))["reason"] == "no_space"


def test_no_job_starts_while_a_file_grows(start_daemon, write_config, watched_folder, measurement):
    """With pause_while_acquiring a complete measurement waits until the recording beside it is over."""
    # on a busy computer the recording may stand still for a moment
    daemon = start_daemon("--set", "resources.pause_while_acquiring=true", config=write_config(settle=1.5))
    growing = watched_folder / "growing.rtdc"
    stop = threading.Event()

    def grow():
        with growing.open("ab", buffering=0) as file:
            while not stop.wait(0.05):
                file.write(b"more")

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        daemon.wait_for("file.detected", path=str(growing))
        path = published(measurement, watched_folder, "M001.rtdc")
        daemon.wait_for("job.queued", path=str(path))
        assert not stop.wait(1.0)
        assert not daemon.matching("job.started")
    finally:
        stop.set()
        writer.join()
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)


def test_supervisor_loads_no_numerical_code():
    """What supervises stays small and safe from what it supervises."""
    script = (
        "import sys, dcnumd.commands.run, dcnumd.daemon.supervisor, dcnumd.logic.calls, dcnumd.cli\n"
        "print(sorted({'numpy', 'h5py', 'numba', 'scipy', 'hdf5plugin', 'skimage'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.strip() == "[]"


def test_retry_reaches_a_running_daemon(usual, measurement):
    """``dcnumd retry`` has a running daemon process a file again and replace its own result."""
    daemon, config = usual.daemon, usual.config
    path = published(measurement, usual.folder(), "M001.rtdc")
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    inode = result_of(path).stat().st_ino
    command = [sys.executable, "-m", "dcnumd", "retry", "-c", str(config), str(path)]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    daemon.wait_for("job.finished", path=str(path), count=2, timeout=JOB_SECONDS)
    assert result_of(path).stat().st_ino != inode


def test_retry_hurries_a_measurement_that_waits_for_its_next_attempt(
    start_daemon, write_config, watched_folder, long_measurement
):
    """After a transient fault and a long pause before the next attempt, ``dcnumd retry`` means now."""
    config = write_config()
    config.write_text(config.read_text().replace("backoff_seconds = 0.2", "backoff_seconds = 3000.0"))
    daemon = start_daemon(config=config)
    path = long_measurement()
    daemon.wait_for("job.started", path=str(path), timeout=JOB_SECONDS)
    # nothing tells when the child has got the job, but its first file
    wait_until(lambda: list(watched_folder.glob(".long*")))
    os.kill(daemon.wait_for("worker.started", role="pipeline")["pid"], signal.SIGKILL)
    daemon.wait_for("job.failed", path=str(path), will_retry=True)
    command = [sys.executable, "-m", "dcnumd", "retry", "-c", str(config), str(path)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "will be tried again now" in shown.stdout
    daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)


def test_heavy_frames_of_other_shape_use_the_same_process(usual, measurement):
    """Files of different shapes are processed by the same persistent child."""
    daemon, folder = usual.daemon, usual.folder()
    for number, shape in enumerate([(48, 96), (60, 150), (40, 80)]):
        path = published(measurement, folder, f"M{number}.rtdc", shape=shape, seed=number)
        daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert len(daemon.matching("worker.started", role="pipeline")) == 1
