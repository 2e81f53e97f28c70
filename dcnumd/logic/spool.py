"""The spool: a file in which the events of a recording wait until its result is made.

Frames are processed in units of equal length. The file consists of the events of each unit, in the order in which they
were processed, then an index of arrays as `numpy.savez` writes it, then the position of the index. Without an index,
for example after a crash, a spool is of no use.
"""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from dcnumd.feat.events import Events
from dcnumd.logic.tasks import DIGEST_BYTES, Edges, FramesReply

MAGIC = b"dcnumd spool 1"
FOOTER = struct.Struct("<QQ14s")
"""Position and size of the index [bytes], and `MAGIC`."""
RECORD = np.dtype([
    ("offset", "<i8"),
    ("size", "<i8"),
    ("checksum", "<u4"),
    ("frames", "<i4"),
    ("events", "<i4"),
    ("invalid", "<i4"),
    ("has_offset", "?"),
    ("first", "u1", (DIGEST_BYTES,)),
    ("last", "u1", (DIGEST_BYTES,)),
])  # fmt: skip
"""Where the events of a unit are in the file, how many there are, and the digests of its first and last frame."""
NO_UNIT = -1
"""Offset of a unit that is not in the file."""
ROOM = 1024
"""Number of records by which their array grows."""

Records = npt.NDArray[Any]


class SpoolWriter:
    """Writes a spool.

    Parameters
    ----------
    path
        The file, which is created.
    limit
        Largest size of the file [bytes].

    Raises
    ------
    OSError
        The file cannot be written.
    """

    def __init__(self, path: pathlib.Path, limit: int) -> None:
        self._path = path
        self._file = path.open("xb", buffering=0)
        self._limit = limit
        self._finished = False
        self._records = _empty_records(ROOM)
        self.size = 0
        """Size of the file [bytes]."""
        self.full = False
        """Whether a unit was refused because the file would exceed its limit, or the disk is full."""

    def add(self, unit: int, reply: FramesReply, frames: int) -> bool:
        """Write the events of a unit; return whether there was room for them. Former ones do not count any more."""
        content = _packed(reply)
        if unit >= len(self._records):
            self._records = np.concatenate([self._records, _empty_records(unit - len(self._records) + ROOM)])
        if self.full or self.size + len(content) > self._limit or not self._write(content):
            self.full = True
            self._records[unit]["offset"] = NO_UNIT
            return False
        self._records[unit] = (
            self.size,
            len(content),
            zlib.crc32(content),
            frames,
            len(reply.events.frame),
            reply.events.invalid,
            reply.bg_off is not None,
            np.frombuffer(reply.edges.first, np.uint8),
            np.frombuffer(reply.edges.last, np.uint8),
        )
        self.size += len(content)
        return True

    def finish(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write the index with further arrays; the spool can be read from now on.

        Raises
        ------
        OSError
            The index cannot be written.
        """
        buffer = io.BytesIO()
        # not by keywords, which would collide with those of numpy
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, array in {"records": self._records, **arrays}.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        index = buffer.getvalue()
        self._file.seek(self.size)
        self._file.truncate()
        _write_all(self._file, index + FOOTER.pack(self.size, len(index), MAGIC))
        self._finished = True

    def close(self) -> None:
        """Close the file, and remove it if it has no index."""
        self._file.close()
        if not self._finished:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _write(self, content: bytes) -> bool:
        try:
            _write_all(self._file, content)
        except OSError:
            # What was written of it is overwritten by the index.
            return False
        return True


class SpoolFile:
    """An open spool.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ValueError
        It is no spool, or one without an index.
    OSError
        It cannot be read.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.arrays = self._read_index()
            self.records: Records = self.arrays.pop("records")
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._descriptor)

    def _read_index(self) -> dict[str, npt.NDArray[Any]]:
        end = os.fstat(self._descriptor).st_size
        footer = os.pread(self._descriptor, FOOTER.size, max(end - FOOTER.size, 0))
        if len(footer) < FOOTER.size or not footer.endswith(MAGIC):
            raise ValueError("the spool has no index")
        position, size, _ = FOOTER.unpack(footer)
        content = _read(self._descriptor, position, size)
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return dict(arrays)
        except (zipfile.BadZipFile, KeyError, EOFError) as error:
            raise ValueError(f"the index of the spool is damaged ({error})") from error

    def is_intact(self, unit: int) -> bool:
        """Return whether a unit is in the file and can be read."""
        record = self.records[unit]
        if record["offset"] == NO_UNIT:
            return False
        with contextlib.suppress(OSError, ValueError):
            content = _read(self._descriptor, int(record["offset"]), int(record["size"]))
            return zlib.crc32(content) == int(record["checksum"])
        return False

    def read(self, unit: int, columns: int) -> FramesReply:
        """Return the events of a unit with their masks.

        Parameters
        ----------
        unit
            Number of the unit.
        columns
            Number of features in the table of events.

        Raises
        ------
        ValueError
            The file is shorter than its index says.
        OSError
            It cannot be read.
        """
        record = self.records[unit]
        content = _read(self._descriptor, int(record["offset"]), int(record["size"]))
        return _unpacked(content, record, columns)


def _empty_records(count: int) -> Records:
    records = np.zeros(count, RECORD)
    records["offset"] = NO_UNIT
    return records


def _packed(reply: FramesReply) -> bytes:
    events = reply.events
    parts: list[npt.NDArray[Any]] = [events.table, events.frame, events.label, events.box]
    if reply.bg_off is not None:
        parts.append(reply.bg_off)
    return b"".join(part.tobytes() for part in (*parts, reply.masks))


def _unpacked(content: bytes, record: Any, columns: int) -> FramesReply:
    count, position = int(record["events"]), 0

    def take(dtype: npt.DTypeLike, *shape: int) -> npt.NDArray[Any]:
        nonlocal position
        items = int(np.prod(shape))
        array = np.frombuffer(content, dtype, items, position).reshape(shape)
        position += array.nbytes
        return array

    table, frame = take(np.float64, count, columns), take(np.int64, count)
    label, box = take(np.uint16, count), take(np.int32, count, 4)
    bg_off = take(np.float64, int(record["frames"])) if record["has_offset"] else None
    edges = Edges(record["first"].tobytes(), record["last"].tobytes())
    events = Events(table, frame, label, box, int(record["invalid"]))
    return FramesReply(events, bg_off, edges, np.frombuffer(content, np.uint8, offset=position))


def _write_all(file: io.FileIO, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def _read(descriptor: int, position: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.pread(descriptor, size, position)
        if not part:
            raise ValueError("the spool is shorter than its index says")
        parts.append(part)
        position, size = position + len(part), size - len(part)
    return b"".join(parts)
