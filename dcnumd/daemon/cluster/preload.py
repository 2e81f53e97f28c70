"""Lets a plain worker of Dask process jobs of daemons: ``dask worker ADDRESS --preload dcnumd.daemon.cluster.preload``.

``dcnumd worker`` does more: for example, it goes on when the scheduler is restarted.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
from typing import Any

from dcnumd.config.file import find_config, load_settings
from dcnumd.daemon import logs
from dcnumd.daemon.cluster import engine
from dcnumd.daemon.cluster.engine import Engine
from dcnumd.daemon.cluster.names import resource
from dcnumd.errors import ConfigError

CLOSE_SECONDS = 2.0
"""Time limit for the end of the processes of the engine [s]."""

_engines: list[Engine] = []


async def dask_setup(worker: Any) -> None:
    """Start the engine before Dask announces the worker to the scheduler; called by Dask.

    Parameters
    ----------
    worker
        The `distributed.Worker`.

    Raises
    ------
    ConfigError
        The worker belongs to a nanny and may have no child processes, or the config is wrong.
    """
    if multiprocessing.current_process().daemon:
        raise ConfigError("start the worker with --no-nanny, or set distributed.worker.daemon of Dask to false")
    os.environ.pop("HDF5_USE_FILE_LOCKING", None)
    settings = load_settings(find_config(None), ())
    mine = Engine(settings, functools.partial(logs.configure, settings.log))
    await mine.start()
    engine.use(mine)
    _engines.append(mine)
    state = worker.state
    state.total_resources[resource()] = state.available_resources[resource()] = 1.0


async def dask_teardown(worker: Any) -> None:  # noqa: ARG001 -- the signature is Dask's
    """End the processes of the engine; called by Dask."""
    engine.use(None)
    while _engines:
        await _engines.pop().close(CLOSE_SECONDS)
