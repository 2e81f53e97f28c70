"""The progress that the command `process` shows on a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dcnumd.errors import DcnumdError, printable
from dcnumd.logic.job import Job, JobResult, Progress

if TYPE_CHECKING:
    import rich.progress


class Display:
    """Lines at the end of the terminal.

    Parameters
    ----------
    bar
        The progress bars; None to show nothing.
    """

    def __init__(self, bar: rich.progress.Progress | None) -> None:
        self._bar = bar

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Context in which the lines are removed, so that other output does not mix with them.

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


class ProgressDisplay(Display):
    """Shows the progress of a job in the last line of the terminal.

    Parameters
    ----------
    number
        Number of jobs.
    bar
        The progress bar; None to show nothing.
    """

    def __init__(self, number: int, bar: rich.progress.Progress | None) -> None:
        super().__init__(bar)
        self._number = number
        self._task: rich.progress.TaskID | None = None

    def begin(self, job: Job, number: int) -> None:
        """Show that a job begins; the first one has the number 1."""
        if self._bar is None:
            return
        if self._task is not None:
            # Why not `reset`: it keeps the number of frames.
            self._bar.remove_task(self._task)
        text = _shown(f"[{number}/{self._number}] {job.path_in.name}")
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


class FilesDisplay(Display):
    """Shows how many files have ended, and below that a line for each job that runs, with its worker.

    Parameters
    ----------
    number
        Number of files.
    bar
        The progress bars; None to show nothing.
    """

    def __init__(self, number: int, bar: rich.progress.Progress | None) -> None:
        super().__init__(bar)
        self._number = number
        self._ended = self._frames = 0
        self._tasks: dict[str, rich.progress.TaskID] = {}
        self._files = bar.add_task("", total=number, stage="") if bar is not None else None
        self._show_files()

    def begin(self, job: Job) -> None:
        """Show that a job was handed out."""
        if self._bar is not None:
            name = _shown(job.path_in.name)
            self._tasks[job.job_id] = self._bar.add_task(name, total=None, stage="waits for a worker")

    def update(self, job: Job, progress: Progress) -> None:
        """Show the progress of a job."""
        if self._bar is not None and (task := self._tasks.get(job.job_id)) is not None:
            stage = f"{progress.stage}, {progress.events} events, on {_shown(progress.worker)}"
            self._bar.update(task, completed=progress.frames_done, total=progress.frames or None, stage=stage)

    def remove(self, job: Job) -> None:
        """Remove the line of a job."""
        if self._bar is not None and (task := self._tasks.pop(job.job_id, None)) is not None:
            self._bar.remove_task(task)

    def end(self, job: Job, end: JobResult | DcnumdError) -> None:
        """Count a file that has ended."""
        self.remove(job)
        self._ended += 1
        self._frames += end.frames if isinstance(end, JobResult) else 0
        self._show_files()

    def _show_files(self) -> None:
        if self._bar is not None and self._files is not None:
            text = _shown(f"[{self._ended}/{self._number}] files")
            frames = f"{self._frames:,} frames"
            self._bar.update(self._files, description=text, completed=self._ended, stage=frames)


@contextlib.contextmanager
def progress_display(number: int) -> Iterator[ProgressDisplay]:
    """Context with a display of one job after the other on stderr; nothing is shown unless that is a terminal.

    Parameters
    ----------
    number
        Number of jobs.
    """
    with _bars() as bar:
        yield ProgressDisplay(number, bar)


@contextlib.contextmanager
def files_display(number: int) -> Iterator[FilesDisplay]:
    """Context with a display of several jobs at the same time on stderr, as for `progress_display`."""
    with _bars() as bar:
        yield FilesDisplay(number, bar)


@contextlib.contextmanager
def _bars() -> Iterator[rich.progress.Progress | None]:
    if not sys.stderr.isatty():
        yield None
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
        yield bar


def _shown(text: str) -> str:
    """Return a text that rich shows as it is."""
    return printable(text).replace("[", r"\[")
