"""The command `worker`: a worker of a Dask cluster."""

from __future__ import annotations

import dataclasses
import pathlib

import click

from dcnumd.commands.options import with_settings
from dcnumd.config.values import Settings
from dcnumd.daemon import logs
from dcnumd.daemon.cluster.serve import run_worker
from dcnumd.errors import ConfigError
from dcnumd.extras import lacking


@click.command(epilog="Example: dcnumd worker tls://server.example.org:8786 --workers 4")
@click.argument("scheduler", default="")
@click.option(
    "--scheduler-file",
    type=click.Path(path_type=pathlib.Path, dir_okay=False),
    help="File with the address of the scheduler, instead of SCHEDULER.",
)
@click.option("--workers", type=click.IntRange(0), help="Number of segmentation processes; 0 is one per physical core.")
@click.option("--name", default="", help="Name of the worker; by default made of the computer and the process.")
@with_settings(config_needed=False)
def worker(
    settings: Settings, scheduler: str, scheduler_file: pathlib.Path | None, workers: int | None, name: str
) -> int:
    """Process the jobs of daemons with executor.kind = "dask", until SIGTERM or Ctrl-C.

    The sections [resources], [models] and [log] of the config apply. The worker takes jobs when its kernels are
    compiled, one at a time. A signal gives the running job back; another worker then processes it.
    """
    if lack := lacking("distributed"):
        raise ConfigError(lack)
    if bool(scheduler) == (scheduler_file is not None):
        raise click.UsageError("either SCHEDULER or --scheduler-file is needed")
    if workers is not None:
        settings = dataclasses.replace(settings, resources=dataclasses.replace(settings.resources, num_workers=workers))
    logs.configure(settings.log)
    try:
        named = {"scheduler_ip": scheduler} if scheduler else {"scheduler_file": f"{scheduler_file}"}
        run_worker(settings, named, name)
    finally:
        logs.flush()
    return 0
