"""Array-like views of events on disk, with index mappings applied."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from dcnumd.errors import MeasurementError
from dcnumd.read.basin import Basin
from dcnumd.read.index_mapping import Indices
from dcnumd.read.open_file import damage_named

Array = npt.NDArray[Any]
Selection = int | np.integer | slice | list[int] | npt.NDArray[Any]


class ImageStack:
    """Events of one HDF5 dataset as an array; indexing reads from the file.

    Parameters
    ----------
    dataset
        HDF5 dataset, first axis events.
    indices
        Position in `dataset` of every event of the stack; None: all events in order.
    as_bool
        Return ``value != 0`` (masks are stored as 0 and 255).
    where
        Path of the file, for messages.
    basin
        The internal basin that `dataset` belongs to; None without one.
    count
        Number of events from the first on, if `indices` is None; None for all.
    """

    def __init__(
        self,
        dataset: h5py.Dataset,
        indices: Indices | None = None,
        *,
        as_bool: bool = False,
        where: str = "",
        basin: Basin | None = None,
        count: int | None = None,
    ) -> None:
        self.dataset = dataset
        self.indices = indices
        self.where = where or dataset.file.filename
        self.basin = basin
        self._as_bool = as_bool
        self._count = count
        if indices is not None and indices.size:
            first, last = int(indices.min()), int(indices.max())
            if first < 0 or last >= dataset.shape[0]:
                raise MeasurementError(
                    f"{self.where}: {dataset.name} has {dataset.shape[0]} events, but event "
                    f"{first if first < 0 else last} is referred to",
                    reason="event_count",
                )

    def __len__(self) -> int:
        if self.indices is not None:
            return int(self.indices.size)
        stored = int(self.dataset.shape[0])
        return stored if self._count is None else min(self._count, stored)

    def first(self, count: int) -> ImageStack:
        """Return the first events of this stack."""
        indices = None if self.indices is None else self.indices[:count]
        return ImageStack(self.dataset, indices, as_bool=self._as_bool, where=self.where, basin=self.basin, count=count)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of events, then the shape of one event."""
        return (len(self), *self.dataset.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the returned values."""
        return np.dtype(bool) if self._as_bool else self.dataset.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Chunk shape on disk, None when contiguous."""
        chunks: tuple[int, ...] | None = self.dataset.chunks
        return chunks

    @property
    def attrs(self) -> h5py.AttributeManager:
        """Attributes of the dataset."""
        return self.dataset.attrs

    def __getitem__(self, selection: Selection | tuple[Any, ...]) -> Array:
        if isinstance(selection, tuple):
            first, rest = selection[0], selection[1:]
            frames = self[first]
            return frames[rest] if isinstance(first, int | np.integer) else frames[(slice(None), *rest)]
        if isinstance(selection, int | np.integer):
            return self._read_one(int(selection))
        if isinstance(selection, slice):
            return self._read_slice(selection)
        chosen = np.asarray(selection)
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen)
        return self._gather(self._positions(chosen.astype(np.int64)))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        array = self[:]
        return array if dtype is None else array.astype(dtype)

    def _read_one(self, index: int) -> Array:
        position = int(self._positions(np.array([index]))[0])
        return self._convert(self._read(position))

    def _read_slice(self, selection: slice) -> Array:
        if self.indices is not None:
            return self._gather(self.indices[selection])
        start, stop, step = selection.indices(len(self))
        if step < 0:
            return self._gather(np.arange(start, stop, step))
        return self._convert(self._read(slice(start, stop, step)))

    def _positions(self, chosen: Indices) -> Indices:
        length = len(self)
        wrong = chosen[(chosen < -length) | (chosen >= length)]
        if wrong.size:
            raise IndexError(f"{self.where}: event {wrong[0]} of {length} events in {self.dataset.name}")
        chosen = np.where(chosen < 0, chosen + length, chosen)
        return chosen if self.indices is None else self.indices[chosen]

    def _gather(self, positions: Indices) -> Array:
        """Read events in any order, with repetitions; neighbouring events are read together."""
        out = np.empty((positions.size, *self.dataset.shape[1:]), self.dataset.dtype)
        if not positions.size:
            return self._convert(out)
        # HDF5 requires ascending, unique positions. A dense selection is faster read as one block.
        unique, inverse = np.unique(positions, return_inverse=True)
        first, last = int(unique[0]), int(unique[-1]) + 1
        if last - first <= 4 * unique.size:
            block = self._read(slice(first, last))
            np.take(block, positions - first, axis=0, out=out)
            return self._convert(out)
        block = np.empty((unique.size, *self.dataset.shape[1:]), self.dataset.dtype)
        breaks = np.flatnonzero(np.diff(unique) != 1) + 1
        for run in np.split(np.arange(unique.size), breaks):
            block[run[0] : run[-1] + 1] = self._read(slice(int(unique[run[0]]), int(unique[run[-1]]) + 1))
        np.take(block, inverse, axis=0, out=out)
        return self._convert(out)

    def _read(self, selection: int | slice) -> Array:
        with damage_named(self.where, self.dataset.name):
            array: Array = self.dataset[selection]
        return array

    def _convert(self, array: Array) -> Array:
        return array != 0 if self._as_bool else array
