"""The measurements that wait for their turn, the most urgent first."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import pathlib
import time

from dcnumd.config import QueueOrder
from dcnumd.daemon.records import Entry


@dataclasses.dataclass(slots=True, order=True)
class Waiting:
    """A measurement in the queue; the smallest one is next."""

    urgency: tuple[int, int, int]
    """Priority and date, both such that the smaller one is first, and order of arrival."""
    entry: Entry = dataclasses.field(compare=False)
    since: float = dataclasses.field(compare=False)
    """On the monotonic clock."""


class JobQueue:
    """Hands out the measurement of highest priority; among those, the oldest or the newest.

    Measurements whose result has no place just now are parked, and keep nobody else waiting.
    """

    def __init__(self, order: QueueOrder) -> None:
        self._sign = -1 if order == "newest" else 1
        self._waiting: list[Waiting] = []
        self._parked: dict[pathlib.Path, list[Waiting]] = {}
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._waiting) + sum(len(parked) for parked in self._parked.values())

    def put(self, entry: Entry, priority: int) -> None:
        """Append a measurement."""
        urgency = (-priority, self._sign * (entry.mtime_ns or 0), next(self._numbers))
        heapq.heappush(self._waiting, Waiting(urgency, entry, time.monotonic()))

    def take(self) -> Waiting | None:
        """Take out the next one; None if none can go on."""
        return heapq.heappop(self._waiting) if self._waiting else None

    def put_back(self, waiting: Waiting) -> None:
        """Put one back in its place."""
        heapq.heappush(self._waiting, waiting)

    def park(self, waiting: Waiting, root: pathlib.Path) -> None:
        """Keep one until `release` is called for the folder that its result goes to."""
        self._parked.setdefault(root, []).append(waiting)

    def parked(self, root: pathlib.Path) -> list[Waiting]:
        """Return those that wait for a folder."""
        return self._parked.get(root, [])

    def release(self, root: pathlib.Path) -> None:
        """Let those go on that wait for a folder."""
        for waiting in self._parked.pop(root, []):
            self.put_back(waiting)

    def oldest_wait(self) -> float:
        """Return for how long one has been waiting that waits longest [s]."""
        all_of_them = itertools.chain(self._waiting, *self._parked.values())
        now = time.monotonic()
        return now - min((waiting.since for waiting in all_of_them), default=now)
