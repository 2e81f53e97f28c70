"""A cluster on this computer beside the executor of the daemon, and a daemon with many simulated workers."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.bench import Bench, Figure, Outcome, tell
from benchmarks.cases import SHORT, STANDARD, Settings, Target, at_least, settings
from benchmarks.daemon import Daemon, Event, moment
from benchmarks.measurements import Measurement
from benchmarks.memory import PeakMemory, pss_bytes
from benchmarks.procfs import cpu_seconds
from benchmarks.programs import DCNUMD, HERE, ROOT, environment
from benchmarks.special import MEBIBYTE, Special

CLUSTER = "cluster"
"""Name of the case, which runs only if it is named: not everybody has Dask."""
START_SECONDS = 60.0
"""Time limit for the start of a scheduler and of its workers [s]."""
WAIT_SECONDS = 1.0
"""Duration of a simulated job [s]."""
SAMPLES = 10
"""Number of times that the memory of the daemon is measured."""


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterOptions:
    """What the case cluster measures."""

    long_files: int = 20
    """Number of measurements of 10,000 frames in a batch."""
    short_files: int = 200
    """Number of measurements of 1,000 frames in a batch."""
    simulated: int = 0
    """Number of simulated workers; 0 for two real ones."""
    jobs: int = 10_000
    """Number of jobs of the simulated workers."""


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """How a daemon processed a batch of measurements."""

    seconds: float
    """Time from the first ``job.started`` to the last ``job.finished`` [s]."""
    overhead: float
    """Median of the time between the two in which a measurement was not being processed [ms]."""
    cpu: float
    """Processor time of the daemon itself, without the processes that it starts, for each job [ms]."""


@contextlib.contextmanager
def scheduler(folder: pathlib.Path) -> Iterator[tuple[str, int]]:
    """Context with a scheduler; yields its address and the identifier of its process."""
    if importlib.util.find_spec("distributed") is None:
        raise SystemExit("Dask is not installed: pip install 'dcnumd[dask]'")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", *options]
    with program(command, folder / "scheduler.log", "Scheduler at") as pid:
        yield f"tcp://127.0.0.1:{port}", pid


@contextlib.contextmanager
def program(command: list[str], log: pathlib.Path, announcement: str) -> Iterator[int]:
    """Context in which a program runs; yields its process, when its output, which goes to `log`, says that it is ready.

    Parameters
    ----------
    command
        The program with its arguments.
    log
        File for its output.
    announcement
        Text in the output that says that it is ready.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT, env=environment())
    try:
        deadline = time.monotonic() + START_SECONDS
        while announcement not in log.read_text("utf-8", "replace"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command!r} is not ready:\n{log.read_text('utf-8', 'replace')[-3000:]}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def measure_real(bench: Bench, options: ClusterOptions) -> Outcome:
    """Let a daemon with two workers of one process each, and one with two processes here, take turns at batches."""
    outcome = Outcome()
    workers = ["--workers", "1", "--set", "resources.nice=0", "--set", "log.format=json"]
    with contextlib.ExitStack() as stack:
        folder = bench.new_folder("scheduler")
        address, _ = stack.enter_context(scheduler(folder))
        for name in ("one", "two"):
            command = [*DCNUMD, "worker", address, "--name", name, *workers]
            worker = stack.enter_context(program(command, folder / f"{name}.log", "worker.ready"))
        kinds = {"cluster": on_cluster(address), "local": settings({**QUIET, "resources.nice": 0})}
        batch_of(bench, bench.path(SHORT), 4, kinds["cluster"])
        with PeakMemory(worker) as memory:
            for measurement, number in ((STANDARD, options.long_files), (SHORT, options.short_files)):
                if number:
                    outcome.add(compare(bench, measurement, number, kinds))
        peak = memory.peak_bytes / MEBIBYTE
        outcome.figures.append(Figure(CLUSTER, "peak of the memory of a worker of one process", [peak], "MiB", 0))
    return outcome


QUIET = {"report.enabled": False}
"""Settings without reports, which this computer would make in both cases."""


def on_cluster(address: str) -> Settings:
    """Return the settings of a daemon that uses a cluster."""
    return settings({**QUIET, "executor.kind": "dask", "executor.scheduler": address})


def compare(bench: Bench, measurement: Measurement, number: int, kinds: dict[str, Settings]) -> Outcome:
    """Let daemons of two kinds take turns at a batch of one measurement."""
    path, size = bench.path(measurement), f"{number} files of {bench.scaled(measurement).spec.frames:,} frames"
    batches: dict[str, list[Batch]] = {kind: [] for kind in kinds}
    for turn in range(bench.runs):
        # Who is first changes, so that a computer that becomes slower favours neither.
        for kind in reversed(kinds) if turn % 2 else kinds:
            batches[kind].append(batch_of(bench, path, number, kinds[kind]))
        pair = [batches[kind][-1].seconds for kind in ("local", "cluster")]
        tell(f"  round {turn + 1}  {size}: {pair[0] / pair[1]:.3f} of the local throughput")
    there, here = batches["cluster"], batches["local"]
    ratios = [local.seconds / remote.seconds for local, remote in zip(here, there, strict=True)]
    handed = bench.target(Target("at most", 60, "ms"))
    return Outcome(
        figures=[
            Figure(CLUSTER, f"{size}, two workers of one process", [one.seconds for one in there], "s"),
            Figure(CLUSTER, f"{size}, two processes here", [one.seconds for one in here], "s"),
            Figure(CLUSTER, f"{size}, throughput of the cluster / here", ratios, "x", 3, bench.target(at_least(0.9))),
            Figure(CLUSTER, f"{size}, overhead of a job, cluster", [one.overhead for one in there], "ms", 1, handed),
            Figure(CLUSTER, f"{size}, overhead of a job, here", [one.overhead for one in here], "ms", 1),
            Figure(CLUSTER, f"{size}, processor time of the daemon a job, cluster", [one.cpu for one in there], "ms"),
            Figure(CLUSTER, f"{size}, processor time of the daemon a job, here", [one.cpu for one in here], "ms"),
        ]
    )


def batch_of(bench: Bench, measurement: pathlib.Path, number: int, given: Settings) -> Batch:
    """Let a daemon process a batch."""
    daemon = Daemon(bench.new_folder(CLUSTER), given, 2, bench.timeout)
    # All before it starts: a further link to a file changes the stat of all.
    for one in range(number):
        (daemon.watched / f"C{one:05d}_data.rtdc").hardlink_to(measurement)
    with daemon:
        begin = cpu_seconds([daemon.process.pid])
        finished = daemon.wait_for_several("job.finished", number)
        cpu = cpu_seconds([daemon.process.pid]) - begin
        started = {event["path"]: event for event in daemon.wait_for_several("job.started", number)}
    taken = max(map(moment, finished)) - min(map(moment, started.values()))
    for event in finished:
        pathlib.Path(event["output"]).unlink()
    overheads = [overhead_of(started[event["path"]], event) for event in finished]
    return Batch(taken, 1000 * statistics.median(overheads), 1000 * cpu / number)


def overhead_of(started: Event, finished: Event) -> float:
    """Return how much longer a job took than the processing in it [s]."""
    return moment(finished) - moment(started) - float(finished["seconds"])


def measure_simulated(bench: Bench, options: ClusterOptions) -> Outcome:
    """Give many short jobs to many workers, and observe the daemon."""
    path, cpu, memory = bench.path(SHORT), list[float](), list[float]()
    with contextlib.ExitStack() as stack:
        folder = bench.new_folder("scheduler")
        address, scheduling = stack.enter_context(scheduler(folder))
        driver = os.fspath(HERE / "cluster_driver.py")
        command = [sys.executable, driver, address, str(options.simulated), str(WAIT_SECONDS)]
        stack.enter_context(program(command, folder / "workers.log", "ready"))
        daemon = Daemon(bench.new_folder(CLUSTER), on_cluster(address), 1, bench.timeout)
        for one in range(options.jobs):
            (daemon.watched / f"C{one:05d}_data.rtdc").hardlink_to(path)
        stack.enter_context(daemon)
        begin, begin_scheduling = cpu_seconds([daemon.process.pid]), cpu_seconds([scheduling])
        for sample in range(1, SAMPLES + 1):
            done = options.jobs * sample // SAMPLES
            finished = daemon.wait_for_several("job.finished", done)
            memory.append(pss_bytes(daemon.process.pid) / MEBIBYTE)
            cpu.append(1000 * (cpu_seconds([daemon.process.pid]) - begin) / done)
            tell(f"  {done} jobs: {cpu[-1]:.2f} ms of processor time a job, {memory[-1]:.1f} MiB")
        started = {event["path"]: event for event in daemon.wait_for_several("job.started", options.jobs)}
        scheduled = 1000 * (cpu_seconds([scheduling]) - begin_scheduling) / options.jobs
    taken = max(map(moment, finished)) - min(map(moment, started.values()))
    overhead = 1000 * statistics.median(overhead_of(started[event["path"]], event) for event in finished)
    what = f"{options.simulated} simulated workers, {options.jobs:,} jobs"
    growth = memory[-1] - memory[SAMPLES // 4]
    handed, bound = (Target("at most", limit, "ms") for limit in (60, 5))
    return Outcome(
        figures=[
            Figure(CLUSTER, f"{what}: processor time of the daemon a job", [cpu[-1]], "ms", 2, bound),
            Figure(CLUSTER, f"{what}: processor time of the scheduler a job", [scheduled], "ms", 2),
            Figure(CLUSTER, f"{what}: overhead of a job", [overhead], "ms", 1, handed),
            Figure(CLUSTER, f"{what}: memory of the daemon at the end", [memory[-1]], "MiB", 1),
            Figure(CLUSTER, f"{what}: growth of it since the first quarter", [growth], "MiB", 1),
            Figure(CLUSTER, f"{what}: jobs per second", [options.jobs / taken], "1/s", 1),
        ]
    )


def cluster_case(options: ClusterOptions) -> Special:
    """Return the case."""
    if options.simulated:
        what = f"{options.jobs:,} jobs on {options.simulated} simulated workers of a cluster"
        return Special(CLUSTER, what, options.jobs / 15, lambda bench: measure_simulated(bench, options))
    what = "a cluster on this computer beside the daemon's own processes"
    seconds = 5 * 2 * (4 * options.long_files + options.short_files)
    return Special(CLUSTER, what, seconds, lambda bench: measure_real(bench, options))
