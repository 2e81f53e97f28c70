"""The slots of a pipeline, allocated once and reshaped for each file."""

from __future__ import annotations

from collections.abc import Iterable

from dcnumd.shared_memory.slot import ChunkSlotData


class SlotRegister:
    """A fixed number of slots that are used for one file after another.

    Parameters
    ----------
    num_slots
        Number of chunks that can be processed at the same time.
    """

    def __init__(self, num_slots: int = 3) -> None:
        if num_slots < 1:
            raise ValueError(f"number of slots is {num_slots}, must be at least 1")
        self.num_slots = num_slots
        self.slots: list[ChunkSlotData] = []

    def prepare(self, shape: tuple[int, int, int], available_features: Iterable[str]) -> list[ChunkSlotData]:
        """Return all slots, emptied and reshaped for chunks of the shape (frames, height, width)."""
        features = tuple(available_features)
        for slot in self.slots:
            slot.reshape(shape, features)
        while len(self.slots) < self.num_slots:
            self.slots.append(ChunkSlotData(shape, features))
        return self.slots

    def trim(self) -> None:
        """Free memory that earlier files needed and the present one does not."""
        for slot in self.slots:
            slot.trim()

    def free(self) -> None:
        """Free the memory of all slots until the next file is prepared."""
        for slot in self.slots:
            slot.reshape((1, 1, 1))
            slot.trim()
