"""Remembers where folders lay, so that one whose share is not mounted is not taken for an empty one."""

from __future__ import annotations

from typing import Protocol

from dcnumd.daemon.folders.mounts import Place


class PlaceStore(Protocol):
    """What keeps text about folders across restarts: the ledger."""

    def place(self, folder: str) -> str | None:
        """Return what was remembered of a folder, None if that is nothing."""

    def remember_place(self, folder: str, place: str) -> None:
        """Remember something of a folder."""


class PlaceMemory:
    """Knows where folders lay when they were last seen, also in earlier runs.

    Parameters
    ----------
    store
        Keeps it.
    """

    def __init__(self, store: PlaceStore) -> None:
        self._store = store

    def before(self, folder: str) -> Place | None:
        """Return where a folder lay when it was last seen; None if it never was."""
        return Place.from_text(self._store.place(folder))

    def remember(self, folder: str, place: Place) -> None:
        """Note where a folder lies now."""
        self._store.remember_place(folder, place.to_text())
