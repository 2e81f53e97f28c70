"""Attributes, logs, tables and the identity of a measurement, as plain Python values."""

from __future__ import annotations

import hashlib
import pathlib
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from dcnumd.errors import MeasurementError
from dcnumd.read.limits import (
    MAX_ATTRIBUTES,
    MAX_COPIED_BYTES,
    MAX_VARIABLE_ITEMS,
    check_attribute,
    has_variable_length,
    too_large,
)
from dcnumd.read.open_file import damage_named, is_grave

BLOCK_BYTES = 2**24
"""Largest part of a text of fixed-length lines that is read at once [bytes]."""
LINES_PER_BLOCK = 256
"""Number of lines of variable length that are read at once."""
RUN_IDENTIFIER = "experiment:run identifier"
IDENTIFYING = ("experiment:time", "experiment:date", "setup:identifier")
"""What a measurement without a run identifier is told by."""
Attribute = str | int | float | bool | list[object]

COMPUTED_WITH = re.compile(
    r"imaging:(pixel size|frame rate)|experiment:(event count|run identifier|date|time)|setup:identifier"
    r"|online_(contour|filter):.*|pipeline:.*",
    re.DOTALL,
)
"""Attributes of a measurement on which its result depends."""


def to_text(value: object) -> str:
    """Return as valid text what HDF5 returns for a string, whichever way it was stored."""
    stored = value if isinstance(value, bytes) else str(value).encode("utf-8", errors="surrogateescape")
    return stored.decode("utf-8", errors="replace")


def plain_attribute(value: object) -> Attribute:
    """Turn an HDF5 attribute (bytes, numpy scalar, array) into a plain Python value."""
    if isinstance(value, bytes):
        return to_text(value)
    if isinstance(value, np.ndarray):
        if value.shape == (1,):
            return plain_attribute(value[0])
        return [plain_attribute(item) for item in value.tolist()]
    if isinstance(value, np.floating):
        # not every float has an item that is one of Python's
        return float(value)
    if isinstance(value, np.generic) and not isinstance(value.item(), np.generic):
        return plain_attribute(value.item())
    return value if isinstance(value, bool | int | float) else to_text(value)


def to_number(value: object) -> float:
    """Return the number that an attribute is, or spells out as text.

    Raises
    ------
    TypeError, ValueError, OverflowError
        It is none.
    """
    if isinstance(value, str | bytes) and "_" in to_text(value):
        # only programmers write 10 like this
        raise ValueError(f"{value!r} is no number")
    return float(value)  # type: ignore[arg-type]  # what float does not take is no number


def read_attributes(stored: Mapping[str | bytes, Any]) -> dict[str, Attribute]:
    """Return as plain Python values those of the `stored_attributes` that have a value."""
    return {to_text(key): plain_attribute(value) for key, value in stored.items() if has_value(value)}


def has_value(value: object) -> bool:
    """Return whether an attribute has a value; that of an empty dataspace, or without elements, has none."""
    return not isinstance(value, h5py.Empty) and getattr(value, "size", 1) != 0


def event_count(meta: Mapping[str, Attribute]) -> float | None:
    """Return ``experiment:event count``; None if there is none, or it is no number."""
    count = meta.get("experiment:event count")
    try:
        return to_number(count) if isinstance(count, str | int | float) else None
    except ValueError:
        return None


def stored_attributes(item: h5py.File | h5py.Dataset, faults: dict[str, MeasurementError]) -> dict[str | bytes, Any]:
    """Return the attributes of an object (of a file: those of its root) as HDF5 gives and takes them.

    Text that is not UTF-8 comes as bytes.

    Parameters
    ----------
    item
        The object.
    faults
        Those that cannot be taken over, and with which nothing is computed, are left out, and noted here. A reference
        is one of them: it means a place in its own file only.

    Raises
    ------
    MeasurementError
        One of them, or all, cannot be read.
    """
    where, place = item.file.filename, "" if item.name == "/" else f" of {item.name}"
    with damage_named(where, f"an attribute{place}"):
        if len(item.attrs) > MAX_ATTRIBUTES:
            raise too_large(where, item.name, len(item.attrs), MAX_ATTRIBUTES, "attributes")
        keys = list(item.attrs)
    found = {}
    for key in keys:
        name = f"attribute {to_text(key)}{place}"
        try:
            found[key] = _stored_attribute(item, key, name)
        except MeasurementError as error:
            if is_grave(error) or (not place and COMPUTED_WITH.fullmatch(to_text(key))):
                raise
            faults[name] = error
    return found


def _stored_attribute(item: h5py.File | h5py.Dataset, key: str | bytes, name: str) -> Any:
    where = item.file.filename
    with damage_named(where, name):
        attribute = item.attrs.get_id(key)
        check_attribute(attribute, where, item.name)
        if attribute.get_type().detect_class(h5py.h5t.REFERENCE):
            raise MeasurementError(f"{where}: {name} refers to a place in the file")
        return _storable(item.attrs[key])


def _storable(value: Any) -> Any:
    """Return what h5py decodes without a loss, but would not encode again, as the bytes that it was."""
    if isinstance(value, str) and not value.isprintable():
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode(errors="surrogateescape")
    elif isinstance(value, np.ndarray) and value.dtype == object:
        items = np.empty_like(value)
        for index in np.ndindex(value.shape):
            items[index] = _storable(value[index])
        return items
    return value


def stored_values(dataset: h5py.Dataset) -> npt.NDArray[Any]:
    """Return all values of a dataset.

    Raises
    ------
    MeasurementError
        They cannot be read, are too many, or refer to places in the file.
    """
    where, name = dataset.file.filename, dataset.name
    with damage_named(where, name):
        kind = dataset.id.get_type()
        if dataset.nbytes > MAX_COPIED_BYTES:
            raise too_large(where, name, dataset.nbytes, MAX_COPIED_BYTES, "bytes")
        # HDF5 does not tell how long these are before they are read
        if dataset.size > MAX_VARIABLE_ITEMS and has_variable_length(kind):
            raise too_large(where, name, dataset.size, MAX_VARIABLE_ITEMS, "values of variable length")
        if kind.detect_class(h5py.h5t.REFERENCE):
            raise MeasurementError(f"{where}: {name} refers to places in the file")
        values: npt.NDArray[Any] = dataset[()]
    return values


def is_text(dataset: h5py.Dataset) -> bool:
    """Return whether a dataset is a text: one string, or a list of them."""
    with damage_named(dataset.file.filename, dataset.name):
        return dataset.ndim <= 1 and isinstance(dataset.id.get_type(), h5py.h5t.TypeStringID)


def stored_lines(dataset: h5py.Dataset) -> Iterator[list[bytes]]:
    """Return the lines of a text, some at a time, with the bytes that they have in the file.

    Texts of variable length are read in small blocks: many of them may be one and the same in the file.

    Raises
    ------
    MeasurementError
        They cannot be read.
    """
    with damage_named(dataset.file.filename, dataset.name):
        if not dataset.ndim:
            yield [_as_bytes(dataset[()])]
            return
        step = LINES_PER_BLOCK
        if dataset.dtype.kind == "S":
            step = max(1, BLOCK_BYTES // dataset.dtype.itemsize, (dataset.chunks or (0,))[0])
        for start in range(0, len(dataset), step):
            yield [_as_bytes(line) for line in dataset[start : start + step].tolist()]


def _as_bytes(line: bytes | str) -> bytes:
    return line if isinstance(line, bytes) else line.encode(errors="surrogateescape")


def read_lines(dataset: h5py.Dataset) -> list[str]:
    """Return a text dataset (fixed or variable-length strings, possibly empty) line by line; of others the values.

    Raises
    ------
    MeasurementError
        They are too many, or cannot be read.
    """
    if dataset.shape is None:
        return []
    if not is_text(dataset):
        return [to_text(value) for value in np.atleast_1d(stored_values(dataset))]
    lines: list[str] = []
    size = 0
    for block in stored_lines(dataset):
        size += sum(map(len, block))
        if size > MAX_COPIED_BYTES:
            raise too_large(dataset.file.filename, dataset.name, size, MAX_COPIED_BYTES, "bytes")
        lines += map(to_text, block)
    return lines


def read_logs(logs: Iterable[tuple[str, h5py.Dataset]]) -> dict[str, list[str]]:
    """Return logs, each as a list of lines."""
    return {to_text(name): read_lines(dataset) for name, dataset in logs}


def read_tables(tables: Iterable[tuple[str, h5py.Dataset]]) -> dict[str, npt.NDArray[np.generic]]:
    """Return tables as (structured) arrays."""
    return {to_text(name): stored_values(dataset) for name, dataset in tables}


def measurement_identifier(attributes: Mapping[Any, object]) -> str | None:
    """Return what identifies a measurement wherever its file lies.

    It is ``experiment:run identifier``; for older files the UUID of the MD5 of
    ``{experiment:time}_{experiment:date}_{setup:identifier}`` when all three exist. However they are stored, they count
    as the text that dclab makes of them: it refuses a basin with another identifier.

    Parameters
    ----------
    attributes
        The root attributes as HDF5 returns them.
    """
    identifier = _text_of(attributes, RUN_IDENTIFIER)
    if identifier:
        return identifier
    parts = [_text_of(attributes, key) for key in IDENTIFYING]
    return _uuid_of(parts) if all(parts) else None


def is_identified_by(attributes: Mapping[Any, object], identifier: str) -> bool:
    """Return whether a measurement has this identifier, or may have been given it by dcnum.

    Where dcnum finds fixed-length strings, it computes the identifier from Python's notation (``b'…'``) of them.
    """
    if identifier == measurement_identifier(attributes):
        return True
    return not _text_of(attributes, RUN_IDENTIFIER) and identifier == _uuid_of(map(attributes.get, IDENTIFYING))


def _text_of(attributes: Mapping[Any, object], key: str) -> str:
    value = attributes.get(key)
    if value is None:
        return ""
    # dclab takes what h5py says of an attribute without a value for its text
    return to_text(value) if has_value(value) else f"{value}"


def _uuid_of(parts: Iterable[object]) -> str:
    text = "_".join(f"{part}" for part in parts)
    digest = hashlib.md5(text.encode(errors="surrogateescape"), usedforsecurity=False)
    return str(uuid.UUID(hex=digest.hexdigest()))


def md5_of_head(path: pathlib.Path, size: int = 5 * 1024 * 1024) -> str:
    """Return the MD5 (hex) of the first `size` bytes of a file."""
    with path.open("rb") as stream:
        return hashlib.md5(stream.read(size), usedforsecurity=False).hexdigest()
