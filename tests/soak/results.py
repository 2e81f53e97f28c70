"""Results on disk: whole or not there, and equal to one another."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator

import h5py
import hdf5plugin  # noqa: F401 -- registers Zstandard
import numpy as np

RESULT_PATTERN = "*_dcn.rtdc"
ROWS = 1000
"""Number of rows of a dataset that are read at once."""


def faults_of(path: pathlib.Path) -> list[str]:
    """Return what is wrong with a result that can be seen; empty if it is whole."""
    try:
        with h5py.File(path, "r", locking=False) as h5:
            return list(_faults(h5))
    except OSError as error:
        return [f"cannot be read: {error}"]


def _faults(h5: h5py.File) -> Iterator[str]:
    count = h5.attrs.get("experiment:event count")
    if not h5.attrs.get("pipeline:dcnum hash"):
        yield "no pipeline hash"
    if h5.attrs.get("pipeline:dcnum yield") != count:
        yield f"yield {h5.attrs.get('pipeline:dcnum yield')} is not the event count {count}"
    lengths = {name: len(dataset) for name, dataset in h5["events"].items()}
    if set(lengths.values()) != {count}:
        yield f"{count} events, lengths {lengths}"
    for dataset in h5["events"].values():
        dataset[:]


class Observer:
    """Looks at the results in some folders again and again: each must be whole and never change once it is there.

    Parameters
    ----------
    folders
        Where results appear.
    """

    def __init__(self, folders: Iterable[pathlib.Path]) -> None:
        self._folders = list(folders)
        self._seen: dict[pathlib.Path, tuple[int, int, int]] = {}
        self.faults: list[str] = []

    @property
    def count(self) -> int:
        """Number of results that were seen."""
        return len(self._seen)

    def look(self, when: str) -> None:
        """Examine what is new, and make sure that nothing else has changed."""
        there = {path: path.stat() for folder in self._folders for path in folder.rglob(RESULT_PATTERN)}
        stamps = {path: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in there.items()}
        for path in self._seen.keys() - stamps.keys():
            self.faults.append(f"{path.name} has vanished: {when}")
            del self._seen[path]
        for path, stamp in stamps.items():
            before = self._seen.get(path)
            if before is not None and before != stamp:
                self.faults.append(f"{path.name} has changed from {before} to {stamp}: {when}")
            if before != stamp:
                self.faults += [f"{path.name}: {fault}: {when}" for fault in faults_of(path)]
            self._seen[path] = stamp


def temporary_files(folders: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Return what a result under construction has left in folders."""
    return [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and (path.name.startswith(".") or path.name.endswith("~"))
    ]


def differences(ours: pathlib.Path, reference: pathlib.Path) -> list[str]:
    """Return where two results differ in anything but their logs and what tells the time."""
    with h5py.File(ours, "r", locking=False) as one, h5py.File(reference, "r", locking=False) as two:
        first, second = _contents(one), _contents(two)
        found = [f"{name}: only in one result" for name in sorted(first.keys() ^ second.keys())]
        common = sorted(first.keys() & second.keys())
        return [*found, *(f"{name}: differs" for name in common if first[name] != second[name])]


def _contents(h5: h5py.File) -> dict[str, object]:
    """Return attributes, and type, shape and digest of datasets, by their names."""
    contents: dict[str, object] = {f"@{name}": str(value) for name, value in h5.attrs.items()}

    def collect(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("logs/"):
            contents[name] = item.dtype.str, item.shape, _digest(item)

    h5.visititems(collect)
    return contents


def _digest(dataset: h5py.Dataset) -> str:
    """Return a digest of a dataset, which may be larger than the memory."""
    digest = hashlib.blake2b()
    for part in (slice(start, start + ROWS) for start in range(0, len(dataset), ROWS)) if dataset.shape else [()]:
        values = np.asarray(dataset[part])
        digest.update(json.dumps(values.tolist(), default=str).encode() if values.dtype == object else values.tobytes())
    return digest.hexdigest()
