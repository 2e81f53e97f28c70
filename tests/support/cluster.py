"""A Dask cluster of real processes, for the tests of daemons that use it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

import psutil

from tests.soak.results import temporary_files
from tests.support.daemon import Daemon
from tests.support.faults import wait_until
from tests.support.hosts import Host

SILENT_SECONDS = 15
"""Time after which the scheduler gives up a worker that does not send anything [s]."""
DASK_SETTINGS = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{SILENT_SECONDS}s"}
HURRIED = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s", "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "6s"}
"""Settings of Dask with which a lost connection is noticed as soon as Dask allows."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


LEFT_OVER = """
import sys, time, distributed

def held(dask_scheduler):
    events = dask_scheduler.extensions["events"]._events
    # One that is not set is forgotten when the last question about it is answered.
    names = [*dask_scheduler.tasks, *(name for name, event in events.items() if event.is_set())]
    return [str(name) for name in names if str(name).startswith("dcnumd-")]

with distributed.Client(sys.argv[1]) as client:
    end = time.monotonic() + 20
    while (left := client.run_on_scheduler(held)) and time.monotonic() < end:
        time.sleep(0.2)
print(*left, sep="\\n", end="")
"""
"""Program that prints the keys that a scheduler still has."""


class DaskCluster:
    """A scheduler and its workers, each in a process of its own.

    Parameters
    ----------
    folder
        Folder for the file with the address of the scheduler.
    stack
        What ends the processes.
    host
        Computer of the scheduler; None for this one.
    environment
        Settings of Dask.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        stack: contextlib.ExitStack,
        host: Host | None = None,
        environment: Mapping[str, str] = DASK_SETTINGS,
    ) -> None:
        self.file = folder / "scheduler.json"
        self.port = free_port()
        self.environment = environment
        self.ip = host.address if host else "127.0.0.1"
        self.address = f"tcp://{self.ip}:{self.port}"
        self.enter = host.enter if host else ()
        self.scheduler: subprocess.Popen[bytes]
        self.workers: dict[str, Daemon] = {}
        """The worker that was started last under each name."""
        self._stack = stack

    def start_scheduler(self) -> None:
        """Start the scheduler, at the same address as before, and wait until it answers."""
        self.file.unlink(missing_ok=True)
        options = ["--host", self.ip, "--port", str(self.port), "--no-dashboard", "--scheduler-file"]
        command = [*self.enter, sys.executable, "-m", "distributed.cli.dask_scheduler", *options, os.fspath(self.file)]
        environment = {**os.environ, **self.environment}
        self.scheduler = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
        self._stack.callback(self.scheduler.wait)
        self._stack.callback(self.scheduler.kill)
        wait_until(self.file.exists)

    def start_worker(
        self, name: str, *settings: str, host: Host | None = None, environment: Mapping[str, str] | None = None
    ) -> Daemon:
        """Start a worker with one process, and follow its log.

        Parameters
        ----------
        name
            Name of the worker.
        *settings
            Settings of the worker, as in ``resources.max_memory_mb=2000``.
        host
            Its computer, if it is not that of the scheduler.
        environment
            Variables that are added to its environment.
        """
        options = [part for setting in ("resources.nice=0", *settings) for part in ("--set", setting)]
        worker = Daemon.follow(
            *("worker", self.address, "--workers", "1", "--name", name, *options),
            environment={**self.environment, **(environment or {})},
            enter=host.enter if host else self.enter,
        )
        self._stack.callback(worker.close)
        self.workers[name] = worker
        return worker

    def have_workers(self, *names: str) -> list[Daemon]:
        """Return workers that are ready; those that do not run are started."""
        for name in names:
            if name not in self.workers or self.workers[name].process.poll() is not None:
                self.start_worker(name)
        for name in names:
            self.workers[name].wait_for("worker.ready")
        return [self.workers[name] for name in names]

    def config(self, **settings: object) -> str:
        """Return the section of a config that has jobs processed here."""
        lines = {"kind": "dask", "scheduler": self.address, **settings}
        shown = (f"{key} = {_toml(value)}" for key, value in lines.items())
        return "\n[executor]\n" + "\n".join(shown) + "\n"

    def left_over(self) -> str:
        """Wait until the scheduler has no task and no set event of dcnumd any more, and return those that stay."""
        command = [*self.enter, sys.executable, "-c", LEFT_OVER, self.address]
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60).stdout


def being_processed(path: pathlib.Path) -> None:
    """Wait until a worker writes the result of a measurement, which is in a folder of its own."""
    wait_until(lambda: temporary_files([path.parent]))


def an_hour_ahead() -> dict[str, str]:
    """Return environment variables with which a clock is an hour ahead; empty without libfaketime of PyPI."""
    found = importlib.util.find_spec("libfaketime")
    if found is None or found.origin is None:
        return {}
    library = pathlib.Path(found.origin).with_name("vendor") / "libfaketime" / "src" / "libfaketime.so.1"
    return {"LD_PRELOAD": os.fspath(library), "FAKETIME": "+1h", "DONT_FAKE_MONOTONIC": "1"}


def processes(worker: Daemon, path: pathlib.Path) -> None:
    """Wait until a worker has a measurement open to process it."""
    worker.wait_for("worker.ready")
    processor_of([worker], path)


def processor_of(workers: Sequence[Daemon], path: pathlib.Path) -> Daemon:
    """Wait until one of the workers has a measurement open to process it, and return that worker."""
    found: list[Daemon] = []

    def look() -> list[Daemon]:
        found.extend(one for one in workers if any(file.path == str(path) for file in pipeline_of(one).open_files()))
        return found

    wait_until(look)
    return found[0]


def pipeline_of(worker: Daemon) -> psutil.Process:
    """Return the process in which a worker executes its jobs."""
    (started,) = worker.matching("worker.started", role="pipeline")[-1:]
    return psutil.Process(started["pid"])


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {json.dumps(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)


@contextlib.contextmanager
def dask_cluster(
    folder: pathlib.Path, host: Host | None = None, environment: Mapping[str, str] = DASK_SETTINGS
) -> Iterator[DaskCluster]:
    """Start a scheduler; it and its workers are killed at the end."""
    with contextlib.ExitStack() as stack:
        cluster = DaskCluster(folder, stack, host, environment)
        cluster.start_scheduler()
        yield cluster
