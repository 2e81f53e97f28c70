"""Where events wait for being packed: shared buffers of one output chunk each.

Events are copied here in their final order, frame after frame, so that a slot is free again as soon as its
frames are committed, and so that a worker that packs a chunk finds it in one piece.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dcnumd.logic.chunk_slot_data import SharedBlock
from dcnumd.logic.kernels_staging import copy_frames, draw_masks
from dcnumd.write.pack import packed_size_bound


@dataclasses.dataclass(frozen=True)
class StagingLayout:
    """Picklable description of the buffers: for each unit and each kind, room for a raw and a packed chunk."""

    block: SharedBlock
    kinds: tuple[str, ...]
    chunk_shape: tuple[int, int, int]
    units: int

    @property
    def raw_size(self) -> int:
        """Bytes of a raw chunk."""
        items, height, width = self.chunk_shape
        return items * height * width

    def _offset(self, unit: int, kind: int) -> int:
        return (unit * len(self.kinds) + kind) * (self.raw_size + packed_size_bound(self.raw_size))

    def raw(self, unit: int, kind: int) -> npt.NDArray[np.uint8]:
        """Return the raw chunk, uint8 (item, y, x)."""
        return self.block.array(self._offset(unit, kind), self.chunk_shape, np.uint8)

    def packed(self, unit: int, kind: int) -> npt.NDArray[np.uint8]:
        """Return the room for the packed chunk, uint8 (byte,)."""
        return self.block.array(self._offset(unit, kind) + self.raw_size, (packed_size_bound(self.raw_size),), np.uint8)

    @property
    def size(self) -> int:
        """Bytes of all buffers together."""
        return self._offset(self.units, 0)


class Staging:
    """A ring of staging units in memory that is kept from file to file.

    Parameters
    ----------
    units
        Number of output chunks that can be filled or packed at the same time.
    """

    def __init__(self, units: int) -> None:
        self._units = units
        self._block = SharedBlock(1)

    def prepare(self, kinds: Sequence[str], chunk_shape: tuple[int, int, int]) -> None:
        """Lay the memory out for the datasets `kinds` with chunks of the given shape (items, height, width)."""
        layout = StagingLayout(self._block, tuple(kinds), chunk_shape, self._units)
        self._block.grow(layout.size)
        self.layout = layout
        self._free = collections.deque(range(self._units))
        self._unpacked = [0] * self._units

    def take(self) -> int | None:
        """Return a free unit, or None while all are in use."""
        return self._free.popleft() if self._free else None

    def fill(
        self,
        unit: int,
        position: int,
        sources: dict[str, npt.NDArray[np.uint8]],
        labels: npt.NDArray[np.uint16],
        events: tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16], npt.NDArray[np.int32]],
    ) -> None:
        """Copy events into a unit.

        Parameters
        ----------
        unit, position
            Where the first event goes.
        sources
            Frames (frame, y, x) for every kind but ``mask``.
        labels
            Labelled frames, from which the masks are drawn.
        events
            For each event: index of its frame, its label, and the box of its mask.
        """
        frames, event_labels, boxes = events
        for index, kind in enumerate(self.layout.kinds):
            out = self.layout.raw(unit, index)[position : position + frames.size]
            if kind == "mask":
                draw_masks(labels, frames, event_labels, boxes, out)
            else:
                copy_frames(sources[kind], frames, out)

    def close_unit(self, unit: int) -> None:
        """Note that a unit is full; it is free again after `packed` was called for each of its kinds."""
        self._unpacked[unit] = len(self.layout.kinds)

    def packed(self, unit: int) -> None:
        """Note that one kind of a unit is packed and written."""
        self._unpacked[unit] -= 1
        if self._unpacked[unit] == 0:
            self._free.append(unit)
