"""The processors of this computer."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable


def physical_cores(allowed: Iterable[int] | None = None) -> int:
    """Return the number of physical cores.

    Parameters
    ----------
    allowed
        Numbers of the processors to consider; None for those that this process may use.
    """
    processors = set(os.sched_getaffinity(0) if allowed is None else allowed)
    cores = set()
    for cpu in processors:
        siblings = pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text())
        except OSError:
            # A container may hide the topology; each processor then counts as a core.
            return len(processors)
    return len(cores)
