"""Copying of attributes, logs and tables from the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

import dcnumd
from dcnumd.errors import MeasurementError
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.read.left_out import doing_without, warn_left_out
from dcnumd.read.limits import MAX_COPIED_BYTES, too_large
from dcnumd.read.metadata import is_text, plain_attribute, stored_attributes, stored_lines, stored_values, to_text
from dcnumd.write.log_lines import LOG_WIDTH
from dcnumd.write.writer import dataset_keywords, make_room_in

SOFTWARE = f"dcnumd {dcnumd.__version__}"
MAX_LOG_BYTES = 2**26
"""Largest size of a log in a result [bytes]; all its lines take as much as the longest. Usual is 1 MiB."""
LINE_OVERHEAD = 16
"""Size of a line in addition to its text, in a file or in memory [bytes]."""
WHERE_WHOLE = "the measurement has it as it was."


def copy_metadata(source: HDF5Data, target: h5py.File) -> None:
    """Copy the root attributes with their types; attributes that `target` already has stay unchanged."""
    for key, value in source.attributes.items():
        if key not in target.attrs:
            with doing_without():
                _store_attribute(target, key, value, f"{source.path}: attribute {to_text(key)}")


def copy_logs(source: HDF5Data, target: h5py.File) -> None:
    """Copy all logs that `target` does not have, as fixed-length strings; empty logs are left out.

    The bytes of the lines stay unchanged, in any encoding. A log that would become too large is truncated, with a note
    in its first line. A dataset that is not a text is copied like a table.
    """
    room = MAX_COPIED_BYTES
    for name, dataset in source.extras("logs"):
        with doing_without():
            if _is_new(target, "logs", name, dataset):
                data = _fitting_log(dataset, min(room, MAX_LOG_BYTES)) if is_text(dataset) else _fitting(dataset, room)
                room -= data.nbytes
                _store(target, "logs", to_text(name), data, dataset)


def copy_tables(source: HDF5Data, target: h5py.File) -> None:
    """Copy all tables that `target` does not have, with their attributes; empty tables are left out."""
    room = MAX_COPIED_BYTES
    for name, dataset in source.extras("tables"):
        with doing_without():
            if _is_new(target, "tables", name, dataset):
                data = _fitting(dataset, room)
                room -= data.nbytes
                _store(target, "tables", to_text(name), data, dataset)


def _is_new(target: h5py.File, group: str, name: str, dataset: h5py.Dataset) -> bool:
    return bool(dataset.size) and to_text(name) not in target.get(group, ())


def _fitting(dataset: h5py.Dataset, room: int) -> npt.NDArray[Any]:
    """Return all values of a dataset, texts as fixed-length strings.

    Raises
    ------
    MeasurementError
        The values take more than `room` bytes; or as `stored_values`.
    """
    where = dataset.file.filename
    if dataset.nbytes > room:
        raise too_large(where, dataset.name, dataset.nbytes, room, "bytes")
    if not is_text(dataset) or not dataset.ndim:
        return np.asarray(stored_values(dataset))
    lines, complete = _first_lines(dataset, room)
    if not complete or _size(lines) > room:
        raise too_large(where, dataset.name, _size(lines), room, "bytes")
    return _fixed_length(lines)


def _fitting_log(dataset: h5py.Dataset, room: int) -> npt.NDArray[np.bytes_]:
    """Return the lines of a log, truncated to `room` bytes."""
    if dataset.dtype.kind == "S" and dataset.ndim and dataset.nbytes <= room:
        return stored_values(dataset)
    lines, complete = _first_lines(dataset, room)
    if complete and _size(lines) <= room:
        return _fixed_length(lines)
    broken = [part for line in lines for part in _broken(line)]
    kept = broken[: max(0, room // LOG_WIDTH - 2)]
    told, consequences = [], []
    if len(broken) > len(lines):
        told.append(f"[dcnumd] Lines of more than {LOG_WIDTH} bytes are broken here; {WHERE_WHOLE}")
        consequences.append(f"lines of more than {LOG_WIDTH} bytes are broken")
    if not complete or len(kept) < len(broken):
        told.append(f"[dcnumd] Only the beginning of this log is here, {len(kept)} lines; {WHERE_WHOLE}")
        consequences.append(f"only its first {len(kept)} lines are in the result")
    where = f"{dataset.file.filename}: {dataset.name}"
    warn_left_out(f"{where} would take more than {room} bytes", ", and ".join(consequences))
    return _fixed_length([*(line.encode() for line in told), *kept])


def _first_lines(dataset: h5py.Dataset, room: int) -> tuple[list[bytes], bool]:
    """Return the first lines of a text, up to `room` bytes together, and whether these are all lines."""
    lines: list[bytes] = []
    for block in stored_lines(dataset):
        for line in block:
            if len(line) + LINE_OVERHEAD > room:
                return [*lines, line[:room]], False
            room -= len(line) + LINE_OVERHEAD
            lines.append(line)
    return lines, True


def _size(lines: Sequence[bytes]) -> int:
    """Return the size of lines as fixed-length strings [bytes]."""
    return len(lines) * max(map(len, lines))


def _broken(line: bytes) -> list[bytes]:
    """Split a line into parts of at most `LOG_WIDTH` bytes, between characters of UTF-8."""
    parts = []
    while len(line) > LOG_WIDTH:
        end = LOG_WIDTH
        while end > LOG_WIDTH - 4 and line[end] & 0xC0 == 0x80:
            end -= 1
        parts.append(line[:end])
        line = line[end:]
    return [*parts, line]


def _fixed_length(lines: Sequence[bytes]) -> npt.NDArray[np.bytes_]:
    return np.array(lines, dtype=f"S{max(1, *map(len, lines))}")


def _store(target: h5py.File, group: str, name: str, data: npt.NDArray[Any], source: h5py.Dataset) -> None:
    """Store `data` with the attributes of `source`, and add dcnumd to the software that is named there."""
    items = target.require_group(group)
    layout: dict[str, Any] = {"maxshape": data.shape, "chunks": data.shape, **dataset_keywords()} if data.ndim else {}
    if data.dtype.kind == "O":
        layout["dtype"] = source.dtype
    make_room_in(target, data.nbytes)
    where = source.file.filename
    try:
        copy = items.create_dataset(name, data=data, **layout)
    except (TypeError, ValueError) as error:
        raise MeasurementError(f"{where}: {source.name} is of a type that cannot be stored ({error})") from error
    faults: dict[str, MeasurementError] = {}
    attributes = stored_attributes(source, faults)
    for key, value in attributes.items():
        with doing_without():
            _store_attribute(copy, key, value, f"{where}: attribute {to_text(key)} of {source.name}")
    for fault in faults.values():
        warn_left_out(fault.message)
    writer = attributes.get("software")
    # arrays and attributes without a value have a size, texts have none
    written = [to_text(plain_attribute(writer))] if getattr(writer, "size", writer is not None) else []
    copy.attrs["software"] = " | ".join([*written, SOFTWARE])


def _store_attribute(target: h5py.File | h5py.Dataset, key: str | bytes, value: Any, where: str) -> None:
    try:
        target.attrs[key] = value
    except (TypeError, ValueError) as error:
        raise MeasurementError(f"{where} is of a type that cannot be stored ({error})") from error
