"""Import of Dask, which takes a second and 30 MB; only a daemon or worker that uses a cluster does it."""

from __future__ import annotations

import asyncio
import logging
from types import ModuleType

DASK_LOGGERS = ("distributed", "distributed.client", "distributed.gc", "bokeh", "tornado", "tornado.application")
"""Loggers for which Dask installs handlers of its own when it is imported."""


async def load() -> ModuleType:
    """Import Dask in a thread, and return its module `distributed`; its log lines go the way of all others."""
    return await asyncio.to_thread(_load)


def _load() -> ModuleType:
    import distributed  # noqa: PLC0415 -- an extra, which the configuration asks for

    for name in DASK_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.ERROR)
    return distributed
