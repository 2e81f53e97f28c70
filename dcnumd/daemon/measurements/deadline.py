"""Time limits of a running job; the time during which the job is held does not count."""

from __future__ import annotations

import asyncio
import math
from typing import Any, Literal

from dcnumd.daemon.clock import now

STALL_SECONDS = 120.0
"""Time without progress after which a job counts as hanging [s]; `STALL_SECONDS_PER_BYTE` is added."""
STALL_SECONDS_PER_BYTE = 1 / 5e6
"""Additional time without progress that is allowed per byte of the measurement [s/byte].

Some stages report no progress while they write or copy all data, and a slow share transfers only 5 MB/s."""


class Deadline:
    """Waits for a job, with a limit on its total time and one on the time between two signs of progress.

    Parameters
    ----------
    limit_seconds
        Limit on the total time of the job [s]; 0 means no limit.
    size
        Size of the measurement [bytes].
    """

    def __init__(self, limit_seconds: float, size: int) -> None:
        self.limit_seconds = limit_seconds or math.inf
        self.stall_seconds = min(STALL_SECONDS + size * STALL_SECONDS_PER_BYTE, self.limit_seconds)
        self._used = 0.0
        self._counting_since: float | None = now()
        self._sign_at = 0.0
        self._changed: asyncio.Future[None] | None = None

    @property
    def used(self) -> float:
        """Time that the job has run, without the time during which it was held [s]."""
        running = now() - self._counting_since if self._counting_since is not None else 0.0
        return self._used + running

    def sign_of_life(self) -> None:
        """Note that the job makes progress."""
        self._sign_at = self.used

    def hold(self) -> None:
        """Stop the clock."""
        self._used, self._counting_since = self.used, None
        self._note_change()

    def resume(self) -> None:
        """Start the clock again."""
        if self._counting_since is None:
            self._counting_since = now()
            self._note_change()

    async def wait(self, call: asyncio.Future[Any]) -> Literal["done", "timeout", "stalled"]:
        """Wait until the job has ended or has exceeded one of its limits; return which."""
        while not call.done():
            left = min(self.limit_seconds, self._sign_at + self.stall_seconds) - self.used
            if left <= 0:
                return "timeout" if self.used >= self.limit_seconds else "stalled"
            self._changed = asyncio.get_running_loop().create_future()
            seconds = left if self._counting_since is not None and math.isfinite(left) else None
            await asyncio.wait([call, self._changed], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return "done"

    def _note_change(self) -> None:
        """Have `wait` compute the time that is left again."""
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
