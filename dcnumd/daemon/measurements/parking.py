"""Folders that currently accept no results, because they are full, read-only or missing.

Measurements whose result goes there wait, while others are processed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterable
from typing import Literal

import structlog

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.clock import now
from dcnumd.daemon.folders.availability import Availability, root_of
from dcnumd.daemon.ledger.records import Entry
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.measurements.backoff import backoff_seconds
from dcnumd.daemon.measurements.queue import JobQueue, Waiting
from dcnumd.errors import ResultError
from dcnumd.status import Blocked, Output

log = structlog.get_logger()

BlockedFolders = tuple[Blocked, ...]
"""Folders that currently accept no results, and for which measurements wait."""
CHECK_SECONDS = 10.0
"""Longest time between two checks of a folder that accepts no results [s]; the first checks follow sooner."""
NOTE_SECONDS = 1.0
"""Shortest time between two updates of the ledger [s], since thousands of measurements may begin to wait at once."""
MEASURE_SECONDS = 30.0
"""Time between two measurements of the free space in the folders [s]."""


@dataclasses.dataclass(slots=True)
class Obstacle:
    """The reason why a folder accepts no results, and the schedule of its checks."""

    error: ResultError
    check_at: float
    """Time of the next check, on the clock of the event loop [s]."""
    doublings: int = 0
    """Number of times that the delay before the next check was doubled."""
    failures: int = 0
    """Number of consecutive jobs that failed although the check had found nothing, for example due to a quota."""
    unnoted: dict[int, ResultError] = dataclasses.field(default_factory=dict)
    """Numbers of waiting rows whose error is not in the ledger yet, with that error."""

    def pause(self) -> float:
        """Return the delay before the next check [s], and double the one after it up to `CHECK_SECONDS`."""
        seconds = min(2.0**self.doublings, CHECK_SECONDS)
        # Not at every call: after hours of checks the power would overflow.
        self.doublings += seconds < CHECK_SECONDS
        return seconds


class OutputFolders:
    """Parks the measurements of folders that accept no results, and releases them when the folders accept them again.

    Parameters
    ----------
    settings
        Settings with the folders, and the delays after failed jobs.
    ledger
        Ledger that records which measurements wait, and why.
    availability
        Checks of folders.
    queue
        Queue in which the measurements are parked.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        availability: Availability,
        queue: JobQueue,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._availability = availability
        self._queue = queue
        self._obstacles: dict[pathlib.Path, Obstacle] = {}
        self._parked = asyncio.Event()
        self._note_at = 0.0
        self._free = dict[pathlib.Path, int | None].fromkeys(_roots(settings))

    def free(self) -> tuple[Output, ...]:
        """Return all folders of results, with the free space measured last."""
        return tuple(Output(os.fspath(root), free) for root, free in self._free.items())

    def blocked(self) -> BlockedFolders:
        """Return the folders that accept no results and for which measurements wait, with the reason."""
        waiting = ((root, obstacle.error, len(self._queue.parked(root))) for root, obstacle in self._obstacles.items())
        return tuple(
            Blocked(os.fspath(root), _problem_of(error.reason), error.reason, error.message, number)
            for root, error, number in waiting
            if number
        )

    def root_of(self, entry: Entry) -> pathlib.Path:
        """Return the folder of results that is checked for a measurement."""
        path = pathlib.Path(entry.path)
        return self._availability.root_of(
            routing.output_root_of(self._settings, path), routing.output_for(self._settings, path)
        )

    async def check(self, entry: Entry) -> ResultError | None:
        """Return the reason why the result of a measurement cannot be written; None if it can."""
        # Usually there is none, and the folder need not be determined.
        obstacle = self._obstacles.get(self.root_of(entry)) if self._obstacles else None
        if obstacle is not None and obstacle.error.reason != "no_space" and now() < obstacle.check_at:
            # A new check of a folder that does not answer would delay all other measurements. Free space, however, is
            # checked for each measurement, since a small result may fit where a large one does not.
            return obstacle.error
        return await self._check_now(entry)

    async def _check_now(self, entry: Entry) -> ResultError | None:
        path = pathlib.Path(entry.path)
        root, output = routing.output_root_of(self._settings, path), routing.output_for(self._settings, path)
        return await self._availability.obstacle(root, output, entry.size or 0)

    def park(self, waiting: Waiting, error: ResultError, *, failed: bool = False) -> None:
        """Let a measurement wait until its folder accepts results again.

        Parameters
        ----------
        waiting
            The measurement.
        error
            The reason why its result cannot be written.
        failed
            Whether a job failed with this error, rather than a check. The delay then grows with each such job.
        """
        root = self.root_of(waiting.entry)
        obstacle = self._obstacles.get(root)
        if obstacle is None:
            obstacle = self._obstacles[root] = Obstacle(error, 0.0)
            self._report(root, error)
        elif _problem_of(obstacle.error.reason) != _problem_of(error.reason):
            self._report_end(root, obstacle)
            self._report(root, error)
        obstacle.error = error
        obstacle.failures += failed
        pause = backoff_seconds(self._settings.retry, obstacle.failures) if obstacle.failures else 0.0
        obstacle.check_at = now() + max(obstacle.pause(), pause)
        self._queue.park(waiting, root)
        if (waiting.entry.reason, waiting.entry.error) != (error.reason, error.message):
            obstacle.unnoted[waiting.entry.id] = error
        self._parked.set()

    def succeeded(self, entry: Entry) -> None:
        """Note that a result was written."""
        if not self._obstacles or (obstacle := self._obstacles.get(root := self.root_of(entry))) is None:
            return
        obstacle.failures = 0
        if not self._queue.parked(root):
            # Not while measurements wait: a small result may fit where there is no space for a large one.
            del self._obstacles[root]
            self._report_end(root, obstacle)

    async def keep_checking(self) -> None:
        """Check the folders that accept no results, and release their measurements when they accept results again."""
        while True:
            self._parked.clear()
            self._note_parked()
            times = [obstacle.check_at for root, obstacle in self._obstacles.items() if self._queue.parked(root)]
            times += [self._note_at for obstacle in self._obstacles.values() if obstacle.unnoted]
            timeout = max(0.0, min(times) - now()) if times else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._parked.wait()
            for root, obstacle in list(self._obstacles.items()):
                if self._queue.parked(root) and obstacle.check_at <= now():
                    await self._check_again(root, obstacle)

    async def keep_measuring(self) -> None:
        """Measure the free space in the folders at regular intervals."""
        while True:
            for root in self._free:
                self._free[root] = await self._availability.free_bytes(root)
            await asyncio.sleep(MEASURE_SECONDS)

    def _note_parked(self) -> None:
        """Record in the ledger which measurements have begun to wait, at most once per `NOTE_SECONDS`."""
        if now() < self._note_at:
            return
        unnoted = [obstacle.unnoted for obstacle in self._obstacles.values() if obstacle.unnoted]
        if unnoted:
            self._ledger.note_obstacles(
                (entry_id, error.reason, error.message) for rows in unnoted for entry_id, error in rows.items()
            )
            for rows in unnoted:
                rows.clear()
            self._note_at = now() + NOTE_SECONDS

    async def _check_again(self, root: pathlib.Path, obstacle: Obstacle) -> None:
        smallest = min((waiting.entry for waiting in self._queue.parked(root)), key=lambda entry: entry.size or 0)
        if await self._check_now(smallest) is not None:
            obstacle.check_at = now() + obstacle.pause()
            return
        if not obstacle.failures:
            # After failed jobs a check is no proof that the folder accepts results; only a written result is.
            self._report_end(root, obstacle)
            self._obstacles.pop(root, None)
        obstacle.unnoted.clear()
        self._ledger.note_obstacles((waiting.entry.id, "", "") for waiting in self._queue.parked(root))
        self._queue.release(root)

    @staticmethod
    def _report(root: pathlib.Path, error: ResultError) -> None:
        event = "disk.low" if error.reason == "no_space" else "output.blocked"
        log.warning(event, folder=os.fspath(root), reason=error.reason, error=error.message)

    @staticmethod
    def _report_end(root: pathlib.Path, obstacle: Obstacle) -> None:
        log.info("disk.ok" if obstacle.error.reason == "no_space" else "output.recovered", folder=os.fspath(root))


def blocked_folders(settings: Settings, ledger: Ledger) -> BlockedFolders:
    """Return the folders that accept no results, as last recorded in the ledger by the daemon."""
    roots = dict[str, pathlib.Path]()
    found = dict[pathlib.Path, Blocked]()
    for _, path, reason, error in ledger.obstacles():
        # The settings are evaluated once per folder, since thousands of measurements may be in one.
        folder = os.path.dirname(path)  # noqa: PTH120 -- likewise
        if (root := roots.get(folder)) is None:
            file = pathlib.Path(path)
            root = roots[folder] = root_of(
                ledger, routing.output_root_of(settings, file), routing.output_for(settings, file)
            )
        known = found.get(root) or Blocked(os.fspath(root), _problem_of(reason), reason, error, 0)
        found[root] = dataclasses.replace(known, waiting=known.waiting + 1)
    return tuple(found.values())


def _problem_of(reason: str) -> Literal["disk.low", "output.blocked"]:
    return "disk.low" if reason == "no_space" else "output.blocked"


def _roots(settings: Settings) -> Iterable[pathlib.Path]:
    """Yield the folders of results."""
    for group in settings.groups:
        yield from [group.output.folder] if group.output.folder is not None else group.watch.folders
