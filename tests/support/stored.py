"""Compares HDF5 files as they are stored: layout, attributes, and the bytes of each chunk."""

from __future__ import annotations

import hashlib
import pathlib
from typing import Any

import h5py
import numpy as np

RUN_LOGS = "logs/dcnumd-"
"""Prefix of the logs of the run itself, which are not compared because they contain times."""


def stored_objects(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Return a dictionary with the stored properties of each group and dataset of a file, by name."""
    with h5py.File(path, "r", locking=False) as h5:
        found = {"/": {"attributes": _attributes(h5)}}

        def add(name: str, thing: h5py.Group | h5py.Dataset) -> None:
            if not name.startswith(RUN_LOGS):
                layout = _dataset(thing) if isinstance(thing, h5py.Dataset) else {}
                found[name] = {"attributes": _attributes(thing), **layout}

        h5.visititems(add)
    return found


def stored_differences(one: pathlib.Path, two: pathlib.Path) -> list[str]:
    """Return a line for each property of a dataset or group that differs between two files."""
    first, second = stored_objects(one), stored_objects(two)
    if first.keys() != second.keys():
        return [f"only in one file: {sorted(first.keys() ^ second.keys())}"]
    return [
        f"{name}: {key}: {thing.get(key)!r:.200}, expected {second[name].get(key)!r:.200}"
        for name, thing in first.items()
        for key in thing.keys() | second[name].keys()
        if thing.get(key) != second[name].get(key)
    ]


def _attributes(thing: h5py.Group | h5py.Dataset) -> dict[str, tuple[str, object]]:
    """Return type and value of each attribute; arrays as lists, so that they can be compared."""
    return {
        key: (str(thing.attrs.get_id(key).dtype), value.tolist() if isinstance(value, np.ndarray) else value)
        for key, value in thing.attrs.items()
    }


def _dataset(dataset: h5py.Dataset) -> dict[str, Any]:
    properties = dataset.id.get_create_plist()
    layout = {
        "dtype": str(dataset.dtype),
        "shape": dataset.shape,
        "maxshape": dataset.maxshape,
        "chunks": dataset.chunks,
        "filters": [properties.get_filter(number) for number in range(properties.get_nfilters())],
    }
    if dataset.chunks is None:
        value = dataset[()]
        return {**layout, "value": value.tolist() if isinstance(value, np.ndarray) else value}
    stored = {}
    for number in range(dataset.id.get_num_chunks()):
        info = dataset.id.get_chunk_info(number)
        mask, content = dataset.id.read_direct_chunk(info.chunk_offset)
        assert len(content) == info.size
        stored[info.chunk_offset] = mask, info.size, hashlib.sha256(content).hexdigest()
    if h5py.check_vlen_dtype(dataset.dtype) is not None or h5py.check_string_dtype(dataset.dtype) is not None:
        # Chunks of variable-length text contain addresses in the file, so the values are compared instead.
        return {**layout, "value": dataset[()].tolist()}
    return {**layout, "stored chunks": stored}
