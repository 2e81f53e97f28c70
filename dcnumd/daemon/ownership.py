"""One daemon per ledger: whoever holds the lock beside it owns it."""

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


@contextlib.contextmanager
def temporary_folder(folder: pathlib.Path) -> Iterator[None]:
    """Give all processes a folder of their own for temporary files, which is empty now and gone afterwards.

    Whoever owns the ledger in `folder` also owns those with its key in their name, so what an earlier daemon left by
    dying goes now. The rest of the name cannot be guessed: nobody else can have made the folder before.
    """
    base = os.environ.get("RUNTIME_DIRECTORY", "").split(":", maxsplit=1)[0]
    # The name is short, because the address of a socket in it may have 108 bytes.
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
    # In a folder where everybody may write, only what is ours can be removed, and a link is not followed.
    if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid():
        shutil.rmtree(folder, ignore_errors=True)


def _unusable(folder: pathlib.Path, error: OSError) -> DcnumdError:
    return DcnumdError(f"{folder}: the folder cannot be used: {error.strerror}", "state_folder")


def _holder(lock: IO[str]) -> int | None:
    """Ask the system who holds the lock, without taking it: a daemon may be starting just now."""
    layout = "@hhqqi0q"  # struct flock of 64-bit Linux: type, whence, start, length, process id
    question = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, *_, pid = struct.unpack(layout, fcntl.fcntl(lock, fcntl.F_GETLK, question))
    return None if kind == fcntl.F_UNLCK else int(pid)
