"""The line between a job and whoever has ordered it: how far it is, and whether it is to stop."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Literal

from dcnumd.errors import JobCancelledError
from dcnumd.logic.job import Progress

Stage = Literal["background", "segmentation", "writing"]

WATCH_SECONDS = 1.0
"""Time between two questions how far something is that does not report by itself [s]."""


def never() -> bool:
    """Return False: the job is not to be cancelled."""
    return False


class JobLine:
    """Tells how far a job is, and hears whether it is to stop.

    Parameters
    ----------
    job_id
        The job.
    on_progress
        Told; None: nobody wants to know.
    cancel
        Asked; once it has returned True the job is given up.
    """

    def __init__(
        self,
        job_id: str,
        on_progress: Callable[[Progress], None] | None = None,
        cancel: Callable[[], bool] = never,
    ) -> None:
        self.frames = 0
        """Number of frames of the measurement, once that is known."""
        self._job_id = job_id
        self._on_progress = on_progress
        self._cancel = cancel

    def report(self, stage: Stage, frames_done: int = 0, events: int = 0) -> None:
        """Tell how far the job is; a job that says nothing for long is taken for hung."""
        if self._on_progress is not None:
            self._on_progress(Progress(self._job_id, stage, frames_done, self.frames, events))

    def stop_if_asked(self) -> None:
        """Give the job up if that is wanted.

        Raises
        ------
        JobCancelledError
            It is wanted.
        """
        if self._cancel():
            raise JobCancelledError("stopped before it was finished")

    @contextlib.contextmanager
    def watching(self, stage: Stage, fraction_done: Callable[[], float]) -> Iterator[None]:
        """Report for something that does not do so by itself, whenever its fraction has changed."""
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
