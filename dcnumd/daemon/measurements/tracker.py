"""The state of each watched file in memory: settling, queued, running, or nothing to do.

Scans of many thousands of files are cheap, since an unchanged stat is enough to skip a known file.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import itertools
import os
import pathlib
from collections.abc import Collection, Iterable
from typing import Protocol

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.clock import now
from dcnumd.daemon.folders.hang_guard import in_thread
from dcnumd.daemon.folders.listing import has_result_name
from dcnumd.daemon.ledger.records import Entry, State
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.measurements.spool_source import SpoolSource
from dcnumd.logic.stamp import Stamp
from dcnumd.read.superblock import Superblock, superblock_at

CLOCK_SECONDS = 5.0
"""Tolerated difference between the clocks of this computer and of a share [s].

With a larger one, each result is inspected to tell whether it was replaced by another file."""
MAX_SETTLED = 250_000
"""Largest number of files with nothing to do that are remembered; beyond it the ledger is queried again."""

Found = Iterable[tuple[str, Stamp]]


@dataclasses.dataclass(slots=True, eq=False)
class Candidate:
    """A file that is settling."""

    path: str
    stamp: Stamp
    entry_id: int
    folder: str
    """The watched folder that contains the file."""
    settings: Settings
    """Settings of that folder."""
    changed_at: float
    """Time of the last change, on the clock of the event loop [s]."""
    timer: asyncio.TimerHandle | None = None
    """Timer until the next check; None once the candidate is due."""
    grew: bool = False
    """Whether the file has changed since it was found, so that it is probably being written."""
    open_for_writing: bool = False
    """Whether the last inspection found the file open for writing."""
    inspections: int = 0
    """Number of inspections since the last change."""
    busy: bool = False
    """Whether an inspection is pending or in progress."""
    repeated: bool = False
    """Whether the measurement was queued before and waits here for another attempt."""
    interrupted: bool = False
    """Whether the recording counts as interrupted: the file is open for writing, but nobody writes it."""
    may_start_early: bool = True
    """Whether the measurement may be processed before the settle time has passed, which is tried only once."""

    @property
    def settle_seconds(self) -> float:
        """Time for which the file must not change before it is inspected [s]."""
        return self.settings.watch.settle_seconds

    def is_written(self, moment: float) -> bool:
        """Return whether the file is being written, or may be."""
        return self.open_for_writing or (self.grew and moment - self.changed_at < self.settle_seconds)


class Observer(Protocol):
    """Interface of an object that is notified of the candidates."""

    def on_found(self, candidate: Candidate) -> None:
        """Handle a new candidate."""

    def on_changed(self, candidate: Candidate) -> None:
        """Handle a change of a candidate's file."""

    def on_left(self, candidate: Candidate) -> None:
        """Handle the removal of a candidate; its measurement may be active now."""


class Tracker:
    """Keeps the state of files in memory, without access to the ledger or the disk where possible.

    A path is settling (a `Candidate`), active (its measurement is queued or running), settled (there is nothing to do
    until its stat changes), or unknown.

    Parameters
    ----------
    settings
        Settings with the names of results.
    ledger
        Ledger with the results. When another process changes it, the settled files are forgotten.
    """

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self.wake = asyncio.Event()
        """Set when a candidate becomes due."""
        self.quiet = asyncio.Event()
        """Set while no watched file is being written."""
        self.quiet.set()
        self.written = asyncio.Event()
        """Set while a watched file is being written."""
        self.observer: Observer | None = None
        """Object that is notified of the candidates."""
        self.spools: SpoolSource | None = None
        """Source of the events of measurements that were processed while they were recorded; None if there is none."""
        self._settings = settings
        self._ledger = ledger
        self._version: int | None = ledger.data_version()
        self._candidates: dict[str, Candidate] = {}
        self._due: dict[str, Candidate] = {}
        self._writing: dict[str, Candidate] = {}
        self._active: dict[str, Stamp] = {}
        self._settled: dict[str, Stamp] = {}
        waiting = ledger.entries(State.QUEUED, State.RUNNING)
        self._awaited = {self._output_of(entry.path) for entry in waiting}
        """Paths of the results of measurements that are queued, running, or waiting for another attempt.

        Such a result may exist already, if the daemon was killed before recording it."""

    @property
    def candidates(self) -> Collection[Candidate]:
        """The files that are settling, as a live view."""
        # Not a copy: their number is read at each change of state, and there may be tens of thousands.
        return self._candidates.values()

    def candidate(self, path: str) -> Candidate | None:
        """Return the candidate with this path, if there is one."""
        return self._candidates.get(path)

    def is_active(self, path: str) -> bool:
        """Return whether the measurement of a path is queued or running."""
        return path in self._active

    def path_of(self, inode: int) -> str | None:
        """Return the path of a file that settles, or whose measurement is queued or running, by its inode."""
        candidates = ((path, candidate.stamp) for path, candidate in self._candidates.items())
        known = itertools.chain(candidates, self._active.items())
        return next((path for path, stamp in known if stamp.inode == inode), None)

    def stamp_of(self, path: str) -> Stamp | None:
        """Return the stamp of a file that settles, or whose measurement is queued or running; None for other files."""
        candidate = self._candidates.get(path)
        return candidate.stamp if candidate is not None else self._active.get(path)

    def is_current(self, path: str, stamp: Stamp) -> bool:
        """Return whether a file with this stamp settles, or its measurement is queued or running."""
        return self.stamp_of(path) == stamp

    def is_waiting(self, candidate: Candidate) -> bool:
        """Return whether a candidate is still the current one of its path."""
        return self._candidates.get(candidate.path) is candidate

    def wait_for(
        self,
        path: str,
        stamp: Stamp,
        entry_id: int,
        seconds: float,
        *,
        repeated: bool = False,
        interrupted: bool = False,
    ) -> None:
        """Add a candidate that becomes due after `seconds` [s]."""
        folder, group = self.folder_of(path), self.group_of(path)
        candidate = Candidate(path, stamp, entry_id, folder, group, changed_at=now(), repeated=repeated)
        candidate.interrupted = interrupted and group.watch.interrupted == "process"
        self._candidates[path] = candidate
        self.reschedule(candidate, seconds)
        if self.observer is not None:
            self.observer.on_found(candidate)

    def reschedule(self, candidate: Candidate, seconds: float) -> None:
        """Reschedule a candidate to become due after `seconds` [s]."""
        if candidate.timer is not None:
            candidate.timer.cancel()
        self._due.pop(candidate.path, None)
        loop = asyncio.get_running_loop()
        candidate.timer = loop.call_later(max(0.0, seconds), self._become_due, candidate)

    def stop_waiting(self, candidate: Candidate) -> None:
        """Remove a candidate."""
        if candidate.timer is not None:
            candidate.timer.cancel()
        if self._candidates.get(candidate.path) is candidate:
            del self._candidates[candidate.path]
            self._due.pop(candidate.path, None)
            if self._writing.pop(candidate.path, None) is not None:
                self.update_quiet()
            if self.observer is not None:
                self.observer.on_left(candidate)

    def take_due(self) -> list[Candidate]:
        """Return the candidates that are due, and clear the list; the caller reschedules or removes each of them.

        Candidates whose inspection is pending are left out; they are rescheduled after it.
        """
        due, self._due = self._due, {}
        return [candidate for candidate in due.values() if self.is_waiting(candidate) and not candidate.busy]

    def note_change(self, candidate: Candidate, stamp: Stamp) -> None:
        """Record that a candidate has a new stamp, and restart its settle time."""
        # Not in the ledger, until the file stops changing: a recording changes many times a second.
        if stamp == candidate.stamp:
            return
        candidate.stamp = stamp
        candidate.grew = True
        candidate.inspections = 0
        candidate.interrupted = False
        candidate.changed_at = now()
        self.note_writing(candidate)
        self.reschedule(candidate, candidate.settle_seconds)
        if self.observer is not None:
            self.observer.on_changed(candidate)

    def note_writing(self, candidate: Candidate) -> None:
        """Record that a file is being written, or may be."""
        self._writing[candidate.path] = candidate

    def being_written(self) -> list[Candidate]:
        """Return the files that are being written."""
        moment = now()
        for path, candidate in list(self._writing.items()):
            if not candidate.is_written(moment):
                del self._writing[path]
        return list(self._writing.values())

    def update_quiet(self) -> None:
        """Update the events `quiet` and `written`."""
        if self.being_written():
            self.quiet.clear()
            self.written.set()
        else:
            self.written.clear()
            self.quiet.set()

    def doubt(self) -> None:
        """Make the next call of `doubted` forget the settled files, since rows were changed on request."""
        self._version = None

    def doubted(self) -> bool:
        """Forget the settled files if another process changed the ledger or `doubt` was called; return whether so."""
        if (version := self._ledger.data_version()) == self._version:
            return False
        self._version = version
        self._settled.clear()
        return True

    def news(self, found: Found) -> list[tuple[str, Stamp]]:
        """Return the files that are new or have changed, except for results of dcnumd."""
        active, settled = self._active, self._settled
        news = [(path, stamp) for path, stamp in found if active.get(path) != stamp and settled.get(path) != stamp]
        return [(path, stamp) for path, stamp in news if not self._is_own_result(path, stamp)]

    def settled(self, found: Found) -> list[tuple[str, Stamp]]:
        """Return the files for which there is nothing to do."""
        return [(path, stamp) for path, stamp in found if self._settled.get(path) == stamp]

    def may_be_result(self, path: str) -> bool:
        """Return whether a file may be a result of dcnumd, according to its name or the ledger."""
        return has_result_name(path, self._settings) or self._ledger.is_output(path)

    def note_active(self, path: str, stamp: Stamp) -> None:
        """Record that the measurement of a path is queued or running."""
        self._active[path] = stamp
        self._awaited.add(self._output_of(path))

    def note_settled(self, path: str, stamp: Stamp) -> None:
        """Record that there is nothing to do for a file until its stamp changes."""
        if len(self._settled) >= MAX_SETTLED:
            self._settled.clear()
        self._settled[path] = stamp

    def unsettle(self, path: str) -> None:
        """Forget that there is nothing to do for a file."""
        self._settled.pop(path, None)

    def leave_queue(self, path: str, *, comes_back: bool = False) -> None:
        """Record that the measurement of a path is no longer active.

        If it comes back for another attempt, its result is still expected.
        """
        self._active.pop(path, None)
        if not comes_back:
            self._awaited.discard(self._output_of(path))

    def group_of(self, path: str) -> Settings:
        """Return the settings that apply to a file."""
        return self._settings.group_of(pathlib.Path(path)) if self._settings.several else self._settings

    def watched_folder_of(self, path: str) -> str | None:
        """Return the watched folder that contains a file; None if there is none, as after a change of settings."""
        folder = self._settings.watched_folder_of(pathlib.Path(path))
        return None if folder is None else os.fspath(folder)

    def folder_of(self, path: str) -> str:
        """Return the watched folder that contains a file, or its parent folder if there is none."""
        return self.watched_folder_of(path) or os.path.dirname(path)  # noqa: PTH120 -- no need to parse it

    async def stamp_now(self, path: str) -> Stamp | None:
        """Return the stamp that a file has now; None if there is no such file.

        Raises
        ------
        OSError
            If the share does not answer, so that nothing is known about the file.
        """
        return await in_thread(self.folder_of(path), Stamp.at, path)

    async def superblock_now(self, path: str) -> Superblock | None:
        """Return the superblock that a file has now; None if it has none.

        Raises
        ------
        OSError
            If the file cannot be read, or the share does not answer.
        """
        return await in_thread(self.folder_of(path), superblock_at, path)

    def _become_due(self, candidate: Candidate) -> None:
        candidate.timer = None
        if self.is_waiting(candidate):
            self._due[candidate.path] = candidate
            self.wake.set()

    def _output_of(self, path: str) -> str:
        return os.fspath(routing.output_for(self._settings, pathlib.Path(path)))

    def _is_own_result(self, path: str, stamp: Stamp) -> bool:
        """Return whether a file with the name of a result was made by dcnumd, or is just being made."""
        if not has_result_name(path, self._settings):
            return False
        if path in self._awaited:
            return True
        maker = self._ledger.maker(path)
        is_made = maker is not None and not _was_replaced(maker, stamp)
        if is_made:
            self.note_settled(path, stamp)
        return is_made


def _was_replaced(maker: Entry, stamp: Stamp) -> bool:
    """Return whether a result may have been replaced by another file since, so that it must be inspected."""
    if maker.finished_at is None:
        return False
    finished = dt.datetime.fromisoformat(maker.finished_at).timestamp()
    return stamp.ctime_ns > (finished + CLOCK_SECONDS) * 1e9
