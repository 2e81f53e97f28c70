"""Delays between attempts."""

from __future__ import annotations

import random

from dcnumd.config.values import RetrySettings

MAX_BACKOFF_SECONDS = 3600.0
"""Longest delay between two attempts, before jitter [s]."""
JITTER = 0.25
"""Largest relative deviation of a delay, so that measurements that failed together are not retried together."""


def backoff_seconds(retry: RetrySettings, attempt: int) -> float:
    """Return the delay after an attempt [s]; it doubles with each attempt, give or take the jitter.

    Parameters
    ----------
    retry
        Settings with the delay after the first attempt.
    attempt
        Number of the attempt that failed, counted from 1.
    """
    pause = min(retry.backoff_seconds * 2.0 ** min(attempt - 1, 20), MAX_BACKOFF_SECONDS)
    return pause * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 -- no secret depends on it
