"""A Dask cluster of real processes on this computer, for the tests of daemons that use it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Iterator

from tests.support.daemon import Daemon
from tests.support.faults import wait_until

SILENT_SECONDS = 15
"""Time after which the scheduler gives up a worker that does not send anything [s]."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class DaskCluster:
    """A scheduler and its workers, each in a process of its own."""

    def __init__(self, folder: pathlib.Path, stack: contextlib.ExitStack) -> None:
        self.file = folder / "scheduler.json"
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.scheduler: subprocess.Popen[bytes]
        self._stack = stack

    def start_scheduler(self) -> None:
        """Start the scheduler, at the same address as before, and wait until it answers."""
        self.file.unlink(missing_ok=True)
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard", "--scheduler-file"]
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", *options, os.fspath(self.file)]
        environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{SILENT_SECONDS}s"}
        self.scheduler = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
        self._stack.callback(self.scheduler.wait)
        self._stack.callback(self.scheduler.kill)
        wait_until(self.file.exists)

    def start_worker(self, name: str, *overrides: str) -> Daemon:
        """Start a worker with one process and other settings than usual, and follow its log."""
        settings = [word for one in ("resources.nice=0", *overrides) for word in ("--set", one)]
        worker = Daemon.follow("worker", self.address, "--workers", "1", "--name", name, *settings)
        self._stack.callback(worker.close)
        return worker

    def config(self, **settings: object) -> str:
        """Return the section of a config that has jobs processed here."""
        lines = {"kind": "dask", "scheduler": self.address, **settings}
        shown = (f"{key} = {_toml(value)}" for key, value in lines.items())
        return "\n[executor]\n" + "\n".join(shown) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {json.dumps(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)


@contextlib.contextmanager
def dask_cluster(folder: pathlib.Path) -> Iterator[DaskCluster]:
    """Start a scheduler; it and its workers are killed at the end."""
    with contextlib.ExitStack() as stack:
        cluster = DaskCluster(folder, stack)
        cluster.start_scheduler()
        yield cluster
