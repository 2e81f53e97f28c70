"""Ownership of a ledger by one daemon, by means of a lock file beside it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import struct
import tempfile
from collections.abc import Iterator
from typing import IO

from dcnumd.errors import DcnumdError

LOCK_NAME = "ledger.lock"


def lock_owner(folder: pathlib.Path) -> int | None:
    """Return the process id of the daemon that owns the ledger in `folder`; None if there is none."""
    try:
        with (folder / LOCK_NAME).open() as lock:
            return _holder(lock)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unusable(folder, error) from error


@contextlib.contextmanager
def owner_lock(folder: pathlib.Path) -> Iterator[None]:
    """Hold the lock of the ledger in `folder` within this block; the system releases it if the process dies.

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


@contextlib.contextmanager
def temporary_folder(folder: pathlib.Path) -> Iterator[None]:
    """Use a new, empty folder for temporary files of this process and its children within this block.

    The name of the folder contains a key of the state folder `folder`. Temporary folders with the same key are removed
    first: they were left by a daemon that was killed, since only the owner of the ledger creates them. The rest of the
    name is random, so that no other user can have created the folder before.
    """
    base = os.environ.get("RUNTIME_DIRECTORY", "").split(":", maxsplit=1)[0]
    # The name is short, because the address of a socket in the folder is limited to 108 bytes.
    key = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
    above = pathlib.Path(base or tempfile.gettempdir())
    prefix = f"tmp-{key}-" if base else f"dcnumd-{os.getuid()}-{key}-"
    for left in above.glob(f"{prefix}*"):
        _remove_tree(left)
    try:
        mine = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=above))
    except OSError as error:
        raise _unusable(above, error) from error
    earlier = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = os.fspath(mine)
    tempfile.tempdir = None
    try:
        yield
    finally:
        _remove_tree(mine)
        os.environ.pop("TMPDIR")
        if earlier is not None:
            os.environ["TMPDIR"] = earlier
        tempfile.tempdir = None


def _remove_tree(folder: pathlib.Path) -> None:
    # In a folder that others can write to, remove only folders of this user, and follow no links.
    if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid():
        shutil.rmtree(folder, ignore_errors=True)


def _unusable(folder: pathlib.Path, error: OSError) -> DcnumdError:
    return DcnumdError(f"{folder}: the folder cannot be used: {error.strerror}", "state_folder")


def _holder(lock: IO[str]) -> int | None:
    """Return the process id of the lock's holder; None if there is none.

    Why not try to take the lock? A daemon that starts at the same moment would fail.
    """
    layout = "@hhqqi0q"  # struct flock of 64-bit Linux: type, whence, start, length, process id
    question = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, *_, pid = struct.unpack(layout, fcntl.fcntl(lock, fcntl.F_GETLK, question))
    return None if kind == fcntl.F_UNLCK else int(pid)
