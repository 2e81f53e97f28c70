"""Pauses between attempts."""

from __future__ import annotations

import random

from dcnumd.config.values import RetrySettings

MAX_BACKOFF_SECONDS = 3600.0
"""The pause between two attempts grows to this."""
JITTER = 0.25
"""Pauses differ by this part, so that what failed together does not come back together."""


def backoff_seconds(retry: RetrySettings, attempt: int) -> float:
    """Return the pause after the given attempt, which is counted from 1: twice as long each time, about."""
    pause = min(retry.backoff_seconds * 2.0 ** min(attempt - 1, 20), MAX_BACKOFF_SECONDS)
    return pause * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 -- no secret depends on it
