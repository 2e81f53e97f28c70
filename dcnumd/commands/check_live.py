"""Checks of what the processing of measurements during their recording needs, for the command `check`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from dcnumd import routing
from dcnumd.commands.finding import Finding
from dcnumd.config.values import Settings
from dcnumd.logic.memory import for_live, in_mb

FEWEST_PROCESSORS = 2
"""Number of processors that the recording of a usual camera needs for its processing."""


def live_findings(settings: Settings) -> Iterator[Finding]:
    """Yield what is to be said about the processing of measurements while they are recorded."""
    if not settings.live.enabled:
        return
    workers = routing.number_of_workers(settings)
    further = "1 further worker" if workers == 1 else f"{workers} further workers"
    text = f"recordings in SWMR mode are processed while they grow, by {further}"
    yield Finding("ok", "live", f"{text}, with at most {in_mb(for_live(workers))} MB of memory for usual frames")
    processors = len(settings.resources.cpus or os.sched_getaffinity(0))
    if processors < FEWEST_PROCESSORS:
        text = (
            f"{processors} processor is too few to process a recording as fast as the camera delivers it; allow at "
            f"least {FEWEST_PROCESSORS} besides those of the instrument (resources.cpus), or set live.enabled to false"
        )
        yield Finding("warning", "live", text)
    yield from _spool(settings)


def _spool(settings: Settings) -> Iterator[Finding]:
    """Yield a note if the disk of the state folder has no room for the events of a recording."""
    folder = settings.state_folder()
    nearest = next((parent for parent in (folder, *folder.parents) if parent.exists()), folder)
    try:
        free = shutil.disk_usage(nearest).free
    except OSError:
        # The finding about the state folder says why.
        return
    if free < settings.live.spool_mb * 10**6:
        text = f"{free / 1e9:.1f} GB free in {nearest}, less than live.spool_mb = {settings.live.spool_mb}"
        yield Finding("note", "live", f"{text}; events beyond that are computed again after the recording")
