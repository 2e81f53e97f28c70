"""The folder for temporary files of a worker; one that a killed worker has left is removed by the next worker."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

PREFIX = "dcnumd-cluster-"
"""Beginning of the names of these folders."""


@contextlib.contextmanager
def scratch_folder() -> Iterator[str]:
    """Make a folder for temporary files, and remove it at the end; remove those of killed workers of this user."""
    parent = pathlib.Path(tempfile.gettempdir())
    for left in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), _locked(left):
            shutil.rmtree(left, ignore_errors=True)
    # It gets its name when it is locked; otherwise, a worker that starts at the same time could remove it.
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))
    with _locked(folder):
        folder = folder.rename(folder.with_name(folder.name.removeprefix(".")))
        try:
            yield os.fspath(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """Lock a folder of this user; the system releases the lock if this process is killed.

    Raises
    ------
    OSError
        If another process has locked it, or it belongs to another user.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise PermissionError(f"{folder}: belongs to another user")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
