"""Notices when files of the daemon itself are deleted, moved or replaced while it uses them."""

from __future__ import annotations

import asyncio
import pathlib

CHECK_SECONDS = 2.0
"""Time between two looks [s]."""


class StateFolder:
    """The files in one folder that must stay where they are, the lock and the ledger.

    An open file can be written for ever after it was deleted, and nobody will read what is in it.

    The files are looked at again and again, which takes microseconds. File events would not tell when a folder further
    up is renamed, and would come with everything that SQLite writes.

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
        """Return a file soon after it is gone."""
        while (gone := self.gone()) is None:  # noqa: ASYNC110 -- no event tells of all the ways to go
            await asyncio.sleep(CHECK_SECONDS)
        return gone
