"""Timing of a job: the duration of each stage, and waiting times."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

Span = tuple[str, float, float]
"""A stage, its start and its end [s, monotonic clock, the same in all processes]."""

OnSpan = Callable[[int, str, float, float], None]
"""Called with the number of a worker (-1 for the pipeline process) and the items of a `Span`."""

PIPELINE = -1
"""Number of the pipeline process among the workers."""
SHARED_STAGES = ("load", "segment", "extract", "pack", "background")
"""Stages that run in all workers in parallel; the others run in the pipeline process."""


class StageClock:
    """Records the spans of a worker: each tick ends a stage that began with the tick before."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._last = time.perf_counter()

    def tick(self, stage: str) -> None:
        """Record that `stage` ends now."""
        now = time.perf_counter()
        self.spans.append((stage, self._last, now))
        self._last = now


class StageTimes:
    """Sums the durations of all stages of one job.

    Parameters
    ----------
    on_span
        Called with each span; None for no calls.
    """

    def __init__(self, on_span: OnSpan | None = None) -> None:
        self.seconds: dict[str, float] = collections.defaultdict(float)
        """Duration of each stage, summed over all processes."""
        self.waiting: dict[str, float] = collections.defaultdict(float)
        """Waiting times: ``workers``, summed over all workers; ``pipeline``, of the pipeline process for workers."""
        self.bytes_read = 0
        """Number of bytes that the workers have read from files."""
        self._on_span = on_span

    def add(self, worker: int, spans: Sequence[Span]) -> None:
        """Add the spans of a worker."""
        for stage, begin, end in spans:
            self.seconds[stage] += end - begin
            if self._on_span is not None:
                self._on_span(worker, stage, begin, end)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time in this context to a stage of the pipeline process."""
        clock = StageClock()
        yield
        clock.tick(name)
        self.add(PIPELINE, clock.spans)

    @contextlib.contextmanager
    def pool(self, number: int, waited: Callable[[], float]) -> Iterator[None]:
        """Add the waiting times in this context, in which `number` workers run.

        `waited` returns the total time that the pipeline process has waited for workers [s]; only its increase counts.
        """
        begin, busy_before, waited_before = time.perf_counter(), self._busy(), waited()
        yield
        wall = time.perf_counter() - begin
        self.waiting["workers"] += max(0.0, number * wall - (self._busy() - busy_before))
        self.waiting["pipeline"] += waited() - waited_before

    def _busy(self) -> float:
        return sum(self.seconds[stage] for stage in SHARED_STAGES)


def bottleneck(seconds: dict[str, float], workers: int) -> str:
    """Return the stage that takes the largest part of a job's duration; empty if there was none.

    The duration of a stage that runs in all workers is divided by their number.
    """
    walls = {name: value / (workers if name in SHARED_STAGES else 1) for name, value in seconds.items()}
    return max(walls, key=lambda name: walls[name], default="")
