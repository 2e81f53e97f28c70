"""Whether a file is still what it was."""

from __future__ import annotations

import os
import pathlib
from typing import NamedTuple

from dcnumd.errors import MeasurementError
from dcnumd.read.open_file import unreadable


class FileStamp(NamedTuple):
    """What changes when somebody writes to a file, or puts another one in its place."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: pathlib.Path) -> FileStamp:
        """Return the stamp of a file as it is now."""
        try:
            status = path.stat()
        except OSError as error:
            raise unreadable(path, error) from error
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)

    def check(self, path: pathlib.Path) -> None:
        """Make sure that a file still has this stamp.

        Raises
        ------
        MeasurementError
            Reason ``changed``: it was written to or replaced, and the next attempt may succeed; or ``vanished``.
        """
        if not os.path.lexists(path):
            raise MeasurementError(
                f"{path}: the file was moved or deleted while it was processed; the result was thrown away", "vanished"
            )
        if FileStamp.of(path) != self:
            raise MeasurementError(
                f"{path}: the file was changed while it was processed; the result was thrown away",
                "changed",
                transient=True,
            )
