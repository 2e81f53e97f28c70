"""A result appears under its name when it is complete, or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import os
import pathlib
import re
import secrets
import stat
import struct
from types import TracebackType
from typing import Literal, Self

from dcnumd.errors import DcnumdError, ResultError

TEMPORARY_SUFFIX = ".rtdc~"
TEMPORARY_NAME = re.compile(r"(?P<maker>\..*_dcnumd-[A-Za-z0-9-]*-[0-9a-f]{8})(_scratch)?\.rtdc~", re.DOTALL)
"""No other file of a folder has such a name."""

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
REASONS = {
    **dict.fromkeys(NO_SPACE, "no_space"),
    errno.EROFS: "output_read_only",
    errno.EACCES: "output_no_permission",
    errno.EPERM: "output_no_permission",
    **dict.fromkeys(
        (
            errno.ENOENT,
            errno.EIO,
            errno.ESTALE,
            errno.EHOSTDOWN,
            errno.EHOSTUNREACH,
            errno.ENETDOWN,
            errno.ENETUNREACH,
            errno.ETIMEDOUT,
            errno.ENOTCONN,
            errno.ENODEV,
            errno.ENXIO,
            errno.EREMOTEIO,
        ),
        "output_unreachable",
    ),
    errno.ENAMETOOLONG: "output_name",
    errno.EILSEQ: "output_name",
}
"""What the errors of a file system mean; others are ``output_folder``."""
NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
NO_RENAME_ONCE = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})
"""What the system says where a file system cannot rename only if the new name is free."""
AT_FDCWD = -100
"""Paths are taken from the working folder; see renameat2(2)."""
RENAME_NOREPLACE = 1
NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.EOPNOTSUPP})

LOCK_OFFSET = 2**62
"""Far behind all data: on some shares a locked range can be neither read nor written by others."""


class ResultFile:
    """A result under construction, as a context manager.

    The data are written to `temporary`, a hidden file in the target folder that no watcher looks at. `commit` flushes
    it to the disk and gives it its name. A block that ends without `commit`, in whatever way, leaves nothing behind.
    What a process that is killed leaves behind, `remove_leftovers` finds: it is not locked any more.

    Parameters
    ----------
    path
        Name of the finished result. Its folder is made if it does not exist.
    existing
        What to do when there is a file of that name: ``replace`` it on `commit`; ``fail`` and ``skip`` never touch it
        (whether a job is skipped is decided before). A link is replaced, not followed.
    job_id
        Becomes a part of the names of temporary files.
    root
        No symbolic link may lead out of this folder; None: wherever the folder of `path` is.
    durable
        Whether `commit` waits until the data are on the disk. What can be made again need not: it is there or not when
        a process is killed, but may be empty or damaged when the computer loses its power.

    Attributes
    ----------
    temporary
        The file to write; it exists and is empty.
    scratch
        Name for intermediate data; it does not exist and is removed at the end.

    Raises
    ------
    ResultError
        With one of these reasons: ``no_space``, ``output_read_only``, ``output_no_permission``, ``output_unreachable``
        or ``output_folder`` if it is the fault of the surroundings; ``output_name`` if the file system has no such
        names, ``output_exists``, or ``outside``. An error in the block that says that the disk is full, or that
        writing failed, becomes one of them.
    """

    def __init__(
        self,
        path: str | pathlib.Path,
        *,
        existing: Literal["fail", "skip", "replace"] = "fail",
        job_id: str = "",
        root: pathlib.Path | None = None,
        durable: bool = True,
    ) -> None:
        self.path = pathlib.Path(path)
        self.existing = existing
        self._root = root
        self._durable = durable
        # 40 characters of the stem keep the names within what file systems allow (255 bytes).
        safe_id = re.sub(r"[^A-Za-z0-9-]", "", job_id)[:36]
        self._prefix = f".{self.path.stem[:40]}_dcnumd-{safe_id}-"
        self._descriptor = -1
        self._name_temporaries()

    def _name_temporaries(self) -> None:
        maker = self._prefix + secrets.token_hex(4)
        self.temporary = self.path.with_name(maker + TEMPORARY_SUFFIX)
        self.scratch = self.path.with_name(f"{maker}_scratch{TEMPORARY_SUFFIX}")

    def __enter__(self) -> Self:
        self._refuse_existing()
        try:
            self._refuse_outside()
            self._make_folder()
            # Somebody may have made one of the folders just now.
            self._refuse_outside()
            # Found out now rather than after the work, and with an errno, which HDF5 does not always give.
            self._make_temporary()
        except OSError as error:
            raise self._describe(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The scratch file belongs to whoever has locked the other one, so it goes first.
        for path in (self.scratch, self.temporary):
            # A folder that went away took the files with it; the error that led here is the one to report.
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        os.close(self._descriptor)
        if error is not None and (number := self._output_errno(error)) is not None:
            raise self._describe(OSError(number, os.strerror(number))) from error

    def commit(self) -> None:
        """Flush the closed file to the disk (if it is to be durable) and give it its name.

        Raises
        ------
        ResultError
            As for the class; nothing has appeared under the final name then.
        """
        try:
            # Space behind the end that was only made sure of.
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size)
            # This descriptor has been open all the time, so it hears of every write that failed.
            if self._durable:
                os.fsync(self._descriptor)
            if self.existing == "replace":
                self._refuse_existing()
                self.temporary.replace(self.path)
            else:
                self._publish_once()
            if self._durable:
                _sync_folder(self.path.parent)
        except OSError as error:
            raise self._describe(error) from error

    def _make_folder(self) -> None:
        """Make the folder of the result, and have its name, and those above it that are new, on the disk."""
        folder = self.path.parent
        new = list(itertools.takewhile(lambda place: not place.exists(), (folder, *folder.parents)))
        folder.mkdir(parents=True, exist_ok=True)
        if self._durable:
            for place in reversed(new):
                _sync_folder(place.parent)

    def _make_temporary(self) -> None:
        """Make the temporary file and lock it, as long as this process lives."""
        while True:
            descriptor = os.open(self.temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            # Who removes leftovers may have seen it before it was locked.
            if _lock(descriptor) != "others" and _is_at(descriptor, self.temporary):
                self._descriptor = descriptor
                return
            os.close(descriptor)
            self._name_temporaries()

    def _publish_once(self) -> None:
        """Give the file its name unless that name exists by now: a link never replaces anything."""
        try:
            self.path.hardlink_to(self.temporary)
        except FileExistsError as error:
            raise self._exists() from error
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            try:
                _rename_once(self.temporary, self.path)
            except FileExistsError as taken:
                raise self._exists() from taken

    def _refuse_existing(self) -> None:
        try:
            mode = self.path.lstat().st_mode
        except OSError:
            # Nothing is there, or what is wrong shows when the folder is made.
            return
        if self.existing != "replace":
            raise self._exists()
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise ResultError(f"{self.path}: is there and is no file, so it is not replaced", reason="output_exists")

    def _refuse_outside(self) -> None:
        if self._root is None:
            return
        root, folder = (pathlib.Path(os.path.realpath(path)) for path in (self._root, self.path.parent))
        if not folder.is_relative_to(root):
            raise ResultError(f"{self.path}: a symbolic link leads out of {self._root}, to {folder}", reason="outside")

    def _exists(self) -> ResultError:
        return ResultError(
            f'{self.path}: already exists; remove it, or set output.existing to "replace"', reason="output_exists"
        )

    def _output_errno(self, error: BaseException) -> int | None:
        """Return what the system said when the result was written, None if the error is about something else."""
        if isinstance(error, DcnumdError) or not isinstance(error, Exception):
            return None
        number = error.errno if isinstance(error, OSError) else None
        text = str(error)
        # h5py does not always pass errno on, nor does it always raise an OSError; HDF5's text has it.
        if number is None and (found := re.search(r"errno = (\d+),", text)):
            number = int(found[1])
        ours = number in {*NO_SPACE, errno.EROFS} or "write failed" in text or self.temporary.name in text
        return number if ours else None

    def _describe(self, error: OSError) -> ResultError:
        reason = REASONS.get(error.errno or 0, "output_folder")
        detail = error.strerror or " ".join(str(error).split())
        what = "no space left on the disk" if reason == "no_space" else f"cannot be written ({detail})"
        return ResultError(f"{self.path}: {what}", reason=reason)


def _rename_once(source: pathlib.Path, target: pathlib.Path) -> None:
    """Rename a file where there are no hard links, unless the new name exists.

    Raises
    ------
    FileExistsError
        The name exists, and what has it is left as it is.
    OSError
        The file cannot be renamed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not libc.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), RENAME_NOREPLACE):
        return
    number = ctypes.get_errno()
    if number not in NO_RENAME_ONCE:
        raise OSError(number, os.strerror(number), os.fspath(target))
    # An empty file that nobody else has made is the only one that is replaced.
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    source.rename(target)


def remove_leftovers(folder: pathlib.Path) -> list[pathlib.Path]:
    """Remove what killed processes left of their results in a folder.

    Files whose maker lives are locked, and stay; so do all where the file system has no locks.

    Returns
    -------
    removed
        The files that are gone now.

    Raises
    ------
    OSError
        If the folder cannot be read, or a file in it cannot be removed; that it does not exist is no error.
    """
    try:
        paths = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    removed, failed = [], None
    for path in paths:
        found = TEMPORARY_NAME.fullmatch(path.name)
        if found is None:
            continue
        locked = path.with_name(found["maker"] + TEMPORARY_SUFFIX)
        try:
            if stat.S_ISREG(path.lstat().st_mode) and _remove_if_left(path, locked):
                removed.append(path)
        except FileNotFoundError:
            # Somebody else was quicker.
            continue
        except OSError as error:
            failed = error
    if failed is not None:
        raise failed
    return removed


def _remove_if_left(path: pathlib.Path, locked_by_maker: pathlib.Path) -> bool:
    """Remove a file if nobody holds the lock that its maker has."""
    try:
        # neither follows links nor waits for the other end of a pipe
        descriptor = os.open(locked_by_maker, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        # A scratch file that stands alone. Or both are gone by now.
        path.unlink(missing_ok=True)
        return True
    try:
        if _lock(descriptor) != "mine" or not _is_at(descriptor, locked_by_maker):
            return False
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
    return True


def _lock(descriptor: int) -> Literal["mine", "others", "impossible"]:
    """Lock an open file; the system frees it when the file is closed, and so when this process is killed.

    The lock belongs to the open file and not to the process, which may open and close the file by other means.
    """
    # struct flock of 64-bit Linux: type, whence, start, length, process id
    request = struct.pack("@hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, LOCK_OFFSET, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
    except OSError as error:
        return "others" if error.errno == errno.EAGAIN else "impossible"
    return "mine"


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
    """Return whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _sync_folder(path: pathlib.Path) -> None:
    """Make sure that the names in a folder are on the disk, where the file system can do that."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
