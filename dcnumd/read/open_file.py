"""Opening a measurement without disturbing the instrument, and naming what is wrong with it."""

from __future__ import annotations

import contextlib
import errno
import pathlib
from collections.abc import Iterator
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 -- importing it registers the Zstandard filter with HDF5

from dcnumd.errors import MeasurementError

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
GONE_OR_BUSY = frozenset({
    errno.ENOENT,
    errno.EAGAIN,
    errno.EIO,
    errno.ESTALE,
    errno.EHOSTDOWN,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
})  # fmt: skip


def open_measurement(path: str | pathlib.Path) -> h5py.File:
    """Open an HDF5 file for reading, without a lock.

    A reader's lock would make the instrument's next write fail.

    Raises
    ------
    MeasurementError
        With the reason ``unreadable`` (missing, no permission, a share that went away), ``not_hdf5``,
        ``truncated`` or ``being_written``.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(len(HDF5_SIGNATURE))
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        raise _explain(path, head, error) from error


def unreadable(path: str | pathlib.Path, error: OSError) -> MeasurementError:
    """Describe a file that the operating system does not give us."""
    return MeasurementError(
        f"{path}: cannot be read ({error.strerror or error})",
        reason="unreadable",
        transient=error.errno in GONE_OR_BUSY,
    )


@contextlib.contextmanager
def damage_named(where: str | pathlib.Path, what: str) -> Iterator[None]:
    """Turn what HDF5 raises for a damaged file into an error that says what cannot be read.

    Raises
    ------
    MeasurementError
        Reason ``damaged``.
    """
    try:
        yield
    except (OSError, RuntimeError, KeyError) as error:
        text = " ".join(str(error).strip("'\"").split())
        raise MeasurementError(f"{where}: {what} is damaged ({text})", reason="damaged") from error


def members(h5: h5py.File, group: str) -> dict[str, h5py.Dataset]:
    """Return the datasets in a group of the file; none when there is no such group.

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
    """Return the object of a name, None when there is none.

    `h5py.Group.get` would return None for damaged objects, too.

    Raises
    ------
    MeasurementError
        Reason ``damaged``.
    """
    try:
        return h5[name]
    except KeyError as error:
        if "doesn't exist" in str(error) or "component not found" in str(error):
            return None
        with damage_named(h5.filename, name):
            raise
    except (OSError, RuntimeError):
        with damage_named(h5.filename, name):
            raise


def _explain(path: pathlib.Path, head: bytes, error: OSError) -> MeasurementError:
    """Find the reason why HDF5 refuses a file that the operating system lets us read."""
    text = " ".join(str(error).split())
    if "truncated file" in text:
        return MeasurementError(
            f"{path}: truncated, the file is shorter than its HDF5 header says ({text})",
            reason="truncated",
            transient=True,
        )
    if "already open for write" in text:
        return MeasurementError(
            f"{path}: marked as open for writing; if no program writes it, repair a copy with 'h5clear -s'",
            reason="being_written",
            transient=True,
        )
    if head != HDF5_SIGNATURE:
        return MeasurementError(f"{path}: not an HDF5 file, it starts with {head!r}", reason="not_hdf5")
    return MeasurementError(f"{path}: HDF5 cannot open it ({text})", reason="not_hdf5")
