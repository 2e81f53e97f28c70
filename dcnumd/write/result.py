"""Results that appear under their name only when they are complete."""

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
"""Pattern of the names of temporary and scratch files."""

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
"""Reason codes by error number of the file system; for others it is ``output_folder``."""
NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
NO_RENAME_ONCE = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})
"""Error numbers of a file system without RENAME_NOREPLACE."""
AT_FDCWD = -100
"""Makes paths relative to the working folder; see renameat2(2)."""
RENAME_NOREPLACE = 1
NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.EOPNOTSUPP})

LOCK_OFFSET = 2**62
"""Position of the locked byte, after all data: on some shares, others can neither read nor write a locked range."""


class ResultFile:
    """A result under construction, as a context manager.

    The data are written to `temporary`, a hidden file in the target folder that watchers ignore. `commit` flushes it to
    the disk and renames it. A block that ends without `commit`, also by an exception, removes the file. Files of killed
    processes are not locked any more, so that `remove_leftovers` can find them.

    Parameters
    ----------
    path
        Path of the finished result. Its folder is created if it does not exist.
    existing
        What to do with an existing file of that name: ``replace`` it on `commit`; ``fail`` and ``skip`` never modify it
        (whether a job is skipped is decided before). A symbolic link is replaced, not followed.
    job_id
        Part of the names of temporary files.
    root
        Symbolic links may not lead out of this folder; None to allow any place.
    durable
        Whether `commit` waits until the data are on the disk. Without, which is for files that can be made again, a
        killed process still leaves a complete file or none, but a power failure may leave an empty or damaged one.

    Attributes
    ----------
    temporary
        The file to write; it exists and is empty.
    scratch
        Path for intermediate data. The file does not exist at first, and is removed at the end.

    Raises
    ------
    ResultError
        With one of these reasons: ``no_space``, ``output_read_only``, ``output_no_permission``, ``output_unreachable``
        or ``output_folder`` for problems of the file system; ``output_name`` for a name that it does not allow;
        ``output_exists``; or ``outside``. Errors of writing in the block, such as a full disk, are turned into these.
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
        # 40 characters of the stem keep the names within the limit of file systems (255 bytes).
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
            # Another process may have created one of the folders just now.
            self._refuse_outside()
            # Checked before the work, not after it, and with an errno, which HDF5 does not always report.
            self._make_temporary()
        except OSError as error:
            raise self._describe(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The lock of the other file protects the scratch file as well, so the scratch file is removed first.
        for path in (self.scratch, self.temporary):
            # If the folder is gone, so are the files. The error that led here is the one to report.
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        os.close(self._descriptor)
        if error is not None and (number := self._output_errno(error)) is not None:
            raise self._describe(OSError(number, os.strerror(number))) from error

    def flush(self) -> None:
        """Flush the closed file to the disk (if `durable`), so that a later `commit` has little to do.

        Raises
        ------
        ResultError
            As for the class.
        """
        try:
            self._flush()
        except OSError as error:
            raise self._describe(error) from error

    def is_intact(self) -> bool:
        """Return whether the temporary file is still in its place."""
        return _is_at(self._descriptor, self.temporary)

    def commit(self) -> None:
        """Flush the closed file to the disk (if `durable`) and rename it.

        Raises
        ------
        ResultError
            As for the class; no file has appeared under the final name then.
        """
        try:
            self._flush()
            if self.existing == "replace":
                self._refuse_existing()
                self.temporary.replace(self.path)
            else:
                self._publish_once()
            if self._durable:
                _sync_folder(self.path.parent)
        except OSError as error:
            raise self._describe(error) from error

    def _flush(self) -> None:
        # Free the space after the end that was only reserved.
        os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size)
        # Why this descriptor? It was open all the time, so fsync reports every write that failed.
        if self._durable:
            os.fsync(self._descriptor)

    def _make_folder(self) -> None:
        """Create the folder of the result and missing parents, and flush their names to the disk."""
        folder = self.path.parent
        new = list(itertools.takewhile(lambda place: not place.exists(), (folder, *folder.parents)))
        folder.mkdir(parents=True, exist_ok=True)
        if self._durable:
            for place in reversed(new):
                _sync_folder(place.parent)

    def _make_temporary(self) -> None:
        """Create the temporary file and lock it for the lifetime of this process."""
        while True:
            descriptor = os.open(self.temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            # `remove_leftovers` in another process may have removed it before it was locked.
            if _lock(descriptor) != "others" and _is_at(descriptor, self.temporary):
                self._descriptor = descriptor
                return
            os.close(descriptor)
            self._name_temporaries()

    def _publish_once(self) -> None:
        """Rename the file unless the new name exists by now: a hard link never replaces a file."""
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
            # The folder does not exist; other errors are raised again when it is created.
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
        """Return the error number of a failed write of the result; None if the error has another cause."""
        if isinstance(error, DcnumdError) or not isinstance(error, Exception):
            return None
        number = error.errno if isinstance(error, OSError) else None
        text = str(error)
        # h5py does not always raise an OSError with errno, but the message of HDF5 contains the number.
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
    """Rename a file on a file system without hard links, unless the new name exists.

    Raises
    ------
    FileExistsError
        The new name exists; that file stays unchanged.
    OSError
        The file cannot be renamed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not libc.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), RENAME_NOREPLACE):
        return
    number = ctypes.get_errno()
    if number not in NO_RENAME_ONCE:
        raise OSError(number, os.strerror(number), os.fspath(target))
    # O_EXCL makes sure that the file that is replaced is the empty one created here.
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    source.rename(target)


def remove_leftovers(folder: pathlib.Path) -> list[pathlib.Path]:
    """Remove temporary and scratch files of killed processes from a folder.

    Files of living processes are locked and stay. On a file system without locks, all files stay.

    Returns
    -------
    removed
        The removed files.

    Raises
    ------
    OSError
        If the folder cannot be read, or a file in it cannot be removed. A missing folder is not an error.
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
            # Another process has removed it.
            continue
        except OSError as error:
            failed = error
    if failed is not None:
        raise failed
    return removed


def has_temporaries(folder: pathlib.Path) -> bool:
    """Return whether a folder has temporary or scratch files, whoever they belong to.

    Raises
    ------
    OSError
        If the folder cannot be read. A missing folder is not an error.
    """
    try:
        return any(TEMPORARY_NAME.fullmatch(name) for name in os.listdir(folder))  # noqa: PTH208 -- names only
    except (FileNotFoundError, NotADirectoryError):
        return False


def _remove_if_left(path: pathlib.Path, locked_by_maker: pathlib.Path) -> bool:
    """Remove a file if the process that created it does not hold its lock any more."""
    try:
        # these flags do not follow links, and do not wait for the other end of a pipe
        descriptor = os.open(locked_by_maker, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        # A scratch file without its temporary file; or both have been removed by now.
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
    """Lock an open file; the system releases the lock when the file is closed or this process is killed.

    Why not `fcntl.lockf`? Its locks belong to the process, and closing any descriptor of the file, as HDF5 does, would
    release them. This lock belongs to the open file description.
    """
    # struct flock of 64-bit Linux: type, whence, start, length, process id
    request = struct.pack("@hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, LOCK_OFFSET, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
    except OSError as error:
        return "others" if error.errno == errno.EAGAIN else "impossible"
    return "mine"


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
    """Return whether a path still refers to an open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _sync_folder(path: pathlib.Path) -> None:
    """Flush the names in a folder to the disk, if the file system supports that."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
