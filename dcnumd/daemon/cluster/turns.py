"""The order in which the scheduler assigns the jobs of several daemons.

Each daemon hands out as many jobs as there are workers, so that a queue forms at the scheduler if there are several
daemons. With the same priority for all, their jobs would be taken in the order in which they were handed out, and every
daemon gets its turn. Priorities alone would not do: a daemon whose measurements have a high one, and do not end, would
keep all others waiting for ever. Therefore a priority is a lead in time, as if the job had been handed out earlier, and
is limited.
"""

from __future__ import annotations

LEAD_SECONDS = 60.0
"""Time by which a job with a priority precedes one with a priority that is lower by 1 [s]."""
MAX_LEAD_SECONDS = 600.0
"""Largest time by which a job precedes or follows one with priority 0 [s]."""


def urgency(priority: int, seconds: float) -> float:
    """Return the priority of a job for Dask, which takes the largest first.

    Parameters
    ----------
    priority
        Priority of the watched folder.
    seconds
        Time at which the job is handed out, by the clock of the scheduler [s]; those of the daemons may differ.
    """
    return max(-MAX_LEAD_SECONDS, min(LEAD_SECONDS * priority, MAX_LEAD_SECONDS)) - seconds
