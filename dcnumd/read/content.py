"""Digest of a measurement's content: two files with the same digest give the same result.

The digest covers the attributes of the root and every dataset that a result contains or depends on. For compressed
chunks that end in a checksum, the digest covers the checksum instead of the chunk, which saves reading all images.
Data without a checksum are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from dcnumd.errors import MeasurementError
from dcnumd.read.chunk_layout import FLETCHER32, GZIP, SHUFFLE, ZSTANDARD, Filter
from dcnumd.read.chunk_table import dataset_filters
from dcnumd.read.frame_features import FRAME_SCALARS
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.read.image_stack import ImageStack
from dcnumd.read.index_mapping import Indices
from dcnumd.read.limits import has_variable_length
from dcnumd.read.open_file import HDF5_FAULTS, damage_named, unreadable

BLOCK_BYTES = 2**24
"""Largest number of bytes of a file that are read at once."""
ROWS_PER_BLOCK = 256
"""Number of items of variable length that are read at once."""
TAIL_BYTES = 256
"""Number of bytes that are read at the end of a compressed chunk. The last 4 are a checksum: fletcher32, or the
Adler-32 that ends zlib data. The bytes before it cost nothing extra and make collisions less likely."""
CHECKED_CHAINS = ([GZIP], [GZIP, FLETCHER32], [FLETCHER32, GZIP], [ZSTANDARD, FLETCHER32])
"""Filter chains, in writing order and after any shuffle, whose chunks end in a sufficient checksum. Weaker compressors
such as lzf and lz4 copy too many values unchanged, for which fletcher32 is not enough, see `ends_in_checksum`."""
GROUPS = ("events", "basin_events", "logs", "tables", "basins")
"""Groups whose datasets are digested. Groups inside them are not: no result contains their data."""
UNREADABLE = b"cannot be read"
"""Digested in place of damaged data."""


def content_digest(data: HDF5Data) -> str:
    """Return the digest of a measurement and of its data in basins (BLAKE2b, 32 hexadecimal digits).

    The layout of the file, such as the order of chunks, does not change the digest.

    Parameters
    ----------
    data
        The measurement; its index mapping does not change the digest.

    Raises
    ------
    MeasurementError
        The file is temporarily unreadable. Damaged data do not raise an error: they are digested as damaged.
    """
    with contextlib.closing(_Digest()) as digest:
        digest.add_attributes(data.h5)
        for group in (*GROUPS, *_basin_groups(data)):
            digest.add_group(data, group)
        for name, stack in _elsewhere(data):
            digest.add_dataset(f"basin {name}", stack.dataset)
            digest.add_positions(stack.indices)
        return digest.text


def files_of(data: HDF5Data) -> tuple[pathlib.Path, ...]:
    """Return the other files that contain data of a measurement, or that refer to such files."""
    files = {stack.dataset.file.filename for _, stack in _elsewhere(data)}
    return tuple(sorted({*map(pathlib.Path, files), *data.basin_files}))


def _basin_groups(data: HDF5Data) -> list[str]:
    """Return the groups of internal basins that are not in `GROUPS`."""
    try:
        basins = data.basins
    except MeasurementError as error:
        if error.transient:
            raise
        # Unreadable definitions provide no basins. They are digested with the group "basins".
        return []
    # an empty name also means the root
    named = {path or "/" for basin in basins if basin.kind == "internal" for path in basin.paths}
    return sorted(named.difference(GROUPS))


def _elsewhere(data: HDF5Data) -> Iterator[tuple[str, ImageStack]]:
    """Yield names and data of the features that a measurement has in other files."""
    own = data.h5.filename
    for feature in ("image", "image_bg", *FRAME_SCALARS):
        try:
            stack = data.find(feature, mapped=False)
        except MeasurementError as error:
            if error.transient:
                raise
            continue
        if stack is not None and stack.dataset.file.filename != own:
            yield feature, stack


class _Digest:
    """Computes a digest step by step; keeps the files open that it reads from."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._descriptors: dict[str, int] = {}
        self._positions: Indices | None = None

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    @property
    def text(self) -> str:
        return self._hash.hexdigest()

    def add_group(self, data: HDF5Data, group: str) -> None:
        """Add all datasets in a group of a measurement, in the order of their names."""
        for path in [f"{group}/{name}" for name in sorted(self._named(data, group))]:
            try:
                dataset = data.stored(path)
            except MeasurementError as error:
                self._note_damage(path, error)
            else:
                if dataset is not None:
                    self.add_dataset(path, dataset)

    def add_attributes(self, item: h5py.File | h5py.Dataset) -> None:
        """Add all attributes of an object, in the order of their names."""
        with damage_named(item.file.filename, "an attribute"):
            names = sorted(item.attrs, key=_stored_name)
        for name in names:
            try:
                value = _canonical(item.attrs[name])
            except HDF5_FAULTS:
                value = UNREADABLE
            self._add(_stored_name(name), value)

    def add_dataset(self, name: str, dataset: h5py.Dataset) -> None:
        """Add a dataset: its type, shape and filters, its attributes, and its data."""
        filters = dataset_filters(dataset)
        layout = f"{dataset.shape} {dataset.chunks} {filters}"
        self._add(_stored_name(name), dataset.id.get_type().encode(), layout.encode())
        self.add_attributes(dataset)
        properties = dataset.id.get_create_plist()
        if (
            has_variable_length(dataset.id.get_type())
            or properties.get_layout() in {h5py.h5d.VIRTUAL, h5py.h5d.COMPACT}
            or dataset.external
        ):
            self._add_values(dataset)
        elif dataset.chunks is not None:
            self._add_chunks(dataset, filters)
        elif (offset := dataset.id.get_offset()) is not None:
            h5 = dataset.file
            self._add_stored(h5.filename, h5.userblock_size + offset, dataset.id.get_storage_size())
        elif dataset.size:
            self._add_fill_value(dataset)

    def add_positions(self, positions: Indices | None) -> None:
        """Add the positions in a dataset of the measurement's events, after all mappings; None for all events."""
        if positions is None:
            self._add(b"all")
        elif self._positions is not None and np.array_equal(positions, self._positions):
            # most features have the same mapping, and comparing is faster than hashing
            self._add(b"as before")
        else:
            self._add(positions.tobytes())
            self._positions = positions

    def _named(self, data: HDF5Data, group: str) -> list[str]:
        try:
            return data.stored_names(group)
        except MeasurementError as error:
            self._note_damage(group, error)
            return []

    def _note_damage(self, path: str, error: MeasurementError) -> None:
        if error.transient:
            raise error
        self._add(_stored_name(path), UNREADABLE)

    def _add(self, *parts: bytes) -> None:
        for part in parts:
            # the length first, so that b"ab", b"c" and b"a", b"bc" differ
            self._hash.update(len(part).to_bytes(8, "little"))
            self._hash.update(part)

    def _add_chunks(self, dataset: h5py.Dataset, filters: tuple[Filter, ...]) -> None:
        chunks: list[h5py.h5d.StoreInfo] = []
        h5 = dataset.file
        # asking h5py for these takes longer than reading the end of a chunk
        filename, userblock_size = h5.filename, h5.userblock_size
        if h5.mode != "r":
            h5.flush()
        try:
            dataset.id.chunk_iter(chunks.append)
        except HDF5_FAULTS:
            self._add(UNREADABLE)
        chunks.sort(key=lambda chunk: chunk.chunk_offset)
        table = [(*chunk.chunk_offset, chunk.size, chunk.filter_mask) for chunk in chunks]
        self._add(np.array(table, np.int64).tobytes())
        unpacked = math.prod(dataset.chunks) * dataset.id.get_type().get_size()
        checked = {mask: ends_in_checksum(filters, mask) for mask in {chunk.filter_mask for chunk in chunks}}
        for chunk in chunks:
            size = chunk.size
            # a chunk that is not smaller than its values is a copy of them
            length = min(size, TAIL_BYTES) if size < unpacked and checked[chunk.filter_mask] else size
            self._add_stored(filename, userblock_size + chunk.byte_offset + size - length, length)
        grid = (-(-length // step) for length, step in zip(dataset.shape, dataset.chunks, strict=True))
        if len(chunks) < math.prod(grid):
            self._add_fill_value(dataset)

    def _add_fill_value(self, dataset: h5py.Dataset) -> None:
        """Add the value that HDF5 returns for chunks that were never written."""
        try:
            self._add(_canonical(dataset.fillvalue))
        except HDF5_FAULTS:
            self._add(UNREADABLE)

    def _add_stored(self, filename: str, start: int, size: int) -> None:
        """Add bytes of a file unchanged, up to the end of the file."""
        descriptor, end = self._open(filename), start + size
        while start < end:
            try:
                part = os.pread(descriptor, min(BLOCK_BYTES, end - start), start)
            except OSError as error:
                raise unreadable(filename, error) from error
            if not part:
                break
            self._hash.update(part)
            start += len(part)

    def _add_values(self, dataset: h5py.Dataset) -> None:
        """Add the values of a dataset as HDF5 returns them, where the stored bytes alone do not determine them."""
        try:
            for block in _blocks(dataset):
                self._add(_canonical(block))
        except HDF5_FAULTS:
            self._add(UNREADABLE)

    def _open(self, filename: str) -> int:
        if filename not in self._descriptors:
            try:
                self._descriptors[filename] = os.open(filename, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise unreadable(filename, error) from error
        return self._descriptors[filename]


def ends_in_checksum(filters: tuple[Filter, ...], filter_mask: int) -> bool:
    """Return whether a chunk ends in a checksum of compressed data.

    A checksum of values that are merely copied, reordered or truncated to fewer bits is not sufficient: fletcher32
    cannot tell two zero bytes from two bytes of 255.
    """
    applied = [code for position, (code, _) in enumerate(filters) if not filter_mask >> position & 1]
    return list(itertools.dropwhile(SHUFFLE.__eq__, applied)) in CHECKED_CHAINS


def _blocks(dataset: h5py.Dataset) -> Iterator[npt.NDArray[Any] | object]:
    """Yield the values of a dataset in blocks."""
    if not dataset.shape:
        yield dataset[()]
        return
    row = max(1, dataset.dtype.itemsize * int(np.prod(dataset.shape[1:])))
    rows = ROWS_PER_BLOCK if dataset.dtype.hasobject else max(1, BLOCK_BYTES // row)
    for start in range(0, len(dataset), rows):
        yield dataset[start : start + rows]


def _canonical(value: object) -> bytes:
    """Return type, shape and values of an object from h5py as bytes."""
    if isinstance(value, h5py.Empty):
        return f"empty {value.dtype}".encode()
    array = np.asarray(value)
    if array.dtype.hasobject:
        return ascii(_listed(array)).encode()
    return f"{array.dtype.str} {array.shape} ".encode() + array.tobytes()


def _listed(value: object) -> object:
    """Return arrays as lists, because the text of a long array omits its middle."""
    if isinstance(value, np.ndarray):
        return [value.dtype.str, _listed(value.tolist())]
    if isinstance(value, list | tuple):
        return [_listed(item) for item in value]
    return value


def _stored_name(name: str | bytes) -> bytes:
    return name if isinstance(name, bytes) else name.encode(errors="surrogateescape")
