"""Which files need no look at the moment, so that a scan of many thousands costs next to nothing."""

from __future__ import annotations

from collections.abc import Iterable

from dcnumd.daemon.ledger import Ledger
from dcnumd.logic.stamp import Stamp

MAX_SETTLED = 250_000
"""Of so many files it is remembered that there is nothing to do; beyond that, the ledger is asked anew."""

Found = Iterable[tuple[str, Stamp]]


class KnownFiles:
    """Remembers files by their stat: those that are settled for good, and those that wait for their turn.

    Parameters
    ----------
    ledger
        When another process changes it, nothing that was remembered is certain.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._version: int | None = ledger.data_version()
        self._settled: dict[str, Stamp] = {}
        self._active: dict[str, Stamp] = {}

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
        """Return the files that are new or have changed."""
        active, settled = self._active, self._settled
        return [(path, stamp) for path, stamp in found if active.get(path) != stamp and settled.get(path) != stamp]

    def settled(self, found: Found) -> list[tuple[str, Stamp]]:
        """Return the files for which there is nothing to do, so far."""
        return [(path, stamp) for path, stamp in found if self._settled.get(path) == stamp]

    def unsettle(self, path: str) -> None:
        """Have a file looked at again."""
        self._settled.pop(path, None)

    def note_active(self, path: str, stamp: Stamp) -> None:
        """Remember that a file waits for its turn."""
        self._active[path] = stamp

    def note_settled(self, path: str, stamp: Stamp) -> None:
        """Remember that there is nothing to do for a file."""
        if len(self._settled) >= MAX_SETTLED:
            self._settled.clear()
        self._settled[path] = stamp

    def leave(self, path: str) -> None:
        """Forget that a file waits for its turn."""
        self._active.pop(path, None)
