"""Opening a measurement without disturbing the instrument, and explaining errors."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import pathlib
import re
import stat
from collections.abc import Iterator
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 -- importing it registers the Zstandard filter with HDF5

from dcnumd.errors import MeasurementError
from dcnumd.read.superblock import HEAD_BYTES, SIGNATURE, read_superblock
from dcnumd.read.swmr import open_swmr

GONE_OR_BUSY = frozenset({
    errno.ENOENT,
    errno.EAGAIN,
    errno.EBUSY,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EINTR,
    errno.EIO,
    errno.EMFILE,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENFILE,
    errno.ENODEV,
    errno.ENOLCK,
    errno.ENOMEM,
    errno.ENOTCONN,
    errno.ENXIO,
    errno.EREMOTEIO,
    errno.ESHUTDOWN,
    errno.ESTALE,
    errno.ETIMEDOUT,
})  # fmt: skip
"""Error numbers of the operating system for a file that is temporarily missing or unreadable."""
FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
HDF5_FAULTS = (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError)
"""Exceptions of h5py for damaged files; which one depends on the damaged part."""


OPEN_HERE = ("flag values don't match", "for file that is already open")
"""Messages of HDF5 for a file that this process has open with other options for locking or SWMR."""
MARKED = "already open for write"
"""Message of HDF5 for a file that is marked as open for writing."""


def open_measurement(path: str | pathlib.Path, *, keep_chunks: bool = True, interrupted: bool = False) -> h5py.File:
    """Open an HDF5 file for reading, without a lock.

    A reader's lock would make the instrument's next write fail.

    Parameters
    ----------
    path
        The file.
    keep_chunks
        Keep the last chunk of each dataset in memory for the next read; with many datasets this takes much memory.
    interrupted
        Open also a file that is marked as open for writing in SWMR mode, since its recording was interrupted.

    Raises
    ------
    MeasurementError
        With the reason ``unreadable`` (missing, no permission, not a regular file, share unavailable), ``not_hdf5``,
        ``damaged``, ``truncated``, ``being_written``; or ``incomplete``, if `interrupted` does not suffice.
    """
    path = pathlib.Path(path)
    try:
        head = _read_head(path)
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise MeasurementError(f"{path}: cannot be a file name ({error})", reason="unreadable") from error
    cache = None if keep_chunks else 0
    try:
        return h5py.File(path, "r", locking=False, rdcc_nbytes=cache)
    except HDF5_FAULTS as error:
        if interrupted and MARKED in str(error):
            return _open_marked(path, keep_chunks=keep_chunks)
        if not any(text in str(error) for text in OPEN_HERE):
            raise _explain(path, head, error) from error
    return _open_again(path, cache)


def is_marked(path: str | pathlib.Path) -> bool:
    """Return whether a file is marked as open for writing.

    Raises
    ------
    MeasurementError
        Reason ``unreadable``.
    """
    try:
        with pathlib.Path(path).open("rb") as file:
            superblock = read_superblock(file.read(HEAD_BYTES))
    except OSError as error:
        raise unreadable(path, error) from error
    return superblock is not None and superblock.open_for_writing


def _open_marked(path: pathlib.Path, *, keep_chunks: bool) -> h5py.File:
    """Open a file that is marked as open for writing in SWMR mode.

    Raises
    ------
    MeasurementError
        Reason ``incomplete``, when it is marked, but not in SWMR mode; or another one.
    """
    try:
        return open_swmr(path, keep_chunks=keep_chunks)
    except HDF5_FAULTS as error:
        if "SWMR" not in str(error):
            raise _explain(path, SIGNATURE, error) from error
        raise MeasurementError(
            f"{path}: its recording was interrupted and not in SWMR mode, so that parts of the file may be missing or "
            "contradict each other; 'h5clear -s --increment=0' on a copy may help",
            reason="incomplete",
        ) from error


def _open_again(path: pathlib.Path, cache: int | None) -> h5py.File:
    """Open a file with the options with which this process has it open already, for example in a notebook.

    HDF5 allows no other options in one process. It takes no additional lock.

    Raises
    ------
    MeasurementError
        Reason ``being_written``, when the file is open for writing.
    """
    for swmr, locking in itertools.product((False, True), ("best-effort", True, False)):
        with contextlib.suppress(*HDF5_FAULTS):
            h5 = h5py.File(path, "r", locking=locking, swmr=swmr, rdcc_nbytes=cache)
            if h5.mode == "r":
                return h5
            h5.close()
            break
    raise MeasurementError(
        f"{path}: is open for writing in this process; close it before it is processed",
        reason="being_written",
    )


def _read_head(path: pathlib.Path) -> bytes:
    # O_NONBLOCK because opening a pipe would wait for its writer
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return os.pread(descriptor, len(SIGNATURE), 0)
    finally:
        os.close(descriptor)


def unreadable(path: str | pathlib.Path, error: OSError) -> MeasurementError:
    """Return the error for a file that the operating system cannot open or read."""
    return MeasurementError(
        f"{path}: cannot be read ({error.strerror or error})",
        reason="unreadable",
        transient=error.errno in GONE_OR_BUSY,
    )


@contextlib.contextmanager
def damage_named(where: str | pathlib.Path, what: str) -> Iterator[None]:
    """Turn exceptions of HDF5 in the block into an error that says which part of a file cannot be read.

    Raises
    ------
    MeasurementError
        Reason ``damaged`` or ``checksum``; or ``unreadable``, when the operating system cannot read the file.
    """
    try:
        yield
    except HDF5_FAULTS as error:
        text = _one_line(error)
        failure = _not_given(where, what, error, text)
        if failure is None:
            reason = "checksum" if "checksum" in text.lower() else "damaged"
            failure = MeasurementError(f"{where}: {what} is damaged ({text})", reason=reason)
        raise failure from error


def is_grave(error: MeasurementError) -> bool:
    """Return whether an error is raised even for parts that no computation needs.

    That is so for a part in a file that must not be read, and for one that may be readable later: leaving it out
    would make the result depend on chance.
    """
    return error.transient or error.reason == "outside"


def _not_given(where: str | pathlib.Path, what: str, error: BaseException, text: str) -> MeasurementError | None:
    """Return the error for bytes that the operating system cannot read; None if it is not the cause."""
    # HDF5 reports the error number of the operating system only in its message
    told = re.search(r"errno = (\d+)", text)
    number = int(told[1]) if told else getattr(error, "errno", None)
    if number not in GONE_OR_BUSY | FORBIDDEN:
        return None
    return MeasurementError(
        f"{where}: {what} cannot be read ({os.strerror(number)})",
        reason="unreadable",
        transient=number in GONE_OR_BUSY,
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).strip("'\"").split())


def members(h5: h5py.File, group: str) -> dict[str | bytes, h5py.Dataset]:
    """Return the datasets in a group of the file; none when there is no such group.

    Names that are not UTF-8 are returned as bytes.

    Raises
    ------
    MeasurementError
        Reason ``damaged``, when the group or something in it cannot be opened.
    """
    with damage_named(h5.filename, group):
        item = member(h5, group)
        if not isinstance(item, h5py.Group):
            return {}
        datasets = {name: item[name] for name in item}
    return {name: dataset for name, dataset in datasets.items() if isinstance(dataset, h5py.Dataset)}


def member(h5: h5py.File, name: str) -> Any:
    """Return the object with a name; None when there is none.

    Why not `h5py.Group.get`? It returns None for damaged objects as well.

    Raises
    ------
    MeasurementError
        Reason ``damaged``.
    """
    try:
        # names that are not UTF-8 have surrogates here, which h5py does not accept
        return h5[name.encode(errors="surrogateescape")]
    except HDF5_FAULTS as error:
        if isinstance(error, KeyError) and ("doesn't exist" in str(error) or "component not found" in str(error)):
            return None
        with damage_named(h5.filename, name):
            raise


def _explain(path: pathlib.Path, head: bytes, error: Exception) -> MeasurementError:
    """Return the error for a file that the operating system can read, but HDF5 cannot."""
    text = _one_line(error)
    failure = _not_given(path, "the file", error, text)
    if failure is not None:
        return failure
    if "truncated file" in text:
        return MeasurementError(
            f"{path}: truncated, the file is shorter than its HDF5 header says ({text})",
            reason="truncated",
            transient=True,
        )
    if MARKED in text:
        return MeasurementError(
            f"{path}: marked as open for writing; if no program writes it, repair a copy with "
            "'h5clear -s --increment=0'",
            reason="being_written",
        )
    if head != SIGNATURE:
        return MeasurementError(f"{path}: not an HDF5 file, it starts with {head!r}", reason="not_hdf5")
    return MeasurementError(f"{path}: is damaged, HDF5 cannot open it ({text})", reason="damaged")
