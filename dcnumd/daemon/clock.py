"""The clock of the daemon: that of its event loop, which tests can advance."""

from __future__ import annotations

import asyncio


def now() -> float:
    """Return the time of the running event loop [s]; it is monotonic, with an arbitrary zero."""
    return asyncio.get_running_loop().time()
