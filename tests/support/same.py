"""Comparison of two results of one measurement, which may differ in times only."""

from __future__ import annotations

import pathlib
import re

import h5py
import hdf5plugin  # noqa: F401 -- registers the Zstandard filter
import numpy as np

RUN_LOG = re.compile(r"(dcnumd-(?:job|log))-[\d._-]+")
"""Names of the logs of a run, which contain its date."""


def differences(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """Return where two results differ: in attributes, names, types or values, except for logs that contain times."""
    with h5py.File(one, "r", locking=False) as first, h5py.File(other, "r", locking=False) as second:
        left, right = _content(first), _content(second)
        found = list(left.keys() ^ right.keys())
        return found + [name for name in left.keys() & right.keys() if not _equal(left[name], right[name])]


def _content(h5: h5py.File) -> dict[str, object]:
    """Return all attributes and datasets by their names."""
    content: dict[str, object] = {f"@{key}": value for key, value in h5.attrs.items()}

    def take(name: str, item: h5py.Group | h5py.Dataset) -> None:
        name = RUN_LOG.sub(r"\1", name)
        content.update({f"{name}@{key}": value for key, value in item.attrs.items()})
        if isinstance(item, h5py.Dataset):
            is_log = name.startswith("logs/dcnumd-log")
            content[name] = (item.dtype, item.chunks, len(item[:].shape) if is_log else item[:])

    h5.visititems(take)
    return content


def _equal(one: object, other: object) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        floats = one.dtype.kind == "f"
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=floats)
    return bool(one == other)
