"""How daemons start and end: signals, kills, and what keeps a daemon from starting."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.support.faults import JOB_SECONDS, LONG_FRAMES, draw_long, published, result_of, wait_until

pytestmark = pytest.mark.timeout(300)

FRAMES = 2 * LONG_FRAMES


def visible(folder: pathlib.Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def assert_all_end(processes: list[psutil.Process]) -> None:
    left = psutil.wait_procs(processes, timeout=10)[1]
    assert not [process for process in left if process.status() != psutil.STATUS_ZOMBIE]


def test_measurement_outlives_its_daemons(usual):
    """SIGTERM, two SIGINT and SIGKILL in the middle of a job cost nothing, and its pipeline's death one attempt.

    What was done before is not repeated, and what comes while no daemon runs is found by the next one.
    """
    folder = usual.folder()
    before = published(folder, "before.rtdc")
    usual.daemon.wait_for("job.finished", path=str(before), timeout=JOB_SECONDS)
    made = result_of(before).stat().st_mtime_ns
    # long enough for a signal to come in the middle on a busy computer
    draw_long(folder / ".writing", frames=FRAMES)
    path = (folder / ".writing").rename(folder / "long.rtdc")
    job = usual.daemon.wait_for("job.started", path=str(path), timeout=JOB_SECONDS)["job_id"]

    # the first signal ends the daemon within 5 s
    begin = time.monotonic()
    assert usual.daemon.stop() == 0
    assert time.monotonic() - begin < 5
    assert usual.daemon.matching("daemon.stopped")
    assert not usual.daemon.matching("not json")
    assert visible(folder) == ["before.rtdc", "before_dcn.rtdc", "long.rtdc"]
    between = published(folder, "between.rtdc", seed=2)

    # the second one does not wait for the running job
    daemon = usual.restart()
    daemon.wait_for("job.started", path=str(path), timeout=JOB_SECONDS)
    daemon.process.send_signal(signal.SIGINT)
    daemon.wait_for("daemon.stopping")
    daemon.stop(signal.SIGINT)
    assert daemon.matching("daemon.stopped")

    # a daemon that is killed takes its children along
    daemon = usual.restart()
    daemon.wait_for("job.started", path=str(path), timeout=JOB_SECONDS)
    children = [psutil.Process(event["pid"]) for event in daemon.matching("worker.started")]
    children += [worker for child in children for worker in child.children(recursive=True)]
    daemon.process.kill()
    daemon.wait()
    assert_all_end(children)

    daemon = usual.restart()
    daemon.wait_for("job.started", path=str(path), timeout=JOB_SECONDS)
    # nothing tells when the child has got the job, but its first file
    wait_until(lambda: list(folder.glob(".long*")))
    pipeline = daemon.matching("worker.started", role="pipeline")[-1]["pid"]
    os.kill(pipeline, signal.SIGKILL)
    failed = daemon.wait_for("job.failed", path=str(path))
    assert (failed["reason"], failed["will_retry"], failed["attempt"]) == ("worker_killed", True, 1)
    daemon.wait_for("worker.lost", pid=pipeline)
    finished = daemon.wait_for("job.finished", path=str(path), timeout=JOB_SECONDS)
    assert (finished["job_id"], finished["frames"]) == (job, FRAMES)
    assert [event["attempt"] for event in daemon.matching("job.started", path=str(path))] == [1, 2]

    daemon.wait_for("job.finished", path=str(between), timeout=JOB_SECONDS)
    assert {event["path"] for event in usual.about(folder, "file.detected")} <= {str(between)}
    assert not daemon.matching("job.queued", path=str(before))
    assert result_of(before).stat().st_mtime_ns == made
    assert visible(folder) == sorted(
        f"{name}{ending}" for name in ("before", "between", "long") for ending in (".rtdc", "_dcn.rtdc")
    )


def test_pipeline_that_cannot_start_ends_the_daemon(start_daemon, watched_folder, tmp_path, monkeypatch):
    """A broken installation is told at the start, and costs no measurement an attempt."""
    published(watched_folder, "M001.rtdc")
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
    assert_all_end(everybody)
    assert not daemon.matching("daemon.ready")


def test_supervisor_loads_no_numerical_code():
    """What supervises stays small and safe from what it supervises."""
    script = (
        "import sys, dcnumd.commands.run, dcnumd.daemon.supervisor, dcnumd.logic.calls, dcnumd.cli\n"
        "print(sorted({'numpy', 'h5py', 'numba', 'scipy', 'hdf5plugin', 'skimage'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.strip() == "[]"
