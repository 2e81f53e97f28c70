"""The interface through which a job gets the events that were found while its measurement was recorded."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Protocol

from dcnumd.logic.job import Job


class SpoolSource(Protocol):
    """Interface of an object that processes measurements while they are recorded."""

    async def spool_for(self, path: str) -> pathlib.Path | None:
        """Return the file with the events of a measurement whose job is about to begin; None if there is none."""


async def with_spool(job: Job, spools: SpoolSource | None) -> Job:
    """Return a job with the events that were found while its measurement was recorded, if there are any."""
    if spools is None:
        return job
    return dataclasses.replace(job, spool=await spools.spool_for(os.fspath(job.path_in)))
