"""`dcnumd.shared_memory.slot` under the name of the module in dcnum, which is documented."""

from dcnumd.shared_memory.slot import ChunkSlotData, mp_spawn

__all__ = ["ChunkSlotData", "mp_spawn"]
