"""The measurements that wait for their turn, the most urgent first."""

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
    """A measurement in the queue; the smallest one is next."""

    urgency: tuple[int, int, int]
    """Priority and date, both such that the smaller one is first, and order of arrival."""
    entry: Entry = dataclasses.field(compare=False)
    since: float = dataclasses.field(compare=False)
    """On the clock of the event loop [s]."""


class JobQueue:
    """Hands out the measurement of highest priority; among those, the oldest or the newest.

    A path is in it at most once: who is put in again, with another date or another content, takes the place that this
    has. Measurements whose result has no place just now are parked, and keep nobody else waiting.
    """

    def __init__(self, order: QueueOrder) -> None:
        self.filled = asyncio.Event()
        """Set whenever a measurement has come that can go on."""
        self._sign = -1 if order == "newest" else 1
        self._present: dict[str, Waiting] = {}
        """What counts, by its path; whatever else is in a list was replaced or taken out."""
        self._waiting: list[Waiting] = []
        self._parked: dict[pathlib.Path, list[Waiting]] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._present)

    def put(self, entry: Entry, priority: int) -> None:
        """Append a measurement."""
        former = self._present.get(entry.path)
        since = now() if former is None else former.since
        urgency = (-priority, self._sign * (entry.mtime_ns or 0), next(self._numbers))
        waiting = self._present[entry.path] = Waiting(urgency, entry, since)
        heapq.heappush(self._waiting, waiting)
        self.filled.set()

    def take(self) -> Waiting | None:
        """Take out the next one; None if none can go on."""
        while self._waiting:
            waiting = heapq.heappop(self._waiting)
            if self._counts(waiting):
                del self._present[waiting.entry.path]
                return waiting
        return None

    def remove(self, entry: Entry) -> None:
        """Take out this measurement, if it is in."""
        waiting = self._present.get(entry.path)
        if waiting is not None and waiting.entry.id == entry.id:
            del self._present[entry.path]

    def park(self, waiting: Waiting, root: pathlib.Path) -> None:
        """Keep one that was taken until `release` is called for the folder that its result goes to.

        It is dropped if its path was put in again meanwhile.
        """
        if self._present.setdefault(waiting.entry.path, waiting) is waiting:
            self._parked.setdefault(root, []).append(waiting)

    def parked(self, root: pathlib.Path) -> list[Waiting]:
        """Return those that wait for a folder."""
        return [waiting for waiting in self._parked.get(root, ()) if self._counts(waiting)]

    def release(self, root: pathlib.Path) -> None:
        """Let those go on that wait for a folder."""
        for waiting in self._parked.pop(root, []):
            if self._counts(waiting):
                heapq.heappush(self._waiting, waiting)
        self.filled.set()

    def oldest_wait(self) -> float:
        """Return for how long one has been waiting that waits longest [s]."""
        moment = now()
        return moment - min((waiting.since for waiting in self._present.values()), default=moment)

    def _counts(self, waiting: Waiting) -> bool:
        return self._present.get(waiting.entry.path) is waiting
