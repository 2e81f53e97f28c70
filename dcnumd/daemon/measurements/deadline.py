"""For how long a running job is waited for, not counting the time in which it is held."""

from __future__ import annotations

import asyncio
import math
from typing import Any, Literal

from dcnumd.daemon.clock import now

STALL_SECONDS = 120.0
"""Time without progress after which a job hangs [s], besides `STALL_SECONDS_PER_BYTE` for each byte it reads."""
STALL_SECONDS_PER_BYTE = 1 / 5e6
"""Some stages are silent while they write or copy everything; a poor share manages 5 MB a second."""


class Deadline:
    """Waits for a job within the time it may take in all, and the time it may take between two signs of life.

    Parameters
    ----------
    limit_seconds
        For the whole job; 0 is no limit.
    size
        Size of the measurement [bytes].
    """

    def __init__(self, limit_seconds: float, size: int) -> None:
        self.limit_seconds = limit_seconds or math.inf
        self.stall_seconds = min(STALL_SECONDS + size * STALL_SECONDS_PER_BYTE, self.limit_seconds)
        self._used = 0.0
        self._counting_since: float | None = now()
        self._sign_at = 0.0
        self._changed = asyncio.Event()

    @property
    def used(self) -> float:
        """Time that the job has had [s]."""
        running = now() - self._counting_since if self._counting_since is not None else 0.0
        return self._used + running

    def sign_of_life(self) -> None:
        """Note that the job goes on."""
        self._sign_at = self.used

    def hold(self) -> None:
        """Let no time pass from now on."""
        self._used, self._counting_since = self.used, None
        self._changed.set()

    def resume(self) -> None:
        """Let time pass again."""
        if self._counting_since is None:
            self._counting_since = now()
            self._changed.set()

    async def wait(self, call: asyncio.Future[Any]) -> Literal["done", "timeout", "stalled"]:
        """Wait until the job has ended, or its time is up."""
        while not call.done():
            left = min(self.limit_seconds, self._sign_at + self.stall_seconds) - self.used
            if left <= 0:
                return "timeout" if self.used >= self.limit_seconds else "stalled"
            self._changed.clear()
            changed = asyncio.create_task(self._changed.wait(), name="deadline changed")
            seconds = left if self._counting_since is not None and math.isfinite(left) else None
            try:
                await asyncio.wait([call, changed], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
        return "done"
