"""Attributes, logs, tables and the identity of a measurement, as plain Python values."""

from __future__ import annotations

import hashlib
import pathlib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from dcnumd.read.limits import MAX_COPIED_BYTES, too_large
from dcnumd.read.open_file import damage_named, members

LINES_PER_BLOCK = 256
RUN_IDENTIFIER = "experiment:run identifier"
IDENTIFYING = ("experiment:time", "experiment:date", "setup:identifier")
"""What a measurement without a run identifier is told by."""
Attribute = str | int | float | bool | list[object]


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


def read_attributes(h5: h5py.File) -> dict[str, Attribute]:
    """Return the root attributes ``section:key``."""
    return {to_text(key): plain_attribute(value) for key, value in stored_attributes(h5).items()}


def stored_attributes(item: h5py.File | h5py.Dataset) -> dict[str | bytes, Any]:
    """Return the attributes of an object (of a file: those of its root) as HDF5 gives and takes them.

    Text that is not UTF-8 comes as bytes.

    Raises
    ------
    MeasurementError
        One of them cannot be read.
    """
    with damage_named(item.file.filename, f"an attribute of {item.name}"):
        attributes = item.attrs
        return {key: _storable(attributes[key]) for key in attributes}


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
        They cannot be read.
    """
    with damage_named(dataset.file.filename, dataset.name):
        values: npt.NDArray[Any] = dataset[()]
    return values


def read_lines(dataset: h5py.Dataset) -> list[str]:
    """Return a text dataset (fixed or variable-length strings, possibly empty) line by line."""
    return [] if dataset.shape is None else [to_text(line) for line in stored_lines(dataset)]


def stored_lines(dataset: h5py.Dataset) -> list[bytes | str]:
    """Return the lines of a text dataset as HDF5 gives them.

    Texts of variable length are read in blocks: many of them may be one and the same in the file. They must not be too
    many either when all are as long as the longest, as they are in a result.

    Raises
    ------
    MeasurementError
        They are too many, or cannot be read.
    """
    with damage_named(dataset.file.filename, dataset.name):
        kind = dataset.dtype.kind
    if kind != "O" or dataset.ndim != 1:
        return list(np.atleast_1d(stored_values(dataset)))
    lines: list[bytes | str] = []
    longest = 0
    for start in range(0, len(dataset), LINES_PER_BLOCK):
        with damage_named(dataset.file.filename, dataset.name):
            block = dataset[start : start + LINES_PER_BLOCK].tolist()
        longest = max(longest, *map(len, block))
        if longest * len(dataset) > MAX_COPIED_BYTES:
            size = longest * len(dataset)
            raise too_large(dataset.file.filename, dataset.name, size, MAX_COPIED_BYTES, "bytes")
        lines += block
    return lines


def read_logs(h5: h5py.File) -> dict[str, list[str]]:
    """Return all logs, each as a list of lines."""
    return {to_text(name): read_lines(dataset) for name, dataset in members(h5, "logs").items()}


def read_tables(h5: h5py.File) -> dict[str, npt.NDArray[np.generic]]:
    """Return all tables as (structured) arrays."""
    return {to_text(name): stored_values(dataset) for name, dataset in members(h5, "tables").items()}


def measurement_identifier(attributes: Mapping[str, object]) -> str | None:
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


def is_identified_by(attributes: Mapping[str, object], identifier: str) -> bool:
    """Return whether a measurement has this identifier, or may have been given it by dcnum.

    Where dcnum finds fixed-length strings, it computes the identifier from Python's notation (``b'…'``) of them.
    """
    if identifier == measurement_identifier(attributes):
        return True
    return not _text_of(attributes, RUN_IDENTIFIER) and identifier == _uuid_of(map(attributes.get, IDENTIFYING))


def _text_of(attributes: Mapping[str, object], key: str) -> str:
    value = attributes.get(key)
    return "" if value is None else to_text(value)


def _uuid_of(parts: Iterable[object]) -> str:
    text = "_".join(f"{part}" for part in parts)
    digest = hashlib.md5(text.encode(errors="surrogateescape"), usedforsecurity=False)
    return str(uuid.UUID(hex=digest.hexdigest()))


def md5_of_head(path: pathlib.Path, size: int = 5 * 1024 * 1024) -> str:
    """Return the MD5 (hex) of the first `size` bytes of a file."""
    with path.open("rb") as stream:
        return hashlib.md5(stream.read(size), usedforsecurity=False).hexdigest()
