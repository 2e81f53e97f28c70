"""One daemon per ledger: whoever holds the lock beside it owns it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import struct
from collections.abc import Iterator
from typing import IO

from dcnumd.errors import DcnumdError

LOCK_NAME = "ledger.lock"


def lock_owner(folder: pathlib.Path) -> int | None:
    """Return the process id of the daemon that owns the ledger in `folder`, None when there is none."""
    try:
        with (folder / LOCK_NAME).open() as lock:
            return _holder(lock)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unusable(folder, error) from error


@contextlib.contextmanager
def owner_lock(folder: pathlib.Path) -> Iterator[None]:
    """Own the ledger in `folder` until the block ends; the system frees it when the process dies.

    Raises
    ------
    DcnumdError
        With the reason ``ledger_locked`` if another process owns it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK_NAME).open("a+")
    except OSError as error:
        raise _unusable(folder, error) from error
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DcnumdError(
                f"{folder}: the ledger is in use by another dcnumd (process {_holder(lock)}); "
                "stop that one, or give this one a state.folder of its own",
                "ledger_locked",
            ) from error
        yield


def _unusable(folder: pathlib.Path, error: OSError) -> DcnumdError:
    return DcnumdError(f"{folder}: the state folder cannot be used: {error.strerror}", "state_folder")


def _holder(lock: IO[str]) -> int | None:
    """Ask the system who holds the lock, without taking it: a daemon may be starting just now."""
    layout = "@hhqqi0q"  # struct flock of 64-bit Linux: type, whence, start, length, process id
    question = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, *_, pid = struct.unpack(layout, fcntl.fcntl(lock, fcntl.F_GETLK, question))
    return None if kind == fcntl.F_UNLCK else int(pid)
