"""Datasets whose chunks were packed elsewhere, or are packed here without HDF5's filters."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from dcnumd.errors import ResultError
from dcnumd.write.pack import best_chunk_items, pack_column
from dcnumd.write.writer import HDF5Writer


class PackedDataset:
    """A new dataset that takes packed chunks, in any order, by their number.

    The dataset has the properties that `HDF5Writer.require_feature` gives; its chunks are those of `pack_chunk`.

    Parameters
    ----------
    writer
        The file, whose `ds_kwds` must be those of `dataset_keywords` at the level the chunks are packed with.
    feature, group_name
        Name of the dataset and its group.
    item_shape, dtype
        Shape and type of one item.
    """

    def __init__(
        self,
        writer: HDF5Writer,
        feature: str,
        item_shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        group_name: str = "events",
    ) -> None:
        self.dataset, length = writer.require_feature(feature, item_shape, dtype, group_name=group_name)
        if length:
            raise ResultError(f"{writer.h5.filename}: {group_name}/{feature} already has {length} items")
        self.chunk_items: int = self.dataset.chunks[0]
        """Number of items in a chunk."""
        self.length = 0
        self._numbers: set[int] = set()
        self._zeros = (0,) * len(item_shape)

    def write_chunk(self, number: int, packed: bytes | bytearray | memoryview, items: int | None = None) -> None:
        """Store one packed chunk.

        Parameters
        ----------
        number
            Number of the chunk along the first axis.
        packed
            What `pack_chunk` made of it; the last chunk of a dataset padded to its full size.
        items
            Number of items in it; None: as many as a chunk holds.
        """
        items = self.chunk_items if items is None else items
        start = number * self.chunk_items
        if start + items > self.length:
            self.length = start + items
            self.dataset.resize(self.length, axis=0)
        self.dataset.id.write_direct_chunk((start, *self._zeros), packed)
        self._numbers.add(number)

    def finish(self, length: int) -> None:
        """Make sure that the dataset has `length` items and that every chunk was written.

        Raises
        ------
        ResultError
            Reason ``incomplete``.
        """
        expected = -(-length // self.chunk_items)
        if self.length != length or len(self._numbers) != expected:
            raise ResultError(
                f"{self.dataset.file.filename}: {self.dataset.name} has {self.length} items in {len(self._numbers)} "
                f"chunks, expected {length} in {expected}",
                reason="incomplete",
            )


class ColumnWriter:
    """Writes scalar features quickly: chunks are packed without HDF5, dataset properties are made once per type.

    Parameters
    ----------
    writer
        The file.
    level
        Zstandard level, None: not compressed; must agree with the `ds_kwds` of `writer`.
    """

    def __init__(self, writer: HDF5Writer, level: int | None) -> None:
        self._writer = writer
        self._level = level
        self._properties: dict[np.dtype[Any], h5py.h5p.PropDCID] = {}

    def write_columns(self, columns: Mapping[str, npt.NDArray[Any]], executor: Executor | None = None) -> None:
        """Write several scalar features of ``events``, each of shape (events,).

        Compression is most of the work; with an `executor` of threads it happens beside the writing.
        """
        levels = itertools.repeat(self._level)
        packed = (map if executor is None else executor.map)(pack_column, columns.values(), levels)
        for (name, column), chunks in zip(columns.items(), packed, strict=True):
            self.write_packed(name, column.dtype, column.size, chunks)

    def write_column(self, name: str, column: npt.NDArray[Any]) -> None:
        """Write one scalar feature of shape (events,) as the new dataset ``events/<name>``."""
        self.write_packed(name, column.dtype, column.size, pack_column(column, self._level))

    def write_packed(self, name: str, dtype: np.dtype[Any], length: int, chunks: Sequence[bytes]) -> None:
        """Write one scalar feature of `length` events from the chunks that `pack_column` made of it."""
        dataset = self._create(name, dtype, length)
        items = best_chunk_items(dtype.itemsize)
        for number, chunk in enumerate(chunks):
            dataset.write_direct_chunk((number * items,), chunk)

    def _create(self, name: str, dtype: np.dtype[Any], length: int) -> h5py.h5d.DatasetID:
        """Create a dataset of its final length with the same properties as all others of its type."""
        if dtype not in self._properties:
            dataset, _ = self._writer.require_feature(name, (), dtype)
            dataset.resize(length, axis=0)
            self._properties[dtype] = dataset.id.get_create_plist()
            return dataset.id
        space = h5py.h5s.create_simple((length,), (h5py.h5s.UNLIMITED,))
        kind = h5py.h5t.py_create(dtype, logical=True)
        return h5py.h5d.create(self._writer.events.id, name.encode(), kind, space, self._properties[dtype])
