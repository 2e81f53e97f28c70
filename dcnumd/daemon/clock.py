"""The time by which the daemon waits: that of its event loop, which tests let jump."""

from __future__ import annotations

import asyncio


def now() -> float:
    """Return the time of the running event loop [s]; it never goes back, and its zero means nothing."""
    return asyncio.get_running_loop().time()
