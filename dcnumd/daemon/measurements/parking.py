"""Folders that take no result just now: full, read-only or gone. Their measurements wait, and others go on."""

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
"""Folders that take no results just now, for which measurements wait."""
LOOK_SECONDS = 10.0
"""Largest time between two looks at a folder that takes no results [s]; in the beginning it is shorter."""
NOTE_SECONDS = 1.0
"""Smallest time between two notes in the ledger of what waits [s]: thousands may come to wait at once."""
MEASURE_SECONDS = 30.0
"""Time between two measurements of the room in the folders [s]."""


@dataclasses.dataclass(slots=True)
class Obstacle:
    """Why a folder takes no results."""

    error: ResultError
    look_at: float
    """When it is looked at again, on the clock of the event loop [s]."""
    doublings: int = 0
    """How often the pause before the next look has grown."""
    failures: int = 0
    """Jobs in a row that failed although nothing seemed wrong before, because of a quota for example."""
    unnoted: dict[int, ResultError] = dataclasses.field(default_factory=dict)
    """Rows that wait and do not say so in the ledger yet."""

    def pause(self) -> float:
        """Return when to look again [s], which is later each time."""
        seconds = min(2.0**self.doublings, LOOK_SECONDS)
        # Not with every look: after hours the power would be too large for a number.
        self.doublings += seconds < LOOK_SECONDS
        return seconds


class OutputFolders:
    """Parks the measurements of folders that take no results, and lets them go on when they do.

    Parameters
    ----------
    settings
        Which folders there are, and how long to wait after failures.
    ledger
        Tells others what waits, and why.
    availability
        Finds out how a folder is.
    queue
        Where measurements are parked.
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
        """Return all folders of results, with the room that was found there last."""
        return tuple(Output(os.fspath(root), free) for root, free in self._free.items())

    def blocked(self) -> BlockedFolders:
        """Return the folders that take no results, and what is in the way."""
        waiting = ((root, obstacle.error, len(self._queue.parked(root))) for root, obstacle in self._obstacles.items())
        return tuple(
            Blocked(os.fspath(root), _problem_of(error.reason), error.reason, error.message, number)
            for root, error, number in waiting
            if number
        )

    def root_of(self, entry: Entry) -> pathlib.Path:
        """Return the folder that stands for all results in and below it."""
        path = pathlib.Path(entry.path)
        return self._availability.root_of(
            routing.output_root_of(self._settings, path), routing.output_for(self._settings, path)
        )

    async def look(self, entry: Entry) -> ResultError | None:
        """Return what is in the way of a measurement's result, if anything is."""
        obstacle = self._obstacles.get(self.root_of(entry))
        if obstacle is not None and obstacle.error.reason != "no_space" and now() < obstacle.look_at:
            # A folder that does not answer would keep all others waiting each time; how much fits, each has to see.
            return obstacle.error
        return await self._look_now(entry)

    async def _look_now(self, entry: Entry) -> ResultError | None:
        output = routing.output_for(self._settings, pathlib.Path(entry.path))
        return await self._availability.obstacle(self.root_of(entry), output, entry.size or 0)

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
        obstacle.look_at = now() + max(obstacle.pause(), pause)
        self._queue.park(waiting, root)
        if (waiting.entry.reason, waiting.entry.error) != (error.reason, error.message):
            obstacle.unnoted[waiting.entry.id] = error
        self._parked.set()

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

    async def keep_looking(self) -> None:
        """Look at the folders that take no results, and let measurements go on whose folder does again."""
        while True:
            self._parked.clear()
            self._note_parked()
            times = [obstacle.look_at for root, obstacle in self._obstacles.items() if self._queue.parked(root)]
            times += [self._note_at for obstacle in self._obstacles.values() if obstacle.unnoted]
            timeout = max(0.0, min(times) - now()) if times else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._parked.wait()
            for root, obstacle in list(self._obstacles.items()):
                if self._queue.parked(root) and obstacle.look_at <= now():
                    await self._look_again(root, obstacle)

    async def keep_measuring(self) -> None:
        """Measure how much room there is in the folders, again and again."""
        while True:
            for root in self._free:
                self._free[root] = await self._availability.free_bytes(root)
            await asyncio.sleep(MEASURE_SECONDS)

    def _note_parked(self) -> None:
        """Note in the ledger what has come to wait, unless it was noted only just now."""
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

    async def _look_again(self, root: pathlib.Path, obstacle: Obstacle) -> None:
        smallest = min((waiting.entry for waiting in self._queue.parked(root)), key=lambda entry: entry.size or 0)
        if await self._look_now(smallest) is not None:
            obstacle.look_at = now() + obstacle.pause()
            return
        if not obstacle.failures:
            # Where nothing was wrong to be seen, only a result that is there is a proof.
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
    """Return the folders that take no results, as the daemon noted it in the ledger when it saw them last."""
    roots = dict[str, pathlib.Path]()
    found = dict[pathlib.Path, Blocked]()
    for _, path, reason, error in ledger.obstacles():
        # Of thousands in one folder, the settings are asked once.
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
    """Return the folders that stand for all results in and below them."""
    for group in settings.groups:
        yield from [group.output.folder] if group.output.folder is not None else group.watch.folders
