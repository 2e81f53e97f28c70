"""The interface through which a job gets the events that were found while its measurement was recorded."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Protocol

from dcnumd.daemon.ledger.records import Entry
from dcnumd.logic.job import Job


class SpoolSource(Protocol):
    """Interface of an object that processes measurements while they are recorded."""

    async def spool_for(self, path: str, inode: int | None) -> pathlib.Path | None:
        """Return the file with the events of a measurement whose job is about to begin; None if there is none.

        `path` and `inode` are those of the measurement, whose file may have had another name until now.
        """


async def with_spool(job: Job, entry: Entry, spools: SpoolSource | None) -> Job:
    """Return the job of a measurement with the events that were found while it was recorded, if there are any."""
    if spools is None:
        return job
    return dataclasses.replace(job, spool=await spools.spool_for(entry.path, entry.inode))
