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
"""Largest number of bytes that are read at once of a text with fixed-length lines."""
LINES_PER_BLOCK = 256
"""Number of lines of variable length that are read at once."""
RUN_IDENTIFIER = "experiment:run identifier"
IDENTIFYING = ("experiment:time", "experiment:date", "setup:identifier")
"""Attributes that identify a measurement without a run identifier."""
ORIGIN = "dcnumd input "
"""Prefix of the attributes of the group ``events`` of a result that say of which content it was made."""
Attribute = str | int | float | bool | list[object]

COMPUTED_WITH = re.compile(
    r"imaging:(pixel size|frame rate)|experiment:(event count|run identifier|date|time)|setup:identifier"
    r"|online_(contour|filter):.*|pipeline:.*",
    re.DOTALL,
)
"""Attributes of a measurement on which its result depends."""


def to_text(value: object) -> str:
    """Return a string from h5py as valid text, for any way of storing it."""
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
        # item() of a longdouble returns the longdouble itself
        return float(value)
    if isinstance(value, np.generic) and not isinstance(value.item(), np.generic):
        return plain_attribute(value.item())
    return value if isinstance(value, bool | int | float) else to_text(value)


def to_number(value: object) -> float:
    """Return an attribute as a number; it may be stored as text.

    Raises
    ------
    TypeError, ValueError, OverflowError
        The attribute is not a number.
    """
    if isinstance(value, str | bytes) and "_" in to_text(value):
        # float() would read "1_0" as 10
        raise ValueError(f"{value!r} is no number")
    return float(value)  # type: ignore[arg-type]  # what float does not take is no number


def read_attributes(stored: Mapping[str | bytes, Any]) -> dict[str, Attribute]:
    """Return the `stored_attributes` that have a value, as plain Python values."""
    return {to_text(key): plain_attribute(value) for key, value in stored.items() if has_value(value)}


def has_value(value: object) -> bool:
    """Return whether an attribute has a value: an empty dataspace or an array without elements has none."""
    return not isinstance(value, h5py.Empty) and getattr(value, "size", 1) != 0


def event_count(meta: Mapping[str, Attribute]) -> float | None:
    """Return ``experiment:event count``; None if it is missing or not a number."""
    count = meta.get("experiment:event count")
    try:
        return to_number(count) if isinstance(count, str | int | float) else None
    except ValueError:
        return None


def stored_attributes(item: h5py.File | h5py.Dataset, faults: dict[str, MeasurementError]) -> dict[str | bytes, Any]:
    """Return the attributes of an object (for a file: of its root) as h5py can write them again.

    Text that is not UTF-8 is returned as bytes.

    Parameters
    ----------
    item
        The object.
    faults
        Receives an error for each attribute that is left out: one that cannot be copied and that no computation needs.
        References are among them, because they are valid only in their own file.

    Raises
    ------
    MeasurementError
        An attribute that is needed, or the list of attributes, cannot be read.
    """
    # Why these once: h5py makes them anew each time, which takes as long as reading an attribute.
    where, owner, attributes = item.file.filename, item.name, item.attrs
    place = "" if owner == "/" else f" of {owner}"
    with damage_named(where, f"an attribute{place}"):
        if len(attributes) > MAX_ATTRIBUTES:
            raise too_large(where, owner, len(attributes), MAX_ATTRIBUTES, "attributes")
        keys = list(attributes)
    found = {}
    for key in keys:
        name = f"attribute {to_text(key)}{place}"
        try:
            with damage_named(where, name):
                check_attribute(attributes.get_id(key), where, owner)
                found[key] = _stored_attribute(attributes, key, f"{where}: {name}")
        except MeasurementError as error:
            if is_grave(error) or (not place and COMPUTED_WITH.fullmatch(to_text(key))):
                raise
            faults[name] = error
    return found


def _stored_attribute(attributes: h5py.AttributeManager, key: str | bytes, name: str) -> Any:
    if attributes.get_id(key).get_type().detect_class(h5py.h5t.REFERENCE):
        raise MeasurementError(f"{name} refers to a place in the file")
    return _storable(attributes[key])


def _storable(value: Any) -> Any:
    """Return a value as bytes if h5py decodes it without loss, but cannot encode it again."""
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
        The values cannot be read, exceed the limits, or are references.
    """
    where, name = dataset.file.filename, dataset.name
    with damage_named(where, name):
        kind = dataset.id.get_type()
        if dataset.nbytes > MAX_COPIED_BYTES:
            raise too_large(where, name, dataset.nbytes, MAX_COPIED_BYTES, "bytes")
        # HDF5 does not report the length of these before reading them
        if dataset.size > MAX_VARIABLE_ITEMS and has_variable_length(kind):
            raise too_large(where, name, dataset.size, MAX_VARIABLE_ITEMS, "values of variable length")
        if kind.detect_class(h5py.h5t.REFERENCE):
            raise MeasurementError(f"{where}: {name} refers to places in the file")
        values: npt.NDArray[Any] = dataset[()]
    return values


def is_text(dataset: h5py.Dataset) -> bool:
    """Return whether a dataset is a text: one string, or a list of strings."""
    with damage_named(dataset.file.filename, dataset.name):
        return dataset.ndim <= 1 and isinstance(dataset.id.get_type(), h5py.h5t.TypeStringID)


def stored_lines(dataset: h5py.Dataset) -> Iterator[list[bytes]]:
    """Yield the lines of a text in blocks, each line as the bytes in the file.

    Lines of variable length are read in small blocks: many lines can share their bytes in a malicious file, so that
    all of them would take far more memory than the file is large.

    Raises
    ------
    MeasurementError
        The text cannot be read.
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
    """Return the lines of a text (strings of fixed or variable length, maybe none), or the values of another dataset.

    Raises
    ------
    MeasurementError
        The dataset is too large, or cannot be read.
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
    """Return the identifier of a measurement, which does not depend on the path of its file.

    It is ``experiment:run identifier``; for older files the UUID of the MD5 of
    ``{experiment:time}_{experiment:date}_{setup:identifier}`` when all three exist. Their text is formed as in dclab,
    for any way of storing them, because dclab refuses a basin with another identifier.

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
    """Return whether a measurement has this identifier, or the one that dcnum computes for it.

    For strings of fixed length, dcnum computes the identifier from their Python notation (``b'…'``).
    """
    if identifier == measurement_identifier(attributes):
        return True
    return not _text_of(attributes, RUN_IDENTIFIER) and identifier == _uuid_of(map(attributes.get, IDENTIFYING))


def _text_of(attributes: Mapping[Any, object], key: str) -> str:
    value = attributes.get(key)
    if value is None:
        return ""
    # for an attribute without a value, dclab uses the text of h5py's Empty object
    return to_text(value) if has_value(value) else f"{value}"


def _uuid_of(parts: Iterable[object]) -> str:
    text = "_".join(f"{part}" for part in parts)
    digest = hashlib.md5(text.encode(errors="surrogateescape"), usedforsecurity=False)
    return str(uuid.UUID(hex=digest.hexdigest()))


def md5_of_head(path: pathlib.Path, size: int = 5 * 1024 * 1024) -> str:
    """Return the MD5 (hex) of the first `size` bytes of a file."""
    with path.open("rb") as stream:
        return hashlib.md5(stream.read(size), usedforsecurity=False).hexdigest()
