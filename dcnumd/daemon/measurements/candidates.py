"""The files that are waited for, each with the time of the next look at it. Times are on the monotonic clock."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import time
from collections.abc import Iterator

from dcnumd.config.values import Settings
from dcnumd.logic.stamp import Stamp


@dataclasses.dataclass(slots=True, eq=False)
class Candidate:
    """A file that is waited for."""

    path: str
    stamp: Stamp
    entry_id: int
    folder: str
    """The watched folder that holds it,"""
    settings: Settings
    """and the settings of that folder."""
    changed_at: float
    look_at: float
    grew: bool = False
    """It changed since it was found, so somebody is writing it."""
    open_for_writing: bool = False
    looks: int = 0
    busy: bool = False
    """It is being looked at by the probe."""
    repeated: bool = False
    """It passed before, and is here for another attempt."""

    @property
    def settle_seconds(self) -> float:
        """For how long it must be left alone."""
        return self.settings.watch.settle_seconds

    def is_written(self, now: float) -> bool:
        """Return whether somebody writes it, or may be writing it."""
        return self.open_for_writing or (self.grew and now - self.changed_at < self.settle_seconds)


class Candidates:
    """All of them by their path; however many there are, the next one is found at once."""

    def __init__(self) -> None:
        self._by_path: dict[str, Candidate] = {}
        self._times: list[tuple[float, int, Candidate]] = []
        self._numbers = itertools.count()
        self._written: dict[str, Candidate] = {}

    def __len__(self) -> int:
        return len(self._by_path)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._by_path.values())

    def __contains__(self, path: object) -> bool:
        return path in self._by_path

    def get(self, path: str) -> Candidate | None:
        """Return the candidate with this path, if there is one."""
        return self._by_path.get(path)

    def add(self, candidate: Candidate) -> None:
        """Wait for a file from now on."""
        self._by_path[candidate.path] = candidate
        self.look_at(candidate, candidate.look_at)

    def remove(self, candidate: Candidate) -> None:
        """Wait for it no longer."""
        if self._by_path.get(candidate.path) is candidate:
            del self._by_path[candidate.path]
            self._written.pop(candidate.path, None)

    def look_at(self, candidate: Candidate, moment: float) -> None:
        """Set the time of the next look."""
        candidate.look_at = moment
        heapq.heappush(self._times, (moment, next(self._numbers), candidate))

    def due(self, now: float) -> list[Candidate]:
        """Take out those whose time has come; each needs a new time, or leaves."""
        found = []
        while self._next() is not None and self._times[0][0] <= now:
            found.append(heapq.heappop(self._times)[2])
        return found

    def next_time(self) -> float | None:
        """Return when the next one is due; None if there is none."""
        return self._next()

    def note_writing(self, candidate: Candidate) -> None:
        """Note that somebody writes, or may be writing, a file."""
        self._written[candidate.path] = candidate

    def written(self) -> Candidate | None:
        """Return a file that is being written, if there is one."""
        now = time.monotonic()
        for path, candidate in list(self._written.items()):
            if candidate.is_written(now):
                return candidate
            del self._written[path]
        return None

    def all_written(self) -> list[Candidate]:
        """Return all files that are being written."""
        now = time.monotonic()
        return [candidate for candidate in self._written.values() if candidate.is_written(now)]

    def _next(self) -> float | None:
        """Drop what is out of date from the front; return the time of what is there then."""
        while self._times:
            moment, _, candidate = self._times[0]
            current = self._by_path.get(candidate.path) is candidate
            if current and not candidate.busy and candidate.look_at == moment:
                return moment
            heapq.heappop(self._times)
        return None
