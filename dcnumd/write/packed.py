"""Datasets for chunks that were packed by `pack_chunk`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import h5py
import numpy as np

from dcnumd.errors import ResultError
from dcnumd.write.writer import HDF5Writer

Item = tuple[str, np.dtype[Any], tuple[int, ...]]
"""Name of a dataset, dtype and shape of one item."""


class PackedDataset:
    """A new dataset that receives packed chunks by their number, in any order.

    Its properties are those of `HDF5Writer.require_feature`.

    Parameters
    ----------
    dataset
        An empty dataset with the filters with which the chunks are packed.
    """

    def __init__(self, dataset: h5py.h5d.DatasetID) -> None:
        self._dataset = dataset
        self.chunk_items, *self._item_shape = dataset.get_create_plist().get_chunk()
        """Number of items in a chunk."""
        self.length = 0
        self._numbers: set[int] = set()

    def write_chunk(self, number: int, packed: bytes | bytearray | memoryview, items: int | None = None) -> None:
        """Store one packed chunk.

        Parameters
        ----------
        number
            Number of the chunk along the first axis.
        packed
            Output of `pack_chunk`; the last chunk of a dataset is padded to its full size.
        items
            Number of items in it; None for a full chunk.
        """
        items = self.chunk_items if items is None else items
        start = number * self.chunk_items
        if start + items > self.length:
            self.length = start + items
            self._dataset.set_extent((self.length, *self._item_shape))
        self._dataset.write_direct_chunk((start, *(0 for _ in self._item_shape)), packed)
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
            path = h5py.h5f.get_name(self._dataset).decode()
            name = h5py.h5i.get_name(self._dataset).decode()
            raise ResultError(
                f"{path}: {name} has {self.length} items in {len(self._numbers)} chunks, "
                f"expected {length} in {expected}",
                reason="incomplete",
            )


def create_packed(writer: HDF5Writer, items: Iterable[Item], group_name: str = "events") -> list[PackedDataset]:
    """Create datasets for packed chunks.

    Parameters
    ----------
    writer
        The file; its `ds_kwds` must be those of `dataset_keywords` for the compression of the chunks.
    items
        The datasets.
    group_name
        Their group.

    Raises
    ------
    ResultError
        A dataset is not empty.
    """
    # h5py takes ten times as long to put the properties together as HDF5 to make the dataset
    properties: dict[tuple[np.dtype[Any], tuple[int, ...]], h5py.h5p.PropDCID] = {}
    datasets = []
    for name, dtype, item_shape in items:
        # images also get attributes; and what is there already is refused with its name
        slow = item_shape or name in writer.h5.require_group(group_name)
        known = None if slow else properties.get((dtype, item_shape))
        if known is None:
            dataset, length = writer.require_feature(name, item_shape, dtype, group_name=group_name)
            if length:
                raise ResultError(f"{writer.h5.filename}: {group_name}/{name} already has {length} items")
            properties[dtype, item_shape] = dataset.id.get_create_plist()
            datasets.append(PackedDataset(dataset.id))
        else:
            space = h5py.h5s.create_simple((0, *item_shape), (h5py.h5s.UNLIMITED, *item_shape))
            kind = h5py.h5t.py_create(dtype, logical=True)
            group = writer.h5.require_group(group_name)
            datasets.append(PackedDataset(h5py.h5d.create(group.id, name.encode(), kind, space, known)))
    return datasets
