"""Simulated workers of a cluster in one process: they take jobs as real ones do, but only wait, and write a few bytes.

Run as ``python cluster_driver.py ADDRESS NUMBER SECONDS``: address of the scheduler, number of workers, duration of a
job [s]. It prints a line when all workers are there, and ends with SIGTERM.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable

import dask
import distributed

from dcnumd.daemon.cluster import engine
from dcnumd.daemon.cluster.names import resource
from dcnumd.logic.job import Job, JobResult, Progress

FEWER_TIMERS = {
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.worker.profile.enabled": False,
}
"""Settings of Dask without which many workers in one process would do nothing but observe themselves."""
CONTENT = b"the result of a simulated worker\n"


class WaitingEngine:
    """Stands for the engine of a worker.

    Parameters
    ----------
    seconds
        Duration of a job [s].
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def process(self, job: Job, tell: Callable[[Progress], None], asked: asyncio.Task[None]) -> JobResult:
        """Report progress at the beginning and at the end, as for a short measurement, and wait in between."""
        tell(Progress(job.job_id, "background", 0, 0, 0))
        await asyncio.wait([asked], timeout=self._seconds)
        tell(Progress(job.job_id, "writing", 1000, 1000, 600))
        job.path_out.parent.mkdir(parents=True, exist_ok=True)
        job.path_out.write_bytes(CONTENT)
        return JobResult(
            "done", "", job.path_in, job.path_out, "", "", frames=1000, events=600, seconds=self._seconds,
            bytes_written=len(CONTENT),
        )  # fmt: skip


async def serve(address: str, number: int, seconds: float) -> None:
    """Start workers, and keep them until the scheduler is gone."""
    dask.config.set(FEWER_TIMERS)
    engine.use(WaitingEngine(seconds))  # type: ignore[arg-type]  # has what a job calls
    options = {"nthreads": 1, "memory_limit": 0, "resources": {resource(): 1}, "dashboard": False}
    with tempfile.TemporaryDirectory() as folder:
        workers = [
            distributed.Worker(address, name=f"simulated-{one}", local_directory=folder, **options)
            for one in range(number)
        ]
        await asyncio.gather(*workers)
        print("ready", flush=True)
        await asyncio.gather(*(worker.finished() for worker in workers))


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
