"""Notices when files of the daemon itself are deleted, moved or replaced while it uses them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib

from dcnumd.daemon.folders.inotify import DEPARTURES, FolderEvents

LOOK_SECONDS = 60.0
"""Time between two looks without an event [s]: a folder further up may have been renamed."""


class StateFolder:
    """The files in one folder that must stay where they are, the lock and the ledger.

    An open file can be written for ever after it was deleted, and nobody will read what is in it.

    Parameters
    ----------
    folder
        The folder.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._files: dict[pathlib.Path, tuple[int, int]] = {}

    def remember(self, path: pathlib.Path) -> None:
        """Take note of a file in the folder that is open from now on; it replaces an earlier one of this name."""
        status = path.stat()
        self._files[path] = status.st_dev, status.st_ino

    def gone(self) -> pathlib.Path | None:
        """Return a file that is not there any more, or is another one now; None if all are in their place."""
        for path, identity in self._files.items():
            try:
                status = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return path
            except OSError:
                # A disk that does not answer keeps its files.
                continue
            if (status.st_dev, status.st_ino) != identity:
                return path
        return None

    async def wait_until_gone(self) -> pathlib.Path:
        """Return a file as soon as it is gone."""
        events = self._events()
        try:
            while (gone := self.gone()) is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await (events.wait() if events is not None else asyncio.Event().wait())
                if events is not None:
                    events.changed()
        finally:
            if events is not None:
                events.close()
        return gone

    def _events(self) -> FolderEvents | None:
        """Return the events of the folder; None if the system has none to give."""
        with contextlib.ExitStack() as stack:
            try:
                events = FolderEvents(DEPARTURES)
                stack.callback(events.close)
                events.follow(os.fspath(self._folder))
            except OSError:
                return None
            stack.pop_all()
            return events
