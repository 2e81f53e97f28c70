"""A worker of a Dask cluster that processes jobs of daemons: ``dcnumd worker``."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import pathlib
import signal
import socket
import sys
import tempfile
from typing import Any

import structlog

from dcnumd import __version__
from dcnumd.config.values import Settings
from dcnumd.daemon import logs
from dcnumd.daemon.cluster import dask_loading, engine
from dcnumd.daemon.cluster.engine import Engine
from dcnumd.daemon.cluster.link import CANNOT_CONNECT, CONNECT_SECONDS, PAUSE_SECONDS
from dcnumd.daemon.cluster.names import address_in, resource
from dcnumd.daemon.cluster.scratch_folder import scratch_folder
from dcnumd.daemon.systemd import Notifier
from dcnumd.errors import ConfigError

log = structlog.get_logger()

CLOSE_SECONDS = 2.0
"""Time limit for leaving the scheduler, and for the end of the pipeline process [s]."""


def run_worker(settings: Settings, scheduler: dict[str, Any], name: str = "") -> None:
    """Process jobs until SIGTERM or SIGINT; the job that runs then goes back to its daemon.

    Parameters
    ----------
    settings
        Settings of the worker.
    scheduler
        Keyword of `distributed.Worker` that names the scheduler: ``scheduler_ip`` or ``scheduler_file``.
    name
        Name of the worker; by default one is made of the names of the computer and the process.

    Raises
    ------
    DcnumdError
        The pipeline process cannot be started, or the scheduler needs certificates that Dask does not have.
    """
    # This variable would override the locking that readers request; a lock makes the instrument's next write fail.
    os.environ.pop("HDF5_USE_FILE_LOCKING", None)
    name = name or f"{socket.gethostname()}-{os.getpid()}"
    with scratch_folder() as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        try:
            asyncio.run(_serve(settings, {**scheduler, "name": name, "local_directory": folder}))
        finally:
            tempfile.tempdir = None


async def _serve(settings: Settings, options: dict[str, Any]) -> None:
    stop, notifier = asyncio.Event(), Notifier.from_environment()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    mine = Engine(settings, functools.partial(logs.configure, settings.log))
    stopping = asyncio.create_task(stop.wait())
    work = asyncio.create_task(_keep_serving(mine, options, notifier))
    try:
        await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        notifier.stopping()
        work.cancel()
        stopping.cancel()
        await asyncio.wait([work])
        await mine.close(CLOSE_SECONDS)
        # The next step of `asyncio.run` is to wait for tasks of Dask, some of which may not heed their cancellation.
        asyncio.get_running_loop().call_later(CLOSE_SECONDS, sys.exit)
    if not work.cancelled():
        work.result()


async def _keep_serving(mine: Engine, options: dict[str, Any], notifier: Notifier) -> None:
    """Start the pipeline process, then serve one scheduler after the other, until cancelled."""
    distributed = await dask_loading.load()
    _check_certificates(options)
    await mine.start()
    engine.use(mine)
    # The scheduler may be started later.
    notifier.ready()
    lost = ""
    while True:
        # The file with the address may not have been there before.
        _check_certificates(options)
        # Jobs run in the pipeline process, whose memory is not Dask's; hence no limit of Dask's, which kills.
        # Dask always starts a web server, which is not encrypted.
        web = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
        worker = distributed.Worker(**options, **web, nthreads=1, memory_limit=0, resources={resource(): 1})
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await worker
            log.info("worker.ready", worker=options["name"], address=worker.address, version=__version__)
            lost = ""
            await worker.finished()
            error = "the connection was lost"
        except (*CANNOT_CONNECT, RuntimeError) as problem:
            # Dask raises "Worker failed to start" from the error that tells why.
            error = str(problem.__cause__ or problem) or "it does not answer"
        finally:
            await _leave(worker)
        if not lost:
            log.warning("executor.unreachable", scheduler=_shown(options), error=error)
        lost = error
        await asyncio.sleep(PAUSE_SECONDS)


def _check_certificates(options: dict[str, Any]) -> None:
    """Raise an error if the scheduler, as far as its address is known, needs certificates that Dask does not have."""
    address = options.get("scheduler_ip", "")
    if "scheduler_file" in options:
        with contextlib.suppress(OSError, ValueError):
            address = address_in(pathlib.Path(options["scheduler_file"]))
    if lack := dask_loading.lack_of_certificates(address, "worker"):
        raise ConfigError(lack)


async def _leave(worker: Any) -> None:
    """Close a worker, and say to its scheduler, if it can be reached, that this is no failure."""
    for close in (worker.close_gracefully, worker.close):
        # A worker that never ran cannot be closed gracefully, which is a `ValueError`.
        with contextlib.suppress(*CANNOT_CONNECT):
            async with asyncio.timeout(CLOSE_SECONDS):
                await close()


def _shown(options: dict[str, Any]) -> str:
    return str(options.get("scheduler_ip") or options["scheduler_file"])
