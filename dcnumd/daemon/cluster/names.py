"""Names that a daemon and the workers of a cluster have agreed on; nothing of Dask is imported."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import pathlib
import socket

from dcnumd import __version__
from dcnumd.kernels.key import code_key

PREFIX = "dcnumd-"
"""Beginning of the names of all resources, keys, topics and events of dcnumd on a scheduler."""
JOIN_TOPIC = "all"
"""Topic on which the scheduler announces workers that join or leave."""


@functools.cache
def resource() -> str:
    """Return the name of the Dask resource that a worker with the same version and the same kernels has.

    A job requires it, so the scheduler never assigns a job to another worker.
    """
    return f"{PREFIX}{__version__}-{code_key()}"


def address_in(file: pathlib.Path) -> str:
    """Return the address in a file of the scheduler.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It contains no address.
    """
    try:
        return str(json.loads(file.read_text("utf-8"))["address"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file}: contains no address of a scheduler") from error


def daemon_name(state_folder: pathlib.Path) -> str:
    """Return a name for the daemon with this state folder, which is the same after each start."""
    place = f"{socket.gethostname()}:{os.fspath(state_folder)}"
    return hashlib.sha256(os.fsencode(place)).hexdigest()[:12]


def key(daemon: str, job_id: str) -> str:
    """Return the key of a job; a daemon that starts again finds the job by it."""
    return f"{PREFIX}{daemon}-{job_id}"


def topic(daemon: str) -> str:
    """Return the topic on which workers report the progress of the jobs of a daemon."""
    return f"{PREFIX}{daemon}"


def stop_event(job_id: str) -> str:
    """Return the name of the distributed event that asks a job to stop."""
    return f"{PREFIX}stop-{job_id}"
