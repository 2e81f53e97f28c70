"""Which files need no look at the moment, so that a scan of many thousands costs next to nothing."""

from __future__ import annotations

import datetime as dt
import os
import pathlib
from collections.abc import Iterable

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.folders.listing import has_result_name
from dcnumd.daemon.ledger.records import Entry, State
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.logic.stamp import Stamp

CLOCK_SECONDS = 5.0
"""Largest difference between the clocks of this computer and of a share that costs no look at each result [s]."""
MAX_SETTLED = 250_000
"""Largest number of files of which it is remembered that there is nothing to do; then the ledger is asked anew."""

Found = Iterable[tuple[str, Stamp]]


class KnownFiles:
    """Remembers files by their stat: those that are settled for good, and those that wait for their turn.

    Parameters
    ----------
    settings
        What results are called.
    ledger
        Which results there are. When another process changes it, nothing that was remembered is certain.
    """

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._version: int | None = ledger.data_version()
        self._settled: dict[str, Stamp] = {}
        self._active: dict[str, Stamp] = {}
        waiting = ledger.entries(State.QUEUED, State.RUNNING)
        self._awaited = {self._output_of(entry.path) for entry in waiting}
        """Where the results of the files go that wait for their turn, or for another attempt.

        One of them may be there already: whoever made it was killed before it was recorded."""

    def __contains__(self, path: object) -> bool:
        """Return whether a file waits for its turn, or has it."""
        return path in self._active

    def doubt(self) -> None:
        """Have nothing that was remembered be certain."""
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

    def may_be_result(self, path: str) -> bool:
        """Return whether a file counts as made here if it is a result: its name says so, or the ledger does."""
        return has_result_name(path, self._settings) or self._ledger.is_output(path)

    def settled(self, found: Found) -> list[tuple[str, Stamp]]:
        """Return the files for which there is nothing to do, so far."""
        return [(path, stamp) for path, stamp in found if self._settled.get(path) == stamp]

    def unsettle(self, path: str) -> None:
        """Have a file looked at again."""
        self._settled.pop(path, None)

    def note_active(self, path: str, stamp: Stamp) -> None:
        """Remember that a file waits for its turn."""
        self._active[path] = stamp
        self._awaited.add(self._output_of(path))

    def note_settled(self, path: str, stamp: Stamp) -> None:
        """Remember that there is nothing to do for a file."""
        if len(self._settled) >= MAX_SETTLED:
            self._settled.clear()
        self._settled[path] = stamp

    def leave(self, path: str, *, comes_back: bool = False) -> None:
        """Forget that a file waits for its turn; if it comes back for another one, its result is still awaited."""
        self._active.pop(path, None)
        if not comes_back:
            self._awaited.discard(self._output_of(path))

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
