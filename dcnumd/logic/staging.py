"""Staging units: shared buffers of one output chunk each, in which events wait for packing.

Events are copied here in their final order. A slot is therefore free as soon as its frames are committed, and a worker
that packs a chunk finds it contiguous in memory.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.logic.mask_bits import mask_dtype
from dcnumd.shared_memory.block import SharedBlock
from dcnumd.write.chunk_size import best_chunk_items
from dcnumd.write.pack import packed_size_bound

ALIGNMENT = 64
"""Alignment of buffers [bytes], the size of a cache line."""


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """One dataset of the result: its name, and the dtype and shape of an item, one per event."""

    name: str
    dtype: np.dtype[Any]
    item_shape: tuple[int, ...] = ()

    @property
    def item_size(self) -> int:
        """Size of an item [bytes]."""
        return self.dtype.itemsize * math.prod(self.item_shape)

    @property
    def is_mask(self) -> bool:
        """Whether items are masks, which are drawn only when they are packed."""
        return self.name == "mask"

    @property
    def staged(self) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Type and shape of an item that waits for packing."""
        return (mask_dtype(self.item_shape), ()) if self.is_mask else (self.dtype, self.item_shape)


@dataclasses.dataclass(frozen=True)
class StagingLayout:
    """Picklable description of the buffers: one raw and one packed chunk for each unit and kind."""

    block: SharedBlock
    kinds: tuple[Kind, ...]
    units: int

    @functools.cached_property
    def chunk_items(self) -> int:
        """Number of events in a chunk, the same for all kinds."""
        return best_chunk_items(max(kind.item_size for kind in self.kinds))

    def _offsets(self) -> list[int]:
        """Return the positions of the buffers in a unit, raw and packed alternating, followed by the size of a unit."""
        sizes = []
        for kind in self.kinds:
            dtype, item_shape = kind.staged
            sizes.append(self.chunk_items * dtype.itemsize * math.prod(item_shape))
            sizes.append(packed_size_bound(self.chunk_items * kind.item_size))
        return list(itertools.accumulate((-(-size // ALIGNMENT) * ALIGNMENT for size in sizes), initial=0))

    @property
    def size(self) -> int:
        """Size of all buffers together [bytes]."""
        return self.units * self._offsets()[-1]

    def buffers(self) -> list[list[Buffers]]:
        """Return the buffers of each unit and kind."""
        offsets = self._offsets()
        return [
            [
                Buffers(
                    self._raw(unit * offsets[-1] + raw, kind),
                    self.block.array(unit * offsets[-1] + packed, (end - packed,), np.uint8),
                )
                for kind, raw, packed, end in zip(self.kinds, offsets[::2], offsets[1::2], offsets[2::2], strict=False)
            ]
            for unit in range(self.units)
        ]

    def _raw(self, position: int, kind: Kind) -> npt.NDArray[Any]:
        dtype, item_shape = kind.staged
        return self.block.array(position, (self.chunk_items, *item_shape), dtype)


@dataclasses.dataclass(frozen=True, slots=True)
class Buffers:
    """The buffers for one chunk of one dataset."""

    raw: npt.NDArray[Any]
    """Items of the chunk, shape (item, …); masks as described by `Kind.staged`."""
    packed: npt.NDArray[np.uint8]
    """Packed chunk, uint8 (byte,)."""


@dataclasses.dataclass(frozen=True, slots=True)
class FullUnit:
    """A unit that can be packed: its first `items` items are chunk number `chunk` of each dataset."""

    unit: int
    items: int
    chunk: int


class Staging:
    """Staging units in memory that is kept from file to file."""

    def __init__(self) -> None:
        self._block = SharedBlock(1)

    def prepare(self, kinds: Sequence[Kind], units: int) -> None:
        """Divide the memory into units for some datasets.

        Parameters
        ----------
        kinds
            The datasets, all of which have the same number of items in a chunk.
        units
            Number of output chunks that can be filled or packed at the same time.
        """
        layout = StagingLayout(self._block, tuple(kinds), units)
        self._block.grow(layout.size)
        self.layout = layout
        self.buffers = layout.buffers()
        self.full: collections.deque[FullUnit] = collections.deque()
        self._free = collections.deque(range(units))
        self._unit: int | None = None
        self._fill = 0
        self._chunk = 0

    def stage(self, first: int, count: int, copy: Callable[[list[Buffers], int, slice], None]) -> int:
        """Copy events to units until all units are full.

        Parameters
        ----------
        first
            Index of the first event.
        count
            Index after the last event.
        copy
            Called with the buffers of a unit, a position in them, and the slice of events to copy there.

        Returns
        -------
        stop
            Index of the first event that was not copied; `count` if all were.
        """
        while first < count:
            if self._unit is None:
                if not self._free:
                    break
                self._unit, self._fill = self._free.popleft(), 0
            stop = min(first + self.layout.chunk_items - self._fill, count)
            copy(self.buffers[self._unit], self._fill, slice(first, stop))
            self._fill += stop - first
            first = stop
            if self._fill == self.layout.chunk_items:
                self.close_unit()
        return first

    def close_unit(self) -> None:
        """Mark the unit that is being filled as full."""
        if self._unit is not None:
            self.full.append(FullUnit(self._unit, self._fill, self._chunk))
            self._unit = None
            self._chunk += 1

    def trim(self) -> None:
        """Free memory that an earlier file needed and this one does not."""
        self._block.trim(self.layout.size)

    def release(self, unit: int) -> None:
        """Make a unit available again after it was packed and written."""
        self._free.append(unit)
