"""Results on disk: whole or not there, and equal to one another."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Iterator

import h5py
import hdf5plugin  # noqa: F401 -- registers Zstandard
import numpy as np

RESULT_PATTERN = "*_dcn.rtdc"


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
        names = sorted(first.keys() ^ second.keys())
        found = [f"{name}: only in one result" for name in names]
        for name in sorted(first.keys() & second.keys()):
            left, right = first[name], second[name]
            if left.dtype != right.dtype or left.shape != right.shape or left.tobytes() != right.tobytes():
                found.append(f"{name}: differs")
        return found


def _contents(h5: h5py.File) -> dict[str, np.ndarray]:
    """Return datasets and attributes by their names."""
    contents = {f"@{name}": np.asarray(str(value)) for name, value in h5.attrs.items()}

    def collect(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("logs/"):
            values = item[()]
            contents[name] = np.asarray(json.dumps(values.tolist(), default=str)) if values.dtype == object else values

    h5.visititems(collect)
    return contents
