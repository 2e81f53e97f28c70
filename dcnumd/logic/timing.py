"""Where the time of a job goes: seconds of each stage, who waited for whom."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

Span = tuple[str, float, float]
"""A stage, its begin and its end [s, monotonic clock, the same in all processes]."""

OnSpan = Callable[[int, str, float, float], None]
"""Called with the number of a worker (-1: the pipeline process itself), and a `Span`."""

PIPELINE = -1
"""Stands for the pipeline process where workers are numbered."""
SHARED_STAGES = ("load", "segment", "extract", "pack", "background")
"""Stages that all workers work on side by side; the others are up to the pipeline process alone."""


class StageClock:
    """Notes what a worker does: each tick ends a stage that began with the tick before."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._last = time.perf_counter()

    def tick(self, stage: str) -> None:
        """Note that `stage` ends now."""
        now = time.perf_counter()
        self.spans.append((stage, self._last, now))
        self._last = now


class StageTimes:
    """Adds up the seconds of all stages of one job.

    Parameters
    ----------
    on_span
        Told of every single span, too.
    """

    def __init__(self, on_span: OnSpan | None = None) -> None:
        self.seconds: dict[str, float] = collections.defaultdict(float)
        """For each stage, all processes together."""
        self.waiting: dict[str, float] = collections.defaultdict(float)
        """``workers``: all workers together had nothing to do; ``pipeline``: its process waited for them."""
        self.bytes_read = 0
        """Bytes that the workers have read from files."""
        self._on_span = on_span

    def add(self, worker: int, spans: Sequence[Span]) -> None:
        """Count what a worker has done."""
        for stage, begin, end in spans:
            self.seconds[stage] += end - begin
            if self._on_span is not None:
                self._on_span(worker, stage, begin, end)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time in this context, spent in the pipeline process."""
        clock = StageClock()
        yield
        clock.tick(name)
        self.add(PIPELINE, clock.spans)

    @contextlib.contextmanager
    def pool(self, number: int, waited: Callable[[], float]) -> Iterator[None]:
        """Count who waits in this context, in which `number` workers are at work.

        `waited` returns the seconds that the pipeline process has waited for them since whenever.
        """
        begin, busy_before, waited_before = time.perf_counter(), self._busy(), waited()
        yield
        wall = time.perf_counter() - begin
        self.waiting["workers"] += max(0.0, number * wall - (self._busy() - busy_before))
        self.waiting["pipeline"] += waited() - waited_before

    def _busy(self) -> float:
        return sum(self.seconds[stage] for stage in SHARED_STAGES)


def bottleneck(seconds: dict[str, float], workers: int) -> str:
    """Return the stage that takes the largest part of a job's duration, empty when nothing was done.

    Stages that are shared by the workers count with their share of the duration.
    """
    walls = {name: value / (workers if name in SHARED_STAGES else 1) for name, value in seconds.items()}
    return max(walls, key=lambda name: walls[name], default="")
