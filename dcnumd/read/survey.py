"""Checks of everything that will be read of a file, before reading it: where it is and how large it is."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import TypeAlias

import h5py

from dcnumd.errors import MeasurementError
from dcnumd.read.limits import MAX_COPIED_BYTES, MAX_MEMBERS, check_members, check_storage, too_large
from dcnumd.read.open_file import damage_named, is_grave, member, open_measurement
from dcnumd.read.trust import Trust

EXTRAS = ("logs", "tables")
"""Groups that are copied to a result, but not needed by any computation."""
MAX_REFERENCES = 32
"""Largest number of links in a row."""

Item: TypeAlias = h5py.h5g.GroupID | h5py.h5d.DatasetID | h5py.h5t.TypeID


class Survey:
    """Checks datasets and groups of one file, following links one by one, also into other files.

    A path that was checked may be opened by its name: HDF5 then follows only links that were checked.

    Why not let HDF5 follow the links? It would open any file that a link names before its path could be checked.

    Parameters
    ----------
    h5
        The open file.
    trust
        Which other files may be read.

    Raises
    ------
    MeasurementError
        By each method, with the reason ``outside``, ``too_large``, ``damaged`` or ``unreadable``.
    """

    def __init__(self, h5: h5py.File, trust: Trust) -> None:
        self._h5 = h5
        self._where = h5.filename
        with damage_named(self._where, "the root group"):
            self._root = h5py.h5g.open(h5.id, b"/")
        self._trust = trust
        self._sizes: dict[str, int | None] = {}
        self._groups: dict[bytes, h5py.h5g.GroupID] = {}
        self._seen: set[tuple[pathlib.Path, str]] = set()
        self.faults: dict[str, MeasurementError] = {}
        """Errors of logs, tables and links to features, or of their groups, by path."""

    def check_copied(self) -> None:
        """Check everything that is read as a whole: basin definitions, logs and tables.

        Errors of logs and tables are recorded in `faults`, and raised only if `is_grave` is true for them.
        """
        with damage_named(self._where, "basins"):
            size = self._visit(self._root, b"basins", 0, members=True) or 0
        if size > MAX_COPIED_BYTES:
            raise too_large(self._where, "basins", size, MAX_COPIED_BYTES, "bytes")
        for group in EXTRAS:
            with self._recording_fault(group):
                for name in self._names(group):
                    with self._recording_fault(f"{group}/{name}"):
                        self.check(f"{group}/{name}")

    @contextlib.contextmanager
    def _recording_fault(self, path: str) -> Iterator[None]:
        try:
            with damage_named(self._where, path):
                yield
        except MeasurementError as error:
            if is_grave(error):
                raise
            self.faults[path] = error

    def extras(self, group: str) -> Iterator[tuple[str, h5py.Dataset]]:
        """Return names and datasets in one of the `EXTRAS`, without those in `faults`."""
        if group in self.faults:
            return
        for name in self._names(group):
            path = f"{group}/{name}"
            item = None if path in self.faults else member(self._h5, path)
            if isinstance(item, h5py.Dataset):
                yield name, item

    def check(self, path: str) -> bool:
        """Check the dataset or group with a path; return whether it exists."""
        if path not in self._sizes:
            with damage_named(self._where, path):
                self._sizes[path] = self._size(path.encode(errors="surrogateescape"))
        return self._sizes[path] is not None

    def _size(self, path: bytes) -> int | None:
        size = self._visit(self._root, path, 0, members=False)
        folder, _, name = path.rpartition(b"/")
        if size is None:
            # the groups above it were checked on the way
            group = member(self._h5, _text(folder) or "/")
            if isinstance(group, h5py.Group) and group.id.links.exists(name):
                raise MeasurementError(f"{self._where}: {_text(path)} is a link to nothing", reason="damaged")
        return size

    def _names(self, path: str) -> list[str]:
        """Return all names in a group; none when there is no such group."""
        group = member(self._h5, path) if self.check(path) else None
        if not isinstance(group, h5py.Group):
            return []
        return [name.decode(errors="surrogateescape") for name, _ in self._links(group.id, path)]

    def names(self, path: str) -> list[str]:
        """Return the names of all datasets in a group; none when there is no such group.

        Errors of links in it that are dangling or endless are recorded in `faults`.
        """
        group = member(self._h5, path) if self.check(path) else None
        if not isinstance(group, h5py.Group):
            return []
        with damage_named(self._where, path):
            links = [(name.decode(errors="surrogateescape"), kind) for name, kind in self._links(group.id, path)]
            return [name for name, kind in links if self._is_dataset(group.id, path, name, kind)]

    def _is_dataset(self, group: h5py.h5g.GroupID, path: str, name: str, kind: int) -> bool:
        place = f"{path}/{name}"
        if kind != h5py.h5l.TYPE_HARD:
            with self._recording_fault(place):
                self.check(place)
        item = name.encode(errors="surrogateescape")
        return place not in self.faults and isinstance(h5py.h5o.open(group, item), h5py.h5d.DatasetID)

    def _links(self, group: h5py.h5g.GroupID, name: str) -> list[tuple[bytes, int]]:
        """Return the names in a group, each with the type of its link."""
        check_members(group, self._where, name)
        links: list[tuple[bytes, int]] = []
        group.links.iterate(lambda member, info: links.append((member, info.type)), info=True)
        return links

    def _visit(self, place: h5py.h5g.GroupID, path: bytes, depth: int, *, members: bool) -> int | None:
        """Follow a path as HDF5 would and check its object; with `members`, also the members of a group.

        Returns the uncompressed size of the datasets [bytes]; None if the path does not exist.
        """
        place = self._root if path.startswith(b"/") else place
        head, _, rest = path.lstrip(b"/").partition(b"/")
        if head in {b"", b"."}:
            return (
                self._visit(place, rest, depth, members=members)
                if rest
                else self._inspect(place, path, depth, members=members)
            )
        if place is self._root and head in self._groups and rest:
            return self._visit(self._groups[head], rest, depth, members=members)
        if not place.links.exists(head):
            return None
        kind = place.links.get_info(head).type
        if kind != h5py.h5l.TYPE_HARD:
            return self._follow(place, head, rest, kind, depth + 1, members=members)
        item = h5py.h5o.open(place, head)
        if place is self._root and isinstance(item, h5py.h5g.GroupID):
            self._groups[head] = item
        if rest.strip(b"/"):
            return self._visit(item, rest, depth, members=members) if isinstance(item, h5py.h5g.GroupID) else None
        return self._inspect(item, head, depth, members=members)

    def _follow(
        self, place: h5py.h5g.GroupID, head: bytes, rest: bytes, kind: int, depth: int, *, members: bool
    ) -> int | None:
        """Follow a soft or external link."""
        name = _text(head)
        if depth > MAX_REFERENCES:
            raise MeasurementError(f"{self._where}: {name} is a link without an end", reason="damaged")
        if kind == h5py.h5l.TYPE_SOFT:
            target = place.links.get_val(head)
            return self._visit(place, target + b"/" + rest, depth, members=members)
        if kind == h5py.h5l.TYPE_EXTERNAL:
            file, target = place.links.get_val(head)
            path = self._beside(file)
            self._require(path, f"external link {name}")
            return self._visit_in(path, target + b"/" + rest, depth, members=members)
        raise MeasurementError(f"{self._where}: {name} is a link of unknown type {kind}", reason="damaged")

    def _visit_in(self, path: pathlib.Path, target: bytes, depth: int, *, members: bool) -> int | None:
        with open_measurement(path) as h5, damage_named(path, _text(target)):
            other = Survey(h5, self._trust)
            other._seen = self._seen
            return other._visit(other._root, target, depth, members=members)

    def _inspect(self, item: Item, name: bytes, depth: int, *, members: bool) -> int:
        if isinstance(item, h5py.h5d.DatasetID):
            return self._dataset(item, name, depth)
        if members and isinstance(item, h5py.h5g.GroupID):
            return self._members(item, name, depth)
        return 0

    def _members(self, group: h5py.h5g.GroupID, name: bytes, depth: int) -> int:
        size = 0
        for entry, kind in self._links(group, _text(name)):
            if kind == h5py.h5l.TYPE_HARD:
                size += self._inspect(h5py.h5o.open(group, entry), name + b"/" + entry, depth, members=False)
            else:
                size += self._follow(group, entry, b"", kind, depth + 1, members=False) or 0
        return size

    def _dataset(self, dataset: h5py.h5d.DatasetID, name: bytes, depth: int) -> int:
        label = _text(name)
        size = check_storage(dataset, self._where, label)
        properties = dataset.get_create_plist()
        for index in range(properties.get_external_count()):
            file = properties.get_external(index)[0]
            # unlike the targets of links, these are relative to the working folder
            self._require(pathlib.Path.cwd() / os.fsdecode(file), f"external storage of {label}")
        if properties.get_layout() == h5py.h5d.VIRTUAL:
            self._virtual(properties, label, depth + 1)
        return size

    def _virtual(self, properties: h5py.h5p.PropDCID, name: str, depth: int) -> None:
        """Check all sources of a virtual dataset."""
        count = properties.get_virtual_count()
        if depth > MAX_REFERENCES or count > MAX_MEMBERS:
            raise too_large(self._where, f"virtual dataset {name}", count, MAX_MEMBERS, "sources")
        for file, target in {
            (properties.get_virtual_filename(index), properties.get_virtual_dsetname(index)) for index in range(count)
        }:
            if "%" not in file + target:
                self._source(file, target, name, depth)
            elif self._trust.folders is not None:
                # HDF5 replaces %b by block numbers, so the names of the files are unknown here
                raise MeasurementError(
                    f"{self._where}: virtual dataset {name} has sources {file}:{target}, which cannot be judged",
                    reason="outside",
                )

    def _source(self, file: str, target: str, name: str, depth: int) -> None:
        """Check a source of a virtual dataset."""
        own = file == "."
        path = pathlib.Path(self._where) if own else self._beside(file.encode(errors="surrogateescape"))
        if (path, target) in self._seen:
            return
        self._seen.add((path, target))
        item = target.encode(errors="surrogateescape")
        if own:
            self._visit(self._root, item, depth, members=False)
        else:
            self._require(path, f"virtual dataset {name}")
            self._visit_in(path, item, depth, members=False)

    def _beside(self, file: bytes) -> pathlib.Path:
        """Return where HDF5 searches first for a file that the measurement names."""
        return pathlib.Path(self._where).absolute().parent / os.fsdecode(file)

    def _require(self, path: pathlib.Path, what: str) -> None:
        self._trust.require(path, self._where, what)
        # for a missing file, HDF5 would continue its search in other folders
        if not path.is_file():
            raise MeasurementError(f"{self._where}: {what} leads to {path}, which is no file", reason="damaged")


def _text(name: bytes) -> str:
    return name.decode(errors="replace")
