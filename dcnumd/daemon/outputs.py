"""Folders that take no result just now: full, read-only or gone. Their measurements wait, and others go on."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable

import structlog

from dcnumd.config import Settings
from dcnumd.daemon.backoff import backoff_seconds
from dcnumd.daemon.places import Places
from dcnumd.daemon.queue import JobQueue, Waiting
from dcnumd.daemon.records import Entry
from dcnumd.errors import ResultError
from dcnumd.logic.job import Job

log = structlog.get_logger()

LOOK_SECONDS = 10.0
"""A folder that takes no results is looked at so often, and more often in the beginning."""
SURROUNDINGS = frozenset(
    {
        "no_space",
        "output_folder",
        "output_read_only",
        "output_no_permission",
        "output_unreachable",
        "output_not_mounted",
    }
)
"""Reasons that are no measurement's fault: it waits, and this costs it no attempt."""


@dataclasses.dataclass(slots=True)
class Obstacle:
    """Why a folder takes no results."""

    error: ResultError
    look_at: float
    """When it is looked at again, on the monotonic clock."""
    looks: int = 0
    failures: int = 0
    """Jobs in a row that failed although nothing seemed wrong before, because of a quota for example."""

    def pause(self) -> float:
        """Return when to look again [s], which is later each time."""
        self.looks += 1
        return min(2.0 ** (self.looks - 1), LOOK_SECONDS)


class OutputFolders:
    """Parks the measurements of folders that take no results, and lets them go on when they do.

    Parameters
    ----------
    settings
        How long to wait after failures.
    places
        Finds out how a folder is.
    queue
        Where measurements are parked.
    job_of
        Makes the job of a measurement.
    """

    def __init__(self, settings: Settings, places: Places, queue: JobQueue, job_of: Callable[[Entry], Job]) -> None:
        self._settings = settings
        self._places = places
        self._queue = queue
        self._job_of = job_of
        self._obstacles: dict[pathlib.Path, Obstacle] = {}
        self._blocked = asyncio.Event()

    def root_of(self, entry: Entry) -> pathlib.Path:
        """Return the folder that stands for all results in and below it."""
        return self._settings.output_root_of(pathlib.Path(entry.path))

    async def look(self, entry: Entry) -> ResultError | None:
        """Return what is in the way of a measurement's result, if anything is."""
        obstacle = self._obstacles.get(self.root_of(entry))
        if obstacle is not None and obstacle.error.reason != "no_space" and time.monotonic() < obstacle.look_at:
            # A folder that does not answer would keep all others waiting each time; how much fits, each has to see.
            return obstacle.error
        return await self._look_now(entry)

    async def _look_now(self, entry: Entry) -> ResultError | None:
        return await self._places.obstacle(self.root_of(entry), self._job_of(entry).path_out, entry.size or 0)

    def park(self, waiting: Waiting, error: ResultError, *, failed: bool = False) -> None:
        """Have a measurement wait until its folder takes results again.

        Parameters
        ----------
        waiting
            The measurement.
        error
            What is in the way.
        failed
            It was found out the hard way, by a job; then the next attempt is put off longer and longer.
        """
        root = self.root_of(waiting.entry)
        obstacle = self._obstacles.get(root)
        if obstacle is None:
            obstacle = self._obstacles[root] = Obstacle(error, 0.0)
            self._report(root, error)
        obstacle.error = error
        obstacle.failures += failed
        pause = backoff_seconds(self._settings.retry, obstacle.failures) if obstacle.failures else 0.0
        obstacle.look_at = time.monotonic() + max(obstacle.pause(), pause)
        self._queue.park(waiting, root)
        self._blocked.set()

    def succeeded(self, entry: Entry) -> None:
        """Note that a folder has taken a result."""
        obstacle = self._obstacles.get(root := self.root_of(entry))
        if obstacle is None:
            return
        obstacle.failures = 0
        if not self._queue.parked(root):
            # A small result may fit where a large one still waits for room.
            del self._obstacles[root]
            self._report_end(root, obstacle)

    async def keep_looking(self, released: Callable[[], None]) -> None:
        """Look at the folders that take no results, and call `released` whenever one of them does again."""
        while True:
            self._blocked.clear()
            times = [obstacle.look_at for root, obstacle in self._obstacles.items() if self._queue.parked(root)]
            timeout = max(0.0, min(times) - time.monotonic()) if times else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._blocked.wait()
            for root, obstacle in list(self._obstacles.items()):
                if self._queue.parked(root) and obstacle.look_at <= time.monotonic():
                    await self._look_again(root, obstacle)
                    released()

    async def _look_again(self, root: pathlib.Path, obstacle: Obstacle) -> None:
        smallest = min((waiting.entry for waiting in self._queue.parked(root)), key=lambda entry: entry.size or 0)
        if await self._look_now(smallest) is not None:
            obstacle.look_at = time.monotonic() + obstacle.pause()
            return
        if not obstacle.failures:
            # Where nothing was wrong to be seen, only a result that is there is a proof.
            self._report_end(root, obstacle)
            self._obstacles.pop(root, None)
        self._queue.release(root)

    @staticmethod
    def _report(root: pathlib.Path, error: ResultError) -> None:
        event = "disk.low" if error.reason == "no_space" else "output.blocked"
        log.warning(event, folder=os.fspath(root), reason=error.reason, error=error.message)

    @staticmethod
    def _report_end(root: pathlib.Path, obstacle: Obstacle) -> None:
        log.info("disk.ok" if obstacle.error.reason == "no_space" else "output.recovered", folder=os.fspath(root))
