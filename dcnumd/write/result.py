"""A result appears under its name when it is complete, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import secrets
from types import TracebackType
from typing import Literal, Self

from dcnumd.errors import ResultError

TEMPORARY_SUFFIX = ".rtdc~"
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
MAY_PASS = frozenset({errno.ENOENT, errno.EIO, errno.ESTALE, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.ENOTCONN})
NO_HARD_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


class ResultFile:
    """A result under construction, as a context manager.

    The data are written to `temporary`, a hidden file in the target folder that no watcher looks at. `commit` flushes
    it to the disk and gives it its name. A block that ends without `commit`, in whatever way, leaves nothing behind.

    Parameters
    ----------
    path
        Name of the finished result. Its folder is made if it does not exist.
    existing
        What to do when there is a file of that name: ``replace`` it on `commit`; ``fail`` and ``skip`` never touch it
        (whether a job is skipped is decided before).

    Attributes
    ----------
    temporary
        The file to write; it exists and is empty.
    scratch
        Name for intermediate data; it does not exist and is removed at the end.

    Raises
    ------
    ResultError
        Reason ``output_folder`` (cannot be made or written), ``output_exists`` or ``no_space``. An `OSError` that says
        that the disk is full becomes ``no_space``, too.
    """

    def __init__(self, path: str | pathlib.Path, *, existing: Literal["fail", "skip", "replace"] = "fail") -> None:
        self.path = pathlib.Path(path)
        self.existing = existing
        # 40 characters of the stem keep the names within what file systems allow (255 bytes).
        unique = f".{self.path.stem[:40]}_{os.getpid()}_{secrets.token_hex(4)}"
        self.temporary = self.path.with_name(unique + TEMPORARY_SUFFIX)
        self.scratch = self.path.with_name(f"{unique}_scratch{TEMPORARY_SUFFIX}")

    def __enter__(self) -> Self:
        self._refuse_existing()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Found out now rather than after the work, and with an errno, which HDF5 does not always give.
            self.temporary.touch(exist_ok=False)
        except OSError as error:
            raise self._describe(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for path in (self.temporary, self.scratch):
            # A folder that went away took the files with it; the error that led here is the one to report.
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        if isinstance(error, OSError) and _is_out_of_space(error):
            raise self._describe(error) from error

    def commit(self) -> None:
        """Flush the closed file to the disk and give it its name.

        Raises
        ------
        ResultError
            As for the class; nothing has appeared under the final name then.
        """
        try:
            _sync(self.temporary)
            if self.existing == "replace":
                self.temporary.replace(self.path)
            else:
                self._publish_once()
            _sync_folder(self.path.parent)
        except OSError as error:
            raise self._describe(error) from error

    def _publish_once(self) -> None:
        """Give the file its name unless that name exists by now: a link never replaces anything."""
        try:
            self.path.hardlink_to(self.temporary)
        except FileExistsError as error:
            raise self._exists() from error
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            self._refuse_existing()
            self.temporary.rename(self.path)

    def _refuse_existing(self) -> None:
        if self.existing != "replace" and os.path.lexists(self.path):
            raise self._exists()

    def _exists(self) -> ResultError:
        return ResultError(
            f'{self.path}: already exists; remove it, or set output.existing to "replace"', reason="output_exists"
        )

    def _describe(self, error: OSError) -> ResultError:
        if _is_out_of_space(error):
            return ResultError(f"{self.path}: no space left on the disk", reason="no_space", transient=True)
        detail = error.strerror or " ".join(str(error).split())
        return ResultError(
            f"{self.path}: cannot be written ({detail})",
            reason="output_folder",
            transient=error.errno in MAY_PASS,
        )


def _sync(path: pathlib.Path) -> None:
    """Make sure that the content of a file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def _is_out_of_space(error: OSError) -> bool:
    # h5py does not always pass errno on; HDF5's text has it.
    return error.errno in NO_SPACE or any(f"errno = {number}," in str(error) for number in NO_SPACE)
