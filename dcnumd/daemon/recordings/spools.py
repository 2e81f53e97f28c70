"""The files with the events of recordings, in the state folder."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil

NAME = "live"
"""Name of their folder in the state folder."""


class Spools:
    """Names and removes the files with the events of recordings; the live process writes them.

    Parameters
    ----------
    state_folder
        The state folder.
    most_bytes
        Largest size of one file [bytes].
    free_bytes
        Space on the disk that these files leave free [bytes].
    """

    def __init__(self, state_folder: pathlib.Path, most_bytes: int, free_bytes: int) -> None:
        self._folder = state_folder / NAME
        self._most_bytes = most_bytes
        self._free_bytes = free_bytes
        self._count = 0

    def clear(self) -> None:
        """Remove all files, which an earlier session has left behind."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self._folder):  # noqa: PTH208 -- names only
                self.remove(self._folder / name)

    def new(self, job_id: str) -> pathlib.Path:
        """Return the path of a new file.

        Raises
        ------
        OSError
            If the folder cannot be created.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._count += 1
        return self._folder / f"{job_id}-{self._count}.spool"

    def limit(self, number: int) -> int:
        """Return the largest size of one of `number` files that grow at the same time [bytes]; 0 on a full disk.

        The ledger is on the same disk, so space must be left to it.
        """
        try:
            free = shutil.disk_usage(self._folder).free - self._free_bytes
        except OSError:
            return 0
        return max(0, min(self._most_bytes, free // max(number, 1)))

    def remove(self, path: pathlib.Path) -> None:
        """Remove a file, if it exists."""
        # A file that remains is removed at the next start.
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
