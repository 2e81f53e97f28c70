"""Measurements are processed on the workers of a cluster as they are here."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request

import psutil
import pytest

from dcnumd.cli import main
from tests.support.cluster import free_port, pipeline_of, processes
from tests.support.compared import result_differences
from tests.support.daemon import HANG_SECONDS
from tests.support.faults import draw_long, published, result_of, wait_until

pytestmark = pytest.mark.slow


def test_jobs_run_on_workers_that_see_the_folder_under_another_name(
    cluster, start_daemon, write_config, watched_folder, tmp_path, capsys
):
    """The results are those of this computer; what shows a job names its worker; a stopped daemon leaves none.

    A worker of another version gets no job, because its numbers may differ.
    """
    (tmp_path / "mnt").mkdir()
    there = tmp_path / "mnt" / "instrument"
    there.symlink_to(watched_folder)
    port = free_port()
    paths = {str(watched_folder): str(there)}
    config = write_config(cluster.config(paths=paths) + f'[web]\nlisten = "127.0.0.1:{port}"\n')
    daemon = start_daemon(config=config)
    assert status(port)["cluster"] | {"scheduler": ""} == {
        "scheduler": "",
        "connected": True,
        "workers": 0,
        "refused": 0,
        "capacity": 0,
        "fallback": False,
        "excluded": [],
    }
    assert status(port)["conditions"][0]["name"] == "executor.no_workers"
    with worker_of_another_version(cluster):
        assert daemon.wait_for("worker.refused", worker="old")["found"] == "dcnumd-0.0.1-cafe"
        wait_until(lambda: status(port)["cluster"]["refused"] == 1)
        assert status(port)["cluster"]["capacity"] == 0

    short = published(watched_folder, "short.rtdc")
    daemon.wait_for("job.queued", path=str(short))
    worker = cluster.start_worker("left")
    daemon.wait_for("job.finished", path=str(short))
    remote = result_of(short).rename(tmp_path / "remote.rtdc")
    assert main(["process", str(short), "-c", str(config), "--no-report"]) == 0
    assert result_differences(remote, result_of(short)) == []

    long = watched_folder / "long.rtdc"
    draw_long(long, frames=500)
    processes(worker, long)
    pipeline = pipeline_of(worker)
    pipeline.suspend()
    wait_until(lambda: (status(port)["running"] or {}).get("worker") == "left")
    for command in (["status"], ["why", str(long)]):
        capsys.readouterr()
        assert main([*command, "-c", str(config)]) == 0
        assert "500 frames on left" in capsys.readouterr().out
    pipeline.resume()
    assert daemon.stop() == 0
    wait_until(lambda: not list(watched_folder.glob(".*")))
    assert worker.stop() == 0


@pytest.mark.soak
def test_a_plain_worker_of_dask_processes_jobs(cluster, start_daemon, write_config, watched_folder, monkeypatch):
    """Its processes end with it."""
    options = ["--no-nanny", "--nthreads", "1", "--memory-limit", "0", "--no-dashboard"]
    options += ["--preload", "dcnumd.daemon.cluster.preload"]
    command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.address, "--name", "plain", *options]
    config = write_config(cluster.config())
    monkeypatch.setenv("DCNUMD_CONFIG", str(config))
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as plain:
        try:
            daemon = start_daemon(config=config)
            path = published(watched_folder, "M1.rtdc")
            daemon.wait_for("job.finished", path=str(path))
            children = psutil.Process(plain.pid).children(recursive=True)
        finally:
            plain.terminate()
    assert not psutil.wait_procs(children, HANG_SECONDS)[1]


def status(port: int) -> dict[str, object]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/status", timeout=60) as answer:
        return json.load(answer)


@contextlib.contextmanager
def worker_of_another_version(cluster):
    """Have a worker "old" within this block."""
    options = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--resources", "dcnumd-0.0.1-cafe=1"]
    command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.address, "--name", "old", *options]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as old:
        try:
            yield
        finally:
            old.kill()
