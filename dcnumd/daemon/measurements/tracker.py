"""What is known of each file just now: which are waited for, which have their turn, which need no look.

A scan of many thousands of files costs next to nothing, since most of them are known by their stat.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import os
import pathlib
from collections.abc import Iterable

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.clock import now
from dcnumd.daemon.folders.listing import has_result_name
from dcnumd.daemon.ledger.records import Entry, State
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.logic.stamp import Stamp

CLOCK_SECONDS = 5.0
"""Largest difference between the clocks of this computer and of a share that costs no look at each result [s]."""
MAX_SETTLED = 250_000
"""Largest number of files of which it is remembered that there is nothing to do; then the ledger is asked anew."""

Found = Iterable[tuple[str, Stamp]]


@dataclasses.dataclass(slots=True, eq=False)
class Candidate:
    """A file that is waited for."""

    path: str
    stamp: Stamp
    entry_id: int
    folder: str
    """The watched folder that holds it."""
    settings: Settings
    """Those of that folder."""
    changed_at: float
    """Time of the last change, on the clock of the event loop [s]."""
    timer: asyncio.TimerHandle | None = None
    """Ends the time until the next look; None once it is due."""
    grew: bool = False
    """It changed since it was found, so somebody is writing it."""
    open_for_writing: bool = False
    looks: int = 0
    """Number of looks inside since the last change."""
    busy: bool = False
    """The probe is looking inside."""
    repeated: bool = False
    """It passed before, and is here for another attempt."""

    @property
    def settle_seconds(self) -> float:
        """Time for which it must be left alone [s]."""
        return self.settings.watch.settle_seconds

    def is_written(self, moment: float) -> bool:
        """Return whether somebody writes it, or may be writing it."""
        return self.open_for_writing or (self.grew and moment - self.changed_at < self.settle_seconds)


class Tracker:
    """All that is known of files without asking the ledger or the disk.

    A path is waited for (a `Candidate`), or active (its measurement is queued or running), or settled (there is
    nothing to do until its stat changes), or unknown.

    Parameters
    ----------
    settings
        What results are called.
    ledger
        Which results there are. When another process changes it, nothing that was remembered is certain.
    """

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self.wake = asyncio.Event()
        """Set when a candidate is due, or was added."""
        self.quiet = asyncio.Event()
        """Set while no watched file is being written."""
        self.quiet.set()
        self.written = asyncio.Event()
        """Set while one is."""
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
        """Where the results of the files go that wait for their turn, or for another attempt.

        One of them may be there already: whoever made it was killed before it was recorded."""

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The files that are waited for."""
        return tuple(self._candidates.values())

    def candidate(self, path: str) -> Candidate | None:
        """Return the candidate with this path, if there is one."""
        return self._candidates.get(path)

    def is_active(self, path: str) -> bool:
        """Return whether a measurement waits for its turn, or has it."""
        return path in self._active

    def is_waiting(self, candidate: Candidate) -> bool:
        """Return whether a candidate is still waited for."""
        return self._candidates.get(candidate.path) is candidate

    def wait_for(self, path: str, stamp: Stamp, entry_id: int, seconds: float, *, repeated: bool = False) -> None:
        """Wait for a file from now on, and have it due after some time [s]."""
        folder, group = self.folder_of(path), self.group_of(path)
        candidate = Candidate(path, stamp, entry_id, folder, group, changed_at=now(), repeated=repeated)
        self._candidates[path] = candidate
        self.look_after(candidate, seconds)

    def look_after(self, candidate: Candidate, seconds: float) -> None:
        """Have a candidate due after some time [s], instead of when it would have been."""
        if candidate.timer is not None:
            candidate.timer.cancel()
        self._due.pop(candidate.path, None)
        loop = asyncio.get_running_loop()
        candidate.timer = loop.call_later(max(0.0, seconds), self._become_due, candidate)

    def stop_waiting(self, candidate: Candidate) -> None:
        """Wait for a file no longer."""
        if candidate.timer is not None:
            candidate.timer.cancel()
        if self._candidates.get(candidate.path) is candidate:
            del self._candidates[candidate.path]
            self._due.pop(candidate.path, None)
            if self._writing.pop(candidate.path, None) is not None:
                self.update_quiet()

    def take_due(self) -> list[Candidate]:
        """Return the candidates whose time has come; each needs a new time, or leaves."""
        due, self._due = self._due, {}
        return [candidate for candidate in due.values() if self.is_waiting(candidate) and not candidate.busy]

    def note_change(self, candidate: Candidate, stamp: Stamp) -> None:
        """Take note that a file that is waited for has changed: its time begins anew."""
        # The ledger learns of it when the file is quiet: a recording changes many times a second.
        if stamp == candidate.stamp:
            return
        candidate.stamp = stamp
        candidate.grew = True
        candidate.looks = 0
        candidate.changed_at = now()
        self.note_writing(candidate)
        self.look_after(candidate, candidate.settle_seconds)

    def note_writing(self, candidate: Candidate) -> None:
        """Note that somebody writes, or may be writing, a file."""
        self._writing[candidate.path] = candidate

    def being_written(self) -> list[Candidate]:
        """Return the files that are being written."""
        moment = now()
        for path, candidate in list(self._writing.items()):
            if not candidate.is_written(moment):
                del self._writing[path]
        return list(self._writing.values())

    def update_quiet(self) -> None:
        """Find out whether a watched file is being written."""
        if self.being_written():
            self.quiet.clear()
            self.written.set()
        else:
            self.written.clear()
            self.quiet.set()

    def doubt(self) -> None:
        """Have nothing that was remembered be certain: rows were changed on somebody's wish."""
        self._version = None

    def doubted(self) -> bool:
        """Forget what was settled if another process has changed the ledger, or `doubt` was called; return whether."""
        if (version := self._ledger.data_version()) == self._version:
            return False
        self._version = version
        self._settled.clear()
        return True

    def news(self, found: Found) -> list[tuple[str, Stamp]]:
        """Return the files that are new or have changed, without the results that were made here."""
        active, settled = self._active, self._settled
        news = [(path, stamp) for path, stamp in found if active.get(path) != stamp and settled.get(path) != stamp]
        return [(path, stamp) for path, stamp in news if not self._is_own_result(path, stamp)]

    def settled(self, found: Found) -> list[tuple[str, Stamp]]:
        """Return the files for which there is nothing to do."""
        return [(path, stamp) for path, stamp in found if self._settled.get(path) == stamp]

    def may_be_result(self, path: str) -> bool:
        """Return whether a file counts as made here if it is a result: its name says so, or the ledger does."""
        return has_result_name(path, self._settings) or self._ledger.is_output(path)

    def note_active(self, path: str, stamp: Stamp) -> None:
        """Remember that a measurement waits for its turn, or has it."""
        self._active[path] = stamp
        self._awaited.add(self._output_of(path))

    def note_settled(self, path: str, stamp: Stamp) -> None:
        """Remember that there is nothing to do for a file."""
        if len(self._settled) >= MAX_SETTLED:
            self._settled.clear()
        self._settled[path] = stamp

    def unsettle(self, path: str) -> None:
        """Have a file looked at again."""
        self._settled.pop(path, None)

    def leave_queue(self, path: str, *, comes_back: bool = False) -> None:
        """Forget that a measurement was active; if it comes back for another attempt, its result is still awaited."""
        self._active.pop(path, None)
        if not comes_back:
            self._awaited.discard(self._output_of(path))

    def group_of(self, path: str) -> Settings:
        """Return the settings that hold for a file."""
        return self._settings.group_of(pathlib.Path(path)) if self._settings.several else self._settings

    def watched_folder_of(self, path: str) -> str | None:
        """Return the watched folder that holds a file; None if it is watched no longer."""
        folder = self._settings.watched_folder_of(pathlib.Path(path))
        return None if folder is None else os.fspath(folder)

    def folder_of(self, path: str) -> str:
        """Return the watched folder that holds a file, or the folder that it is in."""
        return self.watched_folder_of(path) or os.path.dirname(path)  # noqa: PTH120 -- no need to parse it

    def _become_due(self, candidate: Candidate) -> None:
        candidate.timer = None
        if self.is_waiting(candidate):
            self._due[candidate.path] = candidate
            self.wake.set()

    def _output_of(self, path: str) -> str:
        return os.fspath(routing.output_for(self._settings, pathlib.Path(path)))

    def _is_own_result(self, path: str, stamp: Stamp) -> bool:
        """Return whether a file that is called like a result was made here, or is just being made."""
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
    """Return whether a result may be another file by now, which a look must tell."""
    if maker.finished_at is None:
        return False
    finished = dt.datetime.fromisoformat(maker.finished_at).timestamp()
    return stamp.ctime_ns > (finished + CLOCK_SECONDS) * 1e9
