"""The recordings that are processed while they grow; each is known by its file, whose name may change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import structlog

from dcnumd.daemon.clock import now
from dcnumd.daemon.ledger.records import State
from dcnumd.daemon.measurements.lifecycle import Lifecycle
from dcnumd.daemon.measurements.tracker import Candidate
from dcnumd.daemon.recordings.reading import Reading

log = structlog.get_logger()

MOVE_SECONDS = 15.0
"""Time for which a file that has lost its name is looked for under another one [s]; scans find it more slowly than
file events."""
LOST = frozenset({"replaced", "vanished"})
"""Reasons for which a file may have another name."""


class Readings:
    """The readings of a session, whose files are followed when they are renamed.

    A reading belongs to a file, not to a name: many recording programs give a file its final name at the end. If the
    wrong file is followed, nothing in it is what was read before, so that its job computes everything.

    Parameters
    ----------
    lifecycle
        Lifecycle with the tracker, which knows the files and their inodes.
    """

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._tracker = lifecycle.tracker
        self._ledger = lifecycle.ledger
        self._readings: list[Reading] = []

    def __len__(self) -> int:
        return len(self._readings)

    def __iter__(self) -> Iterator[Reading]:
        # of a copy, because readings begin and end meanwhile
        return iter(list(self._readings))

    def add(self, reading: Reading) -> None:
        """Add a reading that has begun."""
        self._readings.append(reading)

    def remove(self, reading: Reading) -> None:
        """Remove a reading, if it is there."""
        with contextlib.suppress(ValueError):
            self._readings.remove(reading)

    def at(self, path: str) -> Reading | None:
        """Return the reading of the file that has a name; None if there is none."""
        return next((reading for reading in self._readings if reading.path == path and reading.lost is None), None)

    async def of(self, path: str, inode: int | None) -> Reading | None:
        """Return the reading of a file, which may have had another name until now; None if there is none.

        Parameters
        ----------
        path, inode
            Name and number of the file.
        """
        if (known := self.at(path)) is not None and known.inode == inode:
            return known
        for reading in self:
            if reading.inode == inode and await self._has_lost_name(reading):
                self._follow(reading, path)
                return reading
        return None

    def seek(self, reading: Reading, why: tuple[str, str]) -> bool:
        """Look for a file that has lost its name; return whether it has another one, or may still be found under one.

        `why` says how it lost its name.
        """
        if (path := self._tracker.path_of(reading.inode)) is not None:
            self._follow(reading, path)
            return True
        if reading.lost is None:
            reading.lost, reading.lost_at = why, now()
        return now() - reading.lost_at < MOVE_SECONDS

    def candidate_of(self, reading: Reading) -> Candidate | None:
        """Return the candidate that is the file of a reading; None if the file does not settle."""
        candidate = self._tracker.candidate(reading.path)
        return candidate if candidate is not None and candidate.stamp.inode == reading.inode else None

    def why_unneeded(self, reading: Reading) -> tuple[str, str] | None:
        """Return why nobody will need the events of a reading, as reason code and text; None if they are needed."""
        # A file that does not grow for a moment still settles.
        if (stamp := self._tracker.stamp_of(reading.path)) is not None:
            return None if stamp.inode == reading.inode else ("replaced", "another file got its name")
        if reading.lost is not None:
            # The row may be that of the other file by now.
            return reading.lost
        with contextlib.suppress(KeyError):
            entry = self._ledger.get(reading.entry_id)
            if entry.reason:
                return entry.reason, entry.error or "it is not processed"
            if entry.state is State.DONE:
                return "timeout", "its job did not wait any longer for the events"
        return "vanished", "it is not known any more"

    async def _has_lost_name(self, reading: Reading) -> bool:
        """Return whether the file of a reading certainly has not the name any more that is known."""
        try:
            stamp = await self._tracker.stamp_now(reading.path)
        except OSError:
            return False
        return stamp is None or stamp.inode != reading.inode

    def _follow(self, reading: Reading, path: str) -> None:
        former, reading.path, reading.lost = reading.path, path, None
        if (entry := self._ledger.latest(path)) is not None:
            reading.entry_id = entry.id
        if path != former:
            log.info("live.renamed", path=path, former_path=former)
