"""Communication between a job and its caller: progress and cancellation."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Literal

from dcnumd.errors import JobCancelledError
from dcnumd.logic.job import Progress

Stage = Literal["background", "segmentation", "writing"]

WATCH_SECONDS = 1.0
"""Seconds between two queries of the progress of a method that does not report it."""


def never() -> bool:
    """Return False: the job is never cancelled."""
    return False


class JobLine:
    """Reports the progress of a job, and raises an error when the job is cancelled.

    Parameters
    ----------
    job_id
        The job.
    on_progress
        Called with the progress; None for no reports.
    cancel
        Called to ask whether the job is cancelled.
    """

    def __init__(
        self,
        job_id: str,
        on_progress: Callable[[Progress], None] | None = None,
        cancel: Callable[[], bool] = never,
    ) -> None:
        self.frames = 0
        """Number of frames of the measurement; 0 until it is known."""
        self._job_id = job_id
        self._on_progress = on_progress
        self._cancel = cancel

    def report(self, stage: Stage, frames_done: int = 0, events: int = 0) -> None:
        """Report progress; the daemon ends a job that has not reported for a long time."""
        if self._on_progress is not None:
            self._on_progress(Progress(self._job_id, stage, frames_done, self.frames, events))

    def stop_if_asked(self) -> None:
        """Check whether the job is cancelled.

        Raises
        ------
        JobCancelledError
            The job is cancelled.
        """
        if self._cancel():
            raise JobCancelledError("stopped before it was finished")

    @contextlib.contextmanager
    def watching(self, stage: Stage, fraction_done: Callable[[], float]) -> Iterator[None]:
        """Report progress for the code in the block, which does not do so itself, when its fraction has changed."""
        ended = threading.Event()

        def watch() -> None:
            known = fraction_done()
            while not ended.wait(WATCH_SECONDS):
                if (now := fraction_done()) != known:
                    known = now
                    self.report(stage)

        watcher = threading.Thread(target=watch, name="progress", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
