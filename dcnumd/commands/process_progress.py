"""The progress that the command `process` shows on a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dcnumd.errors import printable
from dcnumd.logic.job import Job, Progress

if TYPE_CHECKING:
    import rich.progress


class ProgressDisplay:
    """Shows the progress of a job in the last line of the terminal.

    Parameters
    ----------
    number
        Number of jobs.
    bar
        The progress bar; None to show nothing.
    """

    def __init__(self, number: int, bar: rich.progress.Progress | None) -> None:
        self._number = number
        self._bar = bar
        self._task: rich.progress.TaskID | None = None

    def begin(self, job: Job) -> None:
        """Show that the next job begins."""
        if self._bar is None:
            return
        if self._task is not None:
            # Why not `reset`: it keeps the number of frames.
            self._bar.remove_task(self._task)
        text = printable(f"[{job.job_id}/{self._number}] {job.path_in.name}").replace("[", r"\[")
        self._task = self._bar.add_task(text, total=None, stage="inspection")
        self._bar.refresh()

    def update(self, progress: Progress) -> None:
        """Show the progress of the job."""
        if self._bar is not None and self._task is not None:
            stage = f"{progress.stage}, {progress.events} events"
            self._bar.update(self._task, completed=progress.frames_done, total=progress.frames, stage=stage)

    def name_step(self, step: str) -> None:
        """Show the name of a step without progress."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, stage=step)

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Context in which the line is removed, so that other output does not mix with it.

        Why not the redirection of rich: `click.echo` bypasses it where the encoding of the terminal is ASCII.
        """
        if self._bar is None:
            yield
            return
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()


@contextlib.contextmanager
def progress_display(number: int) -> Iterator[ProgressDisplay]:
    """Context with a display on stderr, which shows nothing unless that is a terminal.

    Parameters
    ----------
    number
        Number of jobs.
    """
    if not sys.stderr.isatty():
        yield ProgressDisplay(number, None)
        return
    import rich.console  # noqa: PLC0415 -- needed on terminals only
    import rich.progress  # noqa: PLC0415 -- likewise

    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.TextColumn("{task.fields[stage]}"),
        rich.progress.TimeRemainingColumn(),
    )
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        yield ProgressDisplay(number, bar)
