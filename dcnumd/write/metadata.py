"""Taking over attributes, logs and tables from the input."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

import dcnumd
from dcnumd.read.metadata import plain_attribute, stored_attributes, stored_lines, stored_values, to_text
from dcnumd.read.open_file import members
from dcnumd.write.writer import dataset_keywords, make_room_in

SOFTWARE = f"dcnumd {dcnumd.__version__}"


def copy_metadata(source: h5py.File, target: h5py.File) -> None:
    """Copy the root attributes, each in the type it has; those that `target` already has stay."""
    for key, value in stored_attributes(source).items():
        if key not in target.attrs:
            target.attrs[key] = value


def copy_logs(source: h5py.File, target: h5py.File) -> None:
    """Copy all logs that `target` does not have, as fixed-length strings; empty ones are left out.

    The bytes of the lines stay as they are, whatever their encoding.
    """
    for name, dataset in members(source, "logs").items():
        if dataset.size:
            lines = [line if isinstance(line, bytes) else str(line).encode() for line in stored_lines(dataset)]
            data = np.array(lines, dtype=f"S{max(1, *(len(line) for line in lines))}")
            _store(target, "logs", to_text(name), data, dataset)


def copy_tables(source: h5py.File, target: h5py.File) -> None:
    """Copy all tables that `target` does not have, with their attributes; empty ones are left out."""
    for name, dataset in members(source, "tables").items():
        if dataset.size:
            _store(target, "tables", to_text(name), stored_values(dataset), dataset)


def _store(target: h5py.File, group: str, name: str, data: Any, source: h5py.Dataset) -> None:
    """Store `data` and the attributes of `source`, and add to the software that wrote it the one that copied it."""
    items = target.require_group(group)
    if name in items:
        return
    layout = {"maxshape": data.shape, "chunks": data.shape, **dataset_keywords()} if np.ndim(data) else {}
    make_room_in(target, np.asarray(data).nbytes)
    copy = items.create_dataset(name, data=data, **layout)
    attributes = stored_attributes(source)
    for key, value in attributes.items():
        copy.attrs[key] = value
    writer = attributes.get("software")
    # arrays and attributes without a value have a size, texts have none
    written = [to_text(plain_attribute(writer))] if getattr(writer, "size", writer is not None) else []
    copy.attrs["software"] = " | ".join([*written, SOFTWARE])
