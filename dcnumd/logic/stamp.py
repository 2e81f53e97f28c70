"""What the file system says of a file, to notice that somebody wrote to it.

This module imports no numerical code, so that the supervisor can compare stamps.
"""

from __future__ import annotations

import os
import pathlib
from typing import NamedTuple

CHANGED = "the file was changed while it was processed; the result was thrown away"
"""What people are told then, whoever notices it: the job itself (``changed``) or the daemon (``input_changed``)."""


class Stamp(NamedTuple):
    """A file's stat, compared only for equality with an earlier one of the same path."""

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
        """Return the stamp of the file at `path`, None if there is none.

        Raises
        ------
        OSError
            If that cannot be found out, because a share does not answer for example.
        """
        try:
            return cls.of(pathlib.Path(path).stat())
        except (FileNotFoundError, NotADirectoryError):
            return None
