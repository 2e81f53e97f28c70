"""Chunk size of results; a module of its own, so that the supervisor can import it without numpy."""

from __future__ import annotations


def best_chunk_items(item_size: int) -> int:
    """Return the number of items of `item_size` bytes in a chunk: 1 MiB worth, at least 10, at most 1000."""
    return min(max(2**20 // item_size, 10), 1000) if item_size else 1000
