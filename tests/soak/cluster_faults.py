"""The faults of `tests.soak.cluster`; each function causes one and ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from subprocess import DEVNULL, Popen
from typing import TYPE_CHECKING

import psutil

from tests.support.cluster import an_hour_ahead, pipeline_of
from tests.support.daemon import START_SECONDS

if TYPE_CHECKING:
    from tests.soak.cluster import Site

Fault = Callable[["Site"], None]
BUSY_SECONDS = 20.0
"""Time within which a worker has a moment without an open result [s]."""
SMALL_MB = 100
"""Memory limit of a worker that is too small for any measurement [MB]."""


def kinds() -> list[Fault]:
    """Return the faults that are possible here; a clock needs libfaketime."""
    faults: list[Fault] = [
        scheduler_killed,
        worker_killed,
        worker_stopped,
        worker_suspended,
        worker_cut_off,
        instrument_cut_off,
        daemon_killed,
        share_missing,
        share_read_only,
        path_map_wrong,
        other_version,
        out_of_memory,
        little_memory,
    ]
    return [*faults, *([clock_differs] if an_hour_ahead() else [])]


def scheduler_killed(site: Site) -> None:
    """Kill the scheduler, and start it again."""
    site.cluster.scheduler.kill()
    site.cluster.scheduler.wait()
    time.sleep(site.rng.uniform(0.0, 3.0))
    site.cluster.start_scheduler()


def worker_killed(site: Site) -> None:
    """Kill a worker, and start it again."""
    name = _any(site)
    site.workers[name].process.kill()
    site.workers[name].close()
    site.start_worker(name)


def worker_stopped(site: Site) -> None:
    """Stop a worker in the way of systemd, and start it again."""
    name = _any(site)
    site.workers[name].stop()
    site.workers[name].close()
    site.start_worker(name)


def worker_suspended(site: Site) -> None:
    """Have a worker not answer, but not its processes, for less or more than the scheduler waits."""
    process = site.workers[_any(site)].process
    process.send_signal(signal.SIGSTOP)
    time.sleep(site.rng.uniform(1.0, 10.0))
    process.send_signal(signal.SIGCONT)


def worker_cut_off(site: Site) -> None:
    """Pull the cable of the worker that is not on the server, and put it back."""
    site.network.unplug(site.hosts["node"])
    time.sleep(site.rng.uniform(1.0, 15.0))
    site.network.plug_in(site.hosts["node"])


def instrument_cut_off(site: Site) -> None:
    """Pull the cable of the instrument, and put it back."""
    site.network.unplug(site.instrument)
    time.sleep(site.rng.uniform(1.0, 15.0))
    site.network.plug_in(site.instrument)


def daemon_killed(site: Site) -> None:
    """Kill the daemon, and start it again."""
    assert site.daemon is not None
    site.daemon.process.kill()
    site.start_daemon()


def share_missing(site: Site) -> None:
    """Unmount the share of a worker, and mount it again."""
    host = site.hosts[_any(site)]
    host.unmount(site.share)
    time.sleep(site.rng.uniform(0.5, 3.0))
    host.mount(site.watched, site.share)


def share_read_only(site: Site) -> None:
    """Allow a worker only to read the share for some time."""
    host = site.hosts[_any(site)]
    # The kernel refuses it while a file is open for writing.
    deadline = time.monotonic() + BUSY_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            host.remount(site.share, "ro")
            break
        time.sleep(0.05)
    time.sleep(site.rng.uniform(0.5, 3.0))
    host.remount(site.share, "rw")


def path_map_wrong(site: Site) -> None:
    """Start the daemon with another place of the share, then with the right one."""
    site.start_daemon(site.share / "wrong")
    time.sleep(site.rng.uniform(2.0, 5.0))
    site.start_daemon()


def other_version(site: Site) -> None:
    """Let a worker of another version join for some time."""
    options = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--resources", "dcnumd-0.0.1-cafe=1"]
    command = [*site.cluster.enter, sys.executable, "-m", "distributed.cli.dask_worker", site.cluster.address, *options]
    environment = {**os.environ, **site.family.environment}
    with Popen(command, stdout=DEVNULL, stderr=DEVNULL, env=environment) as old:
        time.sleep(site.rng.uniform(3.0, 5.0))
        old.kill()


def out_of_memory(site: Site) -> None:
    """Kill the process in which a worker executes its jobs, as the kernel does when there is no memory."""
    worker = site.workers[_any(site)]
    if worker.matching("worker.started", role="pipeline"):
        with contextlib.suppress(psutil.NoSuchProcess):
            pipeline_of(worker).kill()


def little_memory(site: Site) -> None:
    """Start a worker again that is not allowed enough memory, and later one that is."""
    name = _any(site)
    _replace(site, name, f"resources.max_memory_mb={SMALL_MB}")
    site.workers[name].wait_for("worker.ready", timeout=START_SECONDS)
    time.sleep(site.rng.uniform(0.5, 2.0))
    _replace(site, name)


def clock_differs(site: Site) -> None:
    """Start a worker again whose clock is an hour ahead, until another fault replaces it."""
    _replace(site, _any(site), environment=an_hour_ahead())


def _replace(site: Site, name: str, *settings: str, environment: dict[str, str] | None = None) -> None:
    site.workers[name].stop()
    site.workers[name].close()
    site.start_worker(name, *settings, environment=environment)


def _any(site: Site) -> str:
    return site.rng.choice(sorted(site.hosts))
