"""The commands and the configuration in the documents make a cluster to which only those with a certificate connect."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys

import psutil
import pytest

from tests.support.cluster import free_port
from tests.support.daemon import HANG_SECONDS, Daemon, draw_measurement
from tests.support.faults import result_of, wait_until

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "cluster.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.soak,
    pytest.mark.skipif(not PAGE.exists(), reason="the documents are not part of an installation"),
    pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed"),
]


def block_with(word):
    """Return the one block of the page with a word."""
    (found,) = [text for _, text in BLOCK.findall(PAGE.read_text("utf-8")) if word in text]
    return found


def certified(folder):
    """Make an authority and a certificate in a folder; return the environment in which Dask uses them."""
    folder.mkdir()
    subprocess.run(["bash", "-ec", block_with("openssl req")], cwd=folder, check=True, capture_output=True)
    (folder / "dcnumd.yaml").write_text(block_with("require-encryption").replace("/etc/dask", os.fspath(folder)))
    return {"DASK_CONFIG": os.fspath(folder)}


def process(path, address, environment):
    """Have a file processed on a cluster; return the process that has ended."""
    options = ["--no-report", "--executor", "dask", "--set", f"executor.scheduler={address}"]
    return subprocess.run(
        [sys.executable, "-m", "dcnumd", "process", os.fspath(path), *options],
        env={**os.environ, **environment}, timeout=HANG_SECONDS, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_only_those_with_a_certificate_connect(tmp_path):
    """A job is processed; without a certificate, and with that of another authority, nothing is."""
    mine = certified(tmp_path / "mine")
    others = certified(tmp_path / "others")
    path, port, file = tmp_path / "M1.rtdc", free_port(), tmp_path / "scheduler.json"
    draw_measurement(path)
    address = f"tls://127.0.0.1:{port}"
    (command,) = [line for line in block_with("--protocol tls").splitlines() if line.startswith("dask scheduler")]
    options = command.replace("8786", str(port)).split()[2:]
    program = [sys.executable, "-m", "distributed.cli.dask_scheduler", *options, "--host", "127.0.0.1"]
    with contextlib.ExitStack() as stack:
        environment = {**os.environ, **mine}
        command = [*program, "--scheduler-file", os.fspath(file)]
        scheduler = stack.enter_context(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
        stack.callback(scheduler.kill)
        wait_until(file.exists)
        worker = Daemon.follow("worker", address, "--workers", "1", environment=mine)
        stack.callback(worker.close)
        reached_at = worker.wait_for("worker.ready")["address"]
        # What is not encrypted, the web servers of Dask, answers this computer only.
        for process_id, encrypted in ((scheduler.pid, port), (worker.process.pid, int(reached_at.rpartition(":")[2]))):
            sockets = psutil.Process(process_id).net_connections()
            listening = [one.laddr for one in sockets if one.status == psutil.CONN_LISTEN]
            assert {place.ip for place in listening if place.port != encrypted} == {"127.0.0.1"}
        for environment in ({}, others):
            refused = process(path, address, environment)
            assert refused.returncode == 2
            assert f"Error: the scheduler {address} cannot be reached" in refused.stderr
            assert "Traceback" not in refused.stderr
            assert environment or "check your TLS configuration" in refused.stderr
        command = [sys.executable, "-m", "dcnumd", "worker", "--scheduler-file", os.fspath(file)]
        without = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANG_SECONDS)
        assert without.returncode == 2
        assert without.stderr == (
            f"Error: {address} needs certificates, and Dask's configuration names none (distributed.comm.tls)\n"
        )
        done = process(path, address, mine)
        assert done.returncode == 0, done.stderr
        assert result_of(path).exists()
