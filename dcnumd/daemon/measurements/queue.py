"""The queue of measurements to process, the most urgent first."""

from __future__ import annotations

import asyncio
import dataclasses
import heapq
import itertools
import pathlib

from dcnumd.config.choices import QueueOrder
from dcnumd.daemon.clock import now
from dcnumd.daemon.ledger.records import Entry


@dataclasses.dataclass(slots=True, order=True)
class Waiting:
    """A measurement in the queue; instances are ordered by urgency, the next one being the smallest."""

    urgency: tuple[int, int, int]
    """Sort key: negative priority, modification time (negative if the newest is first) [ns], and order of arrival."""
    entry: Entry = dataclasses.field(compare=False)
    since: float = dataclasses.field(compare=False)
    """Time at which the measurement was queued, on the clock of the event loop [s]."""


class JobQueue:
    """Queue that returns the measurement of highest priority; among equal ones, the oldest or the newest file.

    A path is in the queue at most once: if it is added again, with another date or content, the later entry replaces
    the earlier one. Measurements whose result cannot be written at present are parked and do not block others.
    """

    def __init__(self, order: QueueOrder) -> None:
        self.filled = asyncio.Event()
        """Set whenever a measurement that is not parked was added."""
        self._sign = -1 if order == "newest" else 1
        self._present: dict[str, Waiting] = {}
        """Valid items by path; items of the lists below that are not in here were replaced or removed.

        Why not remove them from the lists? Removal from a heap takes linear time."""
        self._waiting: list[Waiting] = []
        self._parked: dict[pathlib.Path, list[Waiting]] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._present)

    def put(self, entry: Entry, priority: int) -> None:
        """Add a measurement, or replace the one with the same path."""
        former = self._present.get(entry.path)
        since = now() if former is None else former.since
        urgency = (-priority, self._sign * (entry.mtime_ns or 0), next(self._numbers))
        waiting = self._present[entry.path] = Waiting(urgency, entry, since)
        heapq.heappush(self._waiting, waiting)
        self.filled.set()

    @property
    def due(self) -> bool:
        """Whether there is a measurement that is not parked."""
        while self._waiting and not self._counts(self._waiting[0]):
            heapq.heappop(self._waiting)
        return bool(self._waiting)

    def take(self) -> Waiting | None:
        """Remove and return the next measurement; None if all are parked or the queue is empty."""
        if not self.due:
            return None
        waiting = heapq.heappop(self._waiting)
        del self._present[waiting.entry.path]
        return waiting

    def remove(self, entry: Entry) -> None:
        """Remove a measurement if it is in the queue."""
        waiting = self._present.get(entry.path)
        if waiting is not None and waiting.entry.id == entry.id:
            del self._present[entry.path]

    def park(self, waiting: Waiting, root: pathlib.Path) -> None:
        """Keep a measurement that was taken aside until `release` is called for the folder of its result.

        The measurement is dropped if its path was added again meanwhile.
        """
        if self._present.setdefault(waiting.entry.path, waiting) is waiting:
            self._parked.setdefault(root, []).append(waiting)

    def parked(self, root: pathlib.Path) -> list[Waiting]:
        """Return the measurements that are parked for a folder."""
        return [waiting for waiting in self._parked.get(root, ()) if self._counts(waiting)]

    def release(self, root: pathlib.Path) -> None:
        """Put the measurements that are parked for a folder back into the queue."""
        for waiting in self._parked.pop(root, []):
            if self._counts(waiting):
                heapq.heappush(self._waiting, waiting)
        self.filled.set()

    def oldest_wait(self) -> float:
        """Return the longest time that a measurement has been in the queue [s]; 0 if the queue is empty."""
        moment = now()
        return moment - min((waiting.since for waiting in self._present.values()), default=moment)

    def _counts(self, waiting: Waiting) -> bool:
        return self._present.get(waiting.entry.path) is waiting
