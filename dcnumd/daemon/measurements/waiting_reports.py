"""Reports that wait because the folder for them currently accepts none, for example because its disk is full."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pathlib
from collections.abc import Callable

from dcnumd.errors import DcnumdError
from dcnumd.status import Blocked

CHECK_SECONDS = 60.0
"""Longest time between two attempts to write to a folder that accepts no reports [s]; the first follow sooner."""


@dataclasses.dataclass(slots=True)
class Place:
    """A folder that accepts no reports, and those that wait for it."""

    error: DcnumdError
    """The last error."""
    waiting: dict[int, int] = dataclasses.field(default_factory=dict)
    """Number of the row of each report that waits → number of its failed attempts; the next to be tried comes first."""
    trying: int | None = None
    """Number of the row whose report is being tried."""
    pause: float = 1.0
    """Delay before the next attempt [s]."""


class WaitingReports:
    """Lets reports wait for folders that accept none, and tries one report per folder until that succeeds.

    Parameters
    ----------
    again
        Function that has a report tried again; it is called with the number of the row and that of failed attempts.
    """

    def __init__(self, again: Callable[[int, int], None]) -> None:
        self._again = again
        self._places: dict[pathlib.Path, Place] = {}

    def blocked(self) -> tuple[Blocked, ...]:
        """Return the folders that accept no reports."""
        return tuple(
            Blocked(os.fspath(folder), "report.blocked", place.error.reason, place.error.message, len(place.waiting))
            for folder, place in self._places.items()
        )

    def join(self, folder: pathlib.Path, row: int, attempts: int) -> bool:
        """Let a report wait if its folder accepts none, and another report of it is tried; return whether it waits."""
        place = self._places.get(folder)
        if place is None or place.trying == row:
            return False
        place.waiting[row] = attempts
        return True

    def add(self, folder: pathlib.Path, row: int, attempts: int, error: DcnumdError) -> bool:
        """Let a report that was tried wait for its folder; return whether it is the first that waits there."""
        begins = folder not in self._places
        place = self._places.setdefault(folder, Place(error))
        place.error = error
        # A report that was tried comes last, so that one that fails for itself does not keep the others waiting.
        place.waiting.pop(row, None)
        place.waiting[row] = attempts
        if begins or place.trying == row:
            self._schedule(folder, place)
        return begins

    def release(self, folder: pathlib.Path, row: int) -> None:
        """Have all reports made that wait for a folder, after the attempt at the report of `row`."""
        if (place := self._places.pop(folder, None)) is not None:
            place.waiting.pop(row, None)
            for other, attempts in place.waiting.items():
                self._again(other, attempts)

    def forget(self, row: int) -> None:
        """Let a report wait no longer, since it is not wanted any more."""
        for folder, place in list(self._places.items()):
            if place.waiting.pop(row, None) is not None and not place.waiting:
                del self._places[folder]
            elif place.trying == row:
                self._schedule(folder, place)

    def _schedule(self, folder: pathlib.Path, place: Place) -> None:
        place.trying = None
        asyncio.get_running_loop().call_later(place.pause, self._try, folder, place)
        place.pause = min(2 * place.pause, CHECK_SECONDS)

    def _try(self, folder: pathlib.Path, place: Place) -> None:
        # Another report may have been written meanwhile, so that none waits.
        if self._places.get(folder) is place:
            place.trying, attempts = next(iter(place.waiting.items()))
            self._again(place.trying, attempts)
