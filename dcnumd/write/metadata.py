"""Taking over attributes, logs and tables from the input."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

import dcnumd
from dcnumd.write.writer import dataset_keywords

SOFTWARE = f"dcnumd {dcnumd.__version__}"


def copy_metadata(source: h5py.File, target: h5py.File) -> None:
    """Copy the root attributes, each in the type it has; those that `target` already has stay."""
    for key in source.attrs:
        if key not in target.attrs:
            target.attrs[key] = source.attrs[key]


def copy_logs(source: h5py.File, target: h5py.File) -> None:
    """Copy all logs that `target` does not have, as fixed-length strings; empty ones are left out.

    The bytes of the lines stay as they are, whatever their encoding.
    """
    for name, dataset in source.get("logs", {}).items():
        if isinstance(dataset, h5py.Dataset) and dataset.size:
            lines = [line if isinstance(line, bytes) else str(line).encode() for line in np.atleast_1d(dataset[()])]
            data = np.array(lines, dtype=f"S{max(1, *(len(line) for line in lines))}")
            _store(target, "logs", name, data, dataset)


def copy_tables(source: h5py.File, target: h5py.File) -> None:
    """Copy all tables that `target` does not have, with their attributes; empty ones are left out."""
    for name, dataset in source.get("tables", {}).items():
        if isinstance(dataset, h5py.Dataset) and dataset.size:
            _store(target, "tables", name, dataset[()], dataset)


def _store(target: h5py.File, group: str, name: str, data: Any, source: h5py.Dataset) -> None:
    """Store `data` and the attributes of `source`, and say which software did so."""
    members = target.require_group(group)
    if name in members:
        return
    layout = {"maxshape": data.shape, "chunks": data.shape, **dataset_keywords()} if np.ndim(data) else {}
    copy = members.create_dataset(name, data=data, **layout)
    for key in source.attrs:
        copy.attrs[key] = source.attrs[key]
    copy.attrs["software"] = SOFTWARE
