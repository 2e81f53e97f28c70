"""Whatever happens to processes and disks: nothing half-written, nothing left over, and the next file works."""

from __future__ import annotations

import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import threading
import uuid

import h5py
import psutil
import pytest

from dcnumd.errors import JobCancelledError, MeasurementError, ResultError
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.process import engine, process_measurement
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement
from dcnumd.write.result import remove_leftovers
from tests.support.disks import mounted, unmount
from tests.support.hostile import install_hostile

pytestmark = pytest.mark.slow

SPEC = MeasurementSpec(size=(80, 320), frames=600, density=2, seed=4)
MARK = "DCNUMD_TEST"
GONE_SECONDS = 20


@pytest.fixture(scope="module", autouse=True)
def stop_workers():
    """End the engine's workers after the last test of this module."""
    yield
    engine.close()


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Return a simulated measurement."""
    path = tmp_path_factory.mktemp("recording") / "M001_data.rtdc"
    write_measurement(path, SPEC)
    return path


@pytest.fixture
def hostile(tmp_path):
    """Return an environment in which the hostile segmenters are installed, and which marks its processes."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    extra = install_hostile(tmp_path / "site")
    return {**os.environ, **extra, MARK: uuid.uuid4().hex, "TMPDIR": str(temporary)}


def marked(environment):
    """Return the processes with the mark of an environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == environment[MARK] and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def watch_end_of(pids):
    """Return a function that waits until processes have ended, and returns those that have not."""
    descriptors = {os.pidfd_open(pid): pid for pid in pids}

    def wait():
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        while descriptors:
            ready = poll.poll(GONE_SECONDS * 1000)
            if not ready:
                break
            for descriptor, _ in ready:
                poll.unregister(descriptor)
                os.close(descriptor)
                del descriptors[descriptor]
        return list(descriptors.values())

    return wait


def start_process(environment, path, folder, segmenter):
    """Start ``dcnumd process`` with a segmenter."""
    command = [sys.executable, "-m", "dcnumd", "process", "--no-report", path, "-o", folder]
    settings = ["--set", f'pipeline.segmenter.code="{segmenter}"', "--set", "resources.num_workers=2"]
    return subprocess.Popen([*command, *settings], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 1)])
def test_end_of_a_process_does_not_wait_for_stuck_workers(number, code, recording, hostile, tmp_path):
    """Killed or asked to end while workers never come back from native code: nobody is left, no socket and no file."""
    with start_process(hostile, recording, tmp_path / "out", "stuck") as process:
        assert pathlib.Path(hostile["STUCK_PIPE"]).read_bytes().startswith(b"stuck")
        pids = marked(hostile)
        assert len(pids) >= 4, "the process, the fork server and two workers"
        wait = watch_end_of(pids)
        process.send_signal(number)
        assert process.wait(GONE_SECONDS) == code
        assert wait() == []
    assert marked(hostile) == []
    assert list(pathlib.Path(hostile["TMPDIR"]).iterdir()) == []
    if number == signal.SIGKILL:
        assert remove_leftovers(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_segmenter_that_crashes_fails_its_file_and_no_other(recording, hostile, tmp_path):
    """SIGSEGV in foreign code kills two workers, then the file is given up; the next file is processed."""
    white = tmp_path / "white.rtdc"
    white.write_bytes(recording.read_bytes())
    with h5py.File(white, "r+") as h5:
        h5["events/image"][300, 40, 100] = 255
    with h5py.File(recording) as h5:
        assert h5["events/image"][:].max() < 255
    command = [
        sys.executable,
        "-m",
        "dcnumd",
        "process",
        "--no-report",
        white,
        recording,
        "-o",
        tmp_path / "out",
        "--json",
    ]
    settings = ["--set", 'pipeline.segmenter.code="crash"', "--set", "resources.num_workers=2"]
    done = subprocess.run([*command, *settings], env=hostile, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    failed, processed = (json.loads(line) for line in done.stdout.splitlines())
    assert failed["reason"] == "worker_died"
    assert (processed["outcome"], processed["frames"]) == ("done", SPEC.frames)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["M001_data_dcn.rtdc"]
    assert marked(hostile) == []


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_worker_that_dies_is_replaced(number, recording, tmp_path):
    """A signal to a worker costs nothing but time."""
    hit = []

    def strike(progress):
        if progress.stage == "segmentation" and not hit:
            hit.append(engine.pipeline(2).worker_pids[0])
            os.kill(hit[0], number)

    job = Job(recording, tmp_path / "out.rtdc", num_workers=2)
    result = process_measurement(job, on_progress=strike)
    assert result.frames == SPEC.frames
    assert hit[0] not in result.worker_pids


@pytest.mark.parametrize("stage", ["background", "segmentation"])
def test_job_with_a_stopped_worker_can_be_given_up(stage, recording, tmp_path):
    """A worker that was stopped never answers; the job says nothing more, and ends when it is asked to."""
    stop, stopped = threading.Event(), []

    def strike(progress):
        if progress.stage == stage and not stopped:
            stopped.append(engine.pipeline(2).worker_pids[0])
            os.kill(stopped[0], signal.SIGSTOP)
            threading.Timer(0.3, stop.set).start()

    engine.start(2)
    job = Job(recording, tmp_path / "out.rtdc", num_workers=2)
    with pytest.raises(JobCancelledError):
        process_measurement(job, on_progress=strike, cancel=stop.is_set)
    assert not psutil.pid_exists(stopped[0]) or stage == "background"
    assert list(tmp_path.iterdir()) == []
    assert process_measurement(job).frames == SPEC.frames


def test_progress_is_told_in_every_stage(recording, tmp_path):
    """Whoever waits for a sign of life hears of the background, of the frames and of the writing."""
    heard = []
    settings = PipelineSettings(background_kwargs={"split_time": 0.01, "kernel_size": 50})
    job = Job(recording, tmp_path / "out.rtdc", settings, num_workers=2, job_id="7")
    process_measurement(job, on_progress=heard.append)
    stages = [progress.stage for progress in heard]
    assert stages.count("background") > 5, "each median is a sign of life"
    assert list(dict.fromkeys(stages)) == ["background", "segmentation", "writing"]
    assert all(progress.job_id == "7" and progress.frames == SPEC.frames for progress in heard)
    again = Job(job.path_out, tmp_path / "copy.rtdc", settings, num_workers=2, job_id="8")
    heard.clear()
    assert process_measurement(again, on_progress=heard.append).reason == "already_processed"
    assert {progress.stage for progress in heard} == {"writing"}


@pytest.mark.parametrize("strategy", ["tap", "drain"])
def test_disk_that_fills_up_during_the_job(strategy, recording, tmp_path):
    """Wherever the space ends: the reason says so, no file is left, and the same process makes the result later."""
    job = Job(recording, tmp_path / "out.rtdc", num_workers=2, basin_strategy=strategy)
    result = process_measurement(job)
    size = result.path_out.stat().st_size
    disk = tmp_path / "disk"
    for part in (0.02, 0.3, 0.6, 0.9, 0.97):
        with mounted(disk, f"size={int(size * part) // 4096 * 4096 + 4096}"):
            with pytest.raises(ResultError, match="no space left") as caught:
                process_measurement(Job(recording, disk / "out.rtdc", num_workers=2, basin_strategy=strategy))
            assert (caught.value.reason, caught.value.transient) == ("no_space", True)
            assert list(disk.iterdir()) == []
    with mounted(disk, f"size={2 * size}"):
        again = process_measurement(Job(recording, disk / "out.rtdc", num_workers=2, basin_strategy=strategy))
        assert (again.events, again.worker_pids) == (result.events, result.worker_pids)


def test_output_folder_that_is_unmounted_during_the_job(recording, tmp_path):
    """A share that goes away takes the unfinished result along; nothing is written where it had been."""
    disk = tmp_path / "disk"

    def take_away(progress):
        if progress.stage == "segmentation":
            unmount(disk)

    with mounted(disk, "size=64m"), pytest.raises(ResultError) as caught:
        process_measurement(Job(recording, disk / "out.rtdc", num_workers=2), on_progress=take_away)
    assert (caught.value.reason, caught.value.transient) == ("output_unreachable", True)
    assert list(disk.iterdir()) == []


def test_link_that_leads_out_of_the_output_is_refused(recording, tmp_path):
    """The job says in which folder the result has to stay."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    job = Job(recording, tmp_path / "root" / "link" / "out.rtdc", num_workers=2, result_root=tmp_path / "root")
    with pytest.raises(ResultError) as caught:
        process_measurement(job)
    assert caught.value.reason == "outside"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_temporary_folder_may_be_long_and_may_go_away(recording, tmp_path, monkeypatch):
    """Workers are started again where $TMPDIR is deep, and after somebody has removed it."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    script = (
        "import os, pathlib, shutil, signal, sys, tempfile\n"
        "from dcnumd.logic.job import Job\n"
        "from dcnumd.logic.process import engine, process_measurement\n"
        "engine.start(1)\n"
        "assert os.listdir(tempfile.gettempdir()) == []\n"
        "shutil.rmtree(tempfile.gettempdir())\n"
        "os.kill(engine.pipeline(1).worker_pids[0], signal.SIGKILL)\n"
        "job = Job(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), num_workers=1)\n"
        "print(process_measurement(job).frames)\n"
    )
    command = [sys.executable, "-c", script, recording, tmp_path / "out.rtdc"]
    done = subprocess.run(
        command, env={**os.environ, "TMPDIR": str(folder)}, capture_output=True, text=True, check=False
    )
    assert done.stdout == f"{SPEC.frames}\n", done.stderr


def test_measurement_that_is_no_file_does_not_block(tmp_path):
    """A pipe with the name of a measurement is refused at once."""
    os.mkfifo(tmp_path / "M001_data.rtdc")
    with pytest.raises(MeasurementError):
        process_measurement(Job(tmp_path / "M001_data.rtdc", tmp_path / "out.rtdc", num_workers=2))
