"""Attributes, logs, tables and the identity of a measurement, as plain Python values."""

from __future__ import annotations

import hashlib
import pathlib
import uuid
from collections.abc import Mapping

import h5py
import numpy as np
import numpy.typing as npt

from dcnumd.read.open_file import damage_named, members

Attribute = str | int | float | bool | list[object]


def to_text(value: object) -> str:
    """Decode what HDF5 returns for a string, whichever way it was stored."""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def plain_attribute(value: object) -> Attribute:
    """Turn an HDF5 attribute (bytes, numpy scalar, array) into a plain Python value."""
    if isinstance(value, bytes):
        return to_text(value)
    if isinstance(value, np.ndarray):
        if value.shape == (1,):
            return plain_attribute(value[0])
        return [plain_attribute(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        return plain_attribute(value.item())
    if isinstance(value, str | bool | int | float):
        return value
    return str(value)


def read_attributes(h5: h5py.File) -> dict[str, Attribute]:
    """Return the root attributes ``section:key``."""
    with damage_named(h5.filename, "an attribute"):
        return {key: plain_attribute(h5.attrs[key]) for key in h5.attrs}


def read_lines(dataset: h5py.Dataset) -> list[str]:
    """Return a text dataset (fixed or variable-length strings, possibly empty) line by line."""
    if dataset.shape is None:
        return []
    with damage_named(dataset.file.filename, dataset.name):
        return [to_text(line) for line in np.atleast_1d(dataset[()])]


def read_logs(h5: h5py.File) -> dict[str, list[str]]:
    """Return all logs, each as a list of lines."""
    return {name: read_lines(dataset) for name, dataset in members(h5, "logs").items()}


def read_tables(h5: h5py.File) -> dict[str, npt.NDArray[np.generic]]:
    """Return all tables as (structured) arrays."""
    with damage_named(h5.filename, "a table"):
        return {name: dataset[()] for name, dataset in members(h5, "tables").items()}


def measurement_identifier(attributes: Mapping[str, object]) -> str | None:
    """Return what identifies a measurement wherever its file lies.

    It is ``experiment:run identifier``; for older files the UUID of the MD5 of
    ``{experiment:time}_{experiment:date}_{setup:identifier}`` when all three exist.

    Parameters
    ----------
    attributes
        The root attributes as HDF5 returns them. Those stored as fixed-length strings enter the MD5 in Python's
        notation (``b'…'``): the identifiers that dcnum has given to such files depend on it.
    """
    identifier = attributes.get("experiment:run identifier")
    if identifier:
        return to_text(identifier)
    parts = [attributes.get(key) for key in ("experiment:time", "experiment:date", "setup:identifier")]
    if not all(parts):
        return None
    digest = hashlib.md5("_".join(str(part) for part in parts).encode(), usedforsecurity=False)
    return str(uuid.UUID(hex=digest.hexdigest()))


def md5_of_head(path: pathlib.Path, size: int = 5 * 1024 * 1024) -> str:
    """Return the MD5 (hex) of the first `size` bytes of a file."""
    with path.open("rb") as stream:
        return hashlib.md5(stream.read(size), usedforsecurity=False).hexdigest()
