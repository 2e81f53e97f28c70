"""Start the scheduler of a dcnumd cluster on this computer, and keep workers of it as jobs of Slurm."""

import signal
from typing import Any

from dask_jobqueue.slurm import SLURMCluster, SLURMJob

WORKERS = 8
PROCESSES = 4


class WorkerJob(SLURMJob):
    """A job that runs `dcnumd worker` where dask-jobqueue would run `dask worker`."""

    def __init__(self, scheduler: str | None = None, name: str | None = None, **options: Any) -> None:
        super().__init__(scheduler, name, **options)
        self._command_template = f"/shared/dcnumd/bin/dcnumd worker {scheduler} --name {name} --workers {PROCESSES}"


class WorkerCluster(SLURMCluster):
    """A cluster of these jobs."""

    job_cls = WorkerJob


if __name__ == "__main__":
    cluster = WorkerCluster(
        job_name="dcnumd",
        queue="cpu",
        walltime="12:00:00",
        cores=1,  # one measurement at a time, which is no matter of Slurm
        processes=1,
        job_cpu=PROCESSES,
        memory="4GB",
        protocol="tls://",
        log_directory="/shared/dcnumd/log",
        job_script_prologue=["export NUMBA_CACHE_DIR=/shared/dcnumd/kernels"],
        scheduler_options={"port": 8786, "dashboard": False, "dashboard_address": "127.0.0.1:8787"},
    )
    cluster.adapt(minimum_jobs=WORKERS, maximum_jobs=WORKERS)  # replaces a worker whose time is over
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    cluster.close()
