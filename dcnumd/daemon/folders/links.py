"""Symbolic links with the name of a measurement in watched folders, and where they may lead."""

from __future__ import annotations

import errno
import os
import stat
from typing import Literal, NamedTuple

from dcnumd.read.trust import Trust, leads_out

BROKEN = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class LinkFault(NamedTuple):
    """Reason why a symbolic link is no measurement, as a code and as a text for the operator."""

    reason: Literal["outside", "broken_link"]
    text: str


def stat_of(path: str, trust: Trust) -> os.stat_result | LinkFault:
    """Return the status of a file; a symbolic link is followed only if it leads to where files may be read.

    Files elsewhere are not accessed at all.

    Raises
    ------
    OSError
        If the file no longer exists, or its status cannot be determined.
    """
    result = os.lstat(path)
    return _followed(path, trust) if stat.S_ISLNK(result.st_mode) else result


def _followed(path: str, trust: Trust) -> os.stat_result | LinkFault:
    target = os.readlink(path)  # noqa: PTH115 -- text, as it is
    try:
        elsewhere = trust.way_out(path)
        if elsewhere is not None:
            return LinkFault(reason="outside", text=leads_out(elsewhere))
        return os.stat(path)  # noqa: PTH116 -- likewise
    except OSError as error:
        if error.errno not in BROKEN:
            raise
        return LinkFault(reason="broken_link", text=f"a symbolic link leads to {target}: {error.strerror}")
