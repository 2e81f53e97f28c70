"""The documented name of `dcnumd.shared_memory.slot`, which dcnum's users know."""

from dcnumd.shared_memory.slot import ChunkSlotData, mp_spawn

__all__ = ["ChunkSlotData", "mp_spawn"]
