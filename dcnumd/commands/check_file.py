"""Checks of measurements: whether the configured pipeline can process them, and by which segmenter."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING

from dcnumd import routing
from dcnumd.commands.check_pipeline import speed_in_words
from dcnumd.commands.finding import Finding
from dcnumd.config.values import Settings
from dcnumd.errors import DcnumdError, MeasurementError
from dcnumd.logic.job import Job
from dcnumd.report.wording import count_of

if TYPE_CHECKING:
    from dcnumd.daemon.measurements.probe import Inspection
    from dcnumd.logic.speed import Speed


@dataclasses.dataclass(frozen=True, slots=True)
class CheckedFile:
    """What the daemon would do with a measurement."""

    path: str
    ppid: str = ""
    segmenter: str = ""
    """Code of the segmenter that would be used."""
    not_applicable: tuple[str, ...] = ()
    """Why the configured segmenter is not made for it; empty if this one would be used."""
    reason: str = ""
    """Reason code if it cannot be processed."""
    error: str = ""
    interrupted: bool = False
    """Whether it is being recorded, or its recording was interrupted."""
    frames: int = 0
    """Number of frames; if `interrupted`, those that all features have."""
    speed: Speed | None = None
    """Speed of the segmentation with its frames; None if the segmenter has no model, or if it was not measured."""

    @property
    def findings(self) -> list[Finding]:
        """The outcome in words."""
        return [self._outcome, *([speed_in_words(self.speed)] if self.speed else [])]

    @property
    def _outcome(self) -> Finding:
        if self.reason:
            return Finding("problem", "file", self.error if self.path in self.error else f"{self.path}: {self.error}")
        if self.interrupted:
            return Finding(
                "note",
                "file",
                f"{self.path}: is being recorded, or was interrupted after {count_of(self.frames, 'frame')}; as "
                f'watch.interrupted is "process", they are processed once nothing was added for some time: {self.ppid}',
            )
        if self.not_applicable:
            reasons = "; ".join(self.not_applicable)
            return Finding(
                "note", "file", f"{self.path}: segmented by {self.segmenter} instead ({reasons}): {self.ppid}"
            )
        return Finding("ok", "file", f"{self.path}: {self.ppid}")


def check_file(settings: Settings, path: pathlib.Path, *, quick: bool) -> CheckedFile:
    """Inspect a measurement as the daemon would; measure the speed of the segmentation unless `quick` is set."""
    # Importing the engine takes a second, so it is imported only where it is used.
    from dcnumd.daemon.measurements.probe import inspect_file, job_for_complete  # noqa: PLC0415
    from dcnumd.logic.speed import speed_with_file  # noqa: PLC0415

    watched = settings.watched_folder_of(routing.plain_path(path)) is not None
    job = (routing.watched_job_for if watched else routing.job_for)(settings, path, "")
    told = os.fspath(job.path_in)
    try:
        found = inspect_file(job)
        if found.verdict == "open_for_writing":
            wanted = watched and settings.group_of(job.path_in).watch.interrupted == "process"
            job = dataclasses.replace(job, interrupted=True)
            found = _inspect_marked(job, wanted=wanted)
        job_for_complete(job, found)
        speed = None if quick else speed_with_file(job, routing.number_of_workers(settings))
    except DcnumdError as error:
        return CheckedFile(told, reason=error.reason, error=error.message)
    return CheckedFile(
        told,
        found.ppid,
        found.segmenter,
        found.not_applicable,
        interrupted=found.interrupted,
        frames=found.frames,
        speed=speed,
    )


def _inspect_marked(job: Job, *, wanted: bool) -> Inspection:
    """Inspect a file that is open for writing as if its recording was interrupted.

    Raises
    ------
    DcnumdError
        It cannot be processed then, or it is not `wanted` that such files are.
    """
    from dcnumd.daemon.measurements.probe import inspect_file  # noqa: PLC0415 -- see `check_file`

    found = inspect_file(job)
    if found.verdict == "complete" and not wanted:
        raise MeasurementError(
            f"{job.path_in}: is open for writing, or its recording was interrupted after "
            f"{count_of(found.frames, 'frame')}; if nobody writes it, `dcnumd process --interrupted` processes these, "
            'and so does the daemon if watch.interrupted is "process"',
            "open_for_writing",
        )
    return found
