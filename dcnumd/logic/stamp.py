"""Stamps of files, to detect modifications.

This module imports no numerical code, so that the supervisor can compare stamps.
"""

from __future__ import annotations

import os
import pathlib
from typing import NamedTuple

CHANGED = "the file was changed while it was processed; the result was thrown away"
"""Message for a modified file, whether the job (``changed``) or the daemon (``input_changed``) detects it."""


class Stamp(NamedTuple):
    """The stat of a file, for comparison with an earlier one of the same path."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Stamp:
        """Return the stamp of a stat result."""
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)

    @classmethod
    def at(cls, path: str | pathlib.Path) -> Stamp | None:
        """Return the stamp of the file at `path`; None if the file does not exist.

        Raises
        ------
        OSError
            The stat fails for another reason, for example because a share does not respond.
        """
        try:
            return cls.of(pathlib.Path(path).stat())
        except (FileNotFoundError, NotADirectoryError):
            return None
