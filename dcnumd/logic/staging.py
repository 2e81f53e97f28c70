"""Where events wait for being packed: shared buffers of one output chunk each.

Events are copied here in their final order, frame after frame, so that a slot is free again as soon as its
frames are committed, and so that a worker that packs a chunk finds it in one piece.
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

from dcnumd.shared_memory.block import SharedBlock
from dcnumd.write.chunk_size import best_chunk_items
from dcnumd.write.pack import packed_size_bound

ALIGNMENT = 64
"""Bytes; buffers begin at multiples of a cache line."""


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """One dataset of the result: its name, and the type and shape of what it has for each event."""

    name: str
    dtype: np.dtype[Any]
    item_shape: tuple[int, ...] = ()

    @property
    def item_size(self) -> int:
        """Bytes of an item."""
        return self.dtype.itemsize * math.prod(self.item_shape)


@dataclasses.dataclass(frozen=True)
class StagingLayout:
    """Picklable description of the buffers: for each unit and each kind, room for a raw and a packed chunk."""

    block: SharedBlock
    kinds: tuple[Kind, ...]
    units: int

    @functools.cached_property
    def chunk_items(self) -> int:
        """Number of events in a chunk, the same for all kinds."""
        return best_chunk_items(max(kind.item_size for kind in self.kinds))

    def _offsets(self) -> list[int]:
        """Return where in a unit the buffers begin, raw and packed in turn; the last number is a unit's size."""
        raw_sizes = [self.chunk_items * kind.item_size for kind in self.kinds]
        sizes = [size for raw in raw_sizes for size in (raw, packed_size_bound(raw))]
        return list(itertools.accumulate((-(-size // ALIGNMENT) * ALIGNMENT for size in sizes), initial=0))

    @property
    def size(self) -> int:
        """Bytes of all buffers together."""
        return self.units * self._offsets()[-1]

    def buffers(self) -> list[list[Buffers]]:
        """Return the buffers of each unit and kind."""
        offsets = self._offsets()
        return [
            [
                Buffers(
                    self.block.array(unit * offsets[-1] + raw, (self.chunk_items, *kind.item_shape), kind.dtype),
                    self.block.array(unit * offsets[-1] + packed, (end - packed,), np.uint8),
                )
                for kind, raw, packed, end in zip(self.kinds, offsets[::2], offsets[1::2], offsets[2::2], strict=False)
            ]
            for unit in range(self.units)
        ]


@dataclasses.dataclass(frozen=True, slots=True)
class Buffers:
    """Room for one chunk of one dataset."""

    raw: npt.NDArray[Any]
    """The items (item, …)."""
    packed: npt.NDArray[np.uint8]
    """What is made of them, uint8 (byte,)."""


@dataclasses.dataclass(frozen=True, slots=True)
class FullUnit:
    """A unit that can be packed: its first `items` items are chunk number `chunk` of each dataset."""

    unit: int
    items: int
    chunk: int


class Staging:
    """A ring of staging units in memory that is kept from file to file."""

    def __init__(self) -> None:
        self._block = SharedBlock(1)

    def prepare(self, kinds: Sequence[Kind], units: int) -> None:
        """Lay the memory out for some datasets.

        Parameters
        ----------
        kinds
            The datasets, all of which get the same number of items in a chunk.
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
        """Put events into units, as far as there is room.

        Parameters
        ----------
        first, count
            The events, counted within whatever the caller has at hand.
        copy
            Called with the buffers of a unit, the position in it, and the slice of events that go there.

        Returns
        -------
        stop
            The first event for which there was no room; `count` when all are in.
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
        """Have the unit that is being filled packed as it is."""
        if self._unit is not None:
            self.full.append(FullUnit(self._unit, self._fill, self._chunk))
            self._unit = None
            self._chunk += 1

    def trim(self) -> None:
        """Give memory back that an earlier file needed and this one does not."""
        self._block.trim(self.layout.size)

    def release(self, unit: int) -> None:
        """Note that all of a unit is packed and written."""
        self._free.append(unit)
