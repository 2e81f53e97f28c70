"""Import of Dask, which takes a second and 30 MB; only a daemon or worker that uses a cluster does it."""

from __future__ import annotations

import asyncio
import logging
from types import ModuleType
from typing import Literal

from dcnumd.errors import ConfigError

DASK_LOGGERS = ("distributed", "distributed.client", "distributed.gc", "bokeh", "tornado", "tornado.application")
"""Loggers for which Dask installs handlers of its own when it is imported."""

SPARING = {
    # Dask would estimate the size of each message, to pack large ones in a thread; those of dcnumd are small.
    "distributed.comm.offload": False,
    # It would keep the last 1,000 batches of messages, with all jobs in them, in case somebody looks for an error.
    "distributed.admin.low-level-log-length": 10,
}
"""Settings of Dask with which a daemon takes less time for a job, and less memory."""

MIN_TCP_SECONDS = 11
"""Smallest time limit of Dask for connections with which it can connect [s]."""


async def load() -> ModuleType:
    """Import Dask in a thread, and return its module `distributed`; its log lines go the way of all others.

    Raises
    ------
    ConfigError
        With Dask's configuration, no connection is possible.
    """
    distributed = await asyncio.to_thread(_load)
    if problem := problem_of_timeout():
        raise ConfigError(problem)
    return distributed


def _load() -> ModuleType:
    import dask.config  # noqa: PLC0415 -- an extra, which the configuration asks for

    # Dask reads this when it is imported.
    dask.config.set(SPARING)
    import distributed  # noqa: PLC0415 -- likewise

    for name in DASK_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        # Its errors are tracebacks of lost connections, which events of dcnumd tell in a line.
        logger.setLevel(logging.CRITICAL)
    return distributed


def problem_of_timeout() -> str:
    """Return why no connection is possible, if Dask's time limit for connections is so short that it always fails."""
    import dask.config  # noqa: PLC0415 -- as above
    from dask.utils import parse_timedelta  # noqa: PLC0415

    name = "distributed.comm.timeouts.tcp"
    given = dask.config.get(name, default=f"{MIN_TCP_SECONDS}s")
    try:
        enough = parse_timedelta(given, default="seconds") >= MIN_TCP_SECONDS
    except (KeyError, TypeError, ValueError):
        enough = False
    return "" if enough else f"Dask's configuration: {name} is {given!r}; {MIN_TCP_SECONDS} s or more is allowed"


def lack_of_certificates(address: str, role: Literal["client", "worker"]) -> str:
    """Return why nobody can connect to an address of a scheduler, if it needs certificates that Dask does not have.

    Parameters
    ----------
    address
        Address of the scheduler.
    role
        Which certificate is used.
    """
    if not address.startswith("tls://"):
        return ""
    from distributed.security import Security  # noqa: PLC0415 -- as above

    try:
        context = Security().get_connection_args(role)["ssl_context"]
    except OSError as error:
        return f"{address} needs certificates, and those that Dask's configuration names cannot be used: {error}"
    if context is None:
        return f"{address} needs certificates, and Dask's configuration names none (distributed.comm.tls)"
    return ""
