"""Notices when the work for a measurement grows, on any machine, however busy: no absolute times, no dcnum.

It counts what must not grow (bytes read, pages of memory taken), and holds CPU times of one run against each other.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import statistics
import time

import h5py
import zstandard

from benchmarks.bench import Bench, tell
from benchmarks.cases import STANDARD_SPEC
from benchmarks.limit import Share, result_chunks
from benchmarks.measurements import Measurement
from benchmarks.procfs import bytes_read, cpu_seconds, minor_faults
from dcnumd.logic.job import Job
from dcnumd.logic.process import process_measurement
from dcnumd.read.frame_reader import FrameSource
from dcnumd.write.writer import compression_level

GUARD_FRAMES = 4000
COMPRESSION = "zstd-5"
JOBS = 5
WORKERS = 2
"""With more of them, more jobs would have to pass until each has seen every page."""

READ_BOUND = 1.3
"""Bytes read relative to the packed images: each once, 200 of 4000 frames again for the background, and metadata."""
WORKER_FAULTS_BOUND = 3.0
"""Pages of memory that workers take for a frame. Each worker takes each page of the shared slots once, in some job or
other, so the best of several jobs counts. A frame in a new buffer would be 6 pages more."""
CPU_BOUND = 1.6
"""CPU time of everything but packing, relative to packing the images and masks of the result."""


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """A measured value and its bound."""

    what: str
    value: float
    bound: float

    @property
    def kept(self) -> bool:
        """Whether the value is within its bound."""
        return self.value <= self.bound

    def __str__(self) -> str:
        state = "ok" if self.kept else "EXCEEDED"
        return f"{state:8}  {self.what}: {self.value:.2f}, at most {self.bound:.2f}"


@dataclasses.dataclass(frozen=True, slots=True)
class Observed:
    """What one job took, in this process and its workers together."""

    cpu_seconds: float
    bytes_read: int
    worker_faults: int
    result: pathlib.Path


def run_guard(bench: Bench) -> int:
    """Check everything and print it; return the exit code."""
    path = bench.stock.path(Measurement(dataclasses.replace(STANDARD_SPEC, frames=GUARD_FRAMES)))
    observed = observe_jobs(path, bench.new_folder("guard"), WORKERS, JOBS)
    checks = [*count_checks(path, observed), cpu_check(path, observed)]
    for check in checks:
        print(check)
    exceeded = [check.what for check in checks if not check.kept]
    if exceeded:
        tell(f"guard: more work than there should be: {'; '.join(exceeded)}")
    return 1 if exceeded else 0


def observe_jobs(measurement: pathlib.Path, folder: pathlib.Path, workers: int, jobs: int) -> list[Observed]:
    """Process a measurement several times; the first time warms up and is not told of.

    Parameters
    ----------
    measurement
        The input.
    folder
        A new folder for the results.
    workers
        Worker processes.
    jobs
        How many jobs to observe.
    """
    observed = []
    pids: tuple[int, ...] = ()
    for number in range(jobs + 1):
        job = Job(
            path_in=measurement,
            path_out=folder / f"{number}_dcn.rtdc",
            basin_strategy="drain",
            compression=COMPRESSION,
            num_workers=workers,
        )
        everybody = (os.getpid(), *pids)
        before = cpu_seconds(everybody), bytes_read(everybody), minor_faults(pids)
        result = process_measurement(job)
        after = cpu_seconds(everybody), bytes_read(everybody), minor_faults(pids)
        if number:
            assert result.worker_pids == pids, "workers must stay across measurements"
            observed.append(Observed(after[0] - before[0], after[1] - before[1], after[2] - before[2], result.path_out))
        pids = result.worker_pids
    return observed


def count_checks(measurement: pathlib.Path, observed: list[Observed]) -> list[Check]:
    """Return the checks that count operations; they hold for every machine."""
    with h5py.File(measurement, "r", locking=False) as h5:
        images = h5["events/image"]
        frames, stored = len(images), images.id.get_storage_size()
    return [
        Check(
            "bytes read, relative to the packed images of the measurement",
            statistics.median(one.bytes_read for one in observed) / stored,
            READ_BOUND,
        ),
        Check(
            "pages of memory that workers take for a frame",
            min(one.worker_faults for one in observed) / frames,
            WORKER_FAULTS_BOUND,
        ),
    ]


def cpu_check(measurement: pathlib.Path, observed: list[Observed]) -> Check:
    """Return the check that compares CPU times: everything but packing, with packing."""
    packing = packing_cpu_seconds(measurement, observed[0].result)
    everything = statistics.median(one.cpu_seconds for one in observed)
    return Check("CPU time of all but packing, relative to packing", (everything - packing) / packing, CPU_BOUND)


def packing_cpu_seconds(measurement: pathlib.Path, result: pathlib.Path) -> float:
    """Return the CPU time of packing the images and masks of a result [s], the median of three times."""
    level = compression_level(COMPRESSION)
    assert level is not None
    with h5py.File(measurement, "r", locking=False) as h5:
        source = FrameSource.of(h5["events/image"])
    chunks = list(result_chunks(Share(source, result, level, 0, 1)))
    # not our own packing: if that became slower, nobody would notice
    compressor = zstandard.ZstdCompressor(level=level)
    measured = []
    for _ in range(3):
        begin = time.process_time()
        for chunk in chunks:
            compressor.compress(chunk.data)
        measured.append(time.process_time() - begin)
    return statistics.median(measured)
