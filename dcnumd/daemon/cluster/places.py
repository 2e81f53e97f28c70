"""Jobs and results with the paths of this computer and of the workers, which may see the folders elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from dcnumd.config.path_map import PathMap
from dcnumd.daemon.folders.hang_guard import in_thread
from dcnumd.errors import WorkerError
from dcnumd.logic.job import Job, JobResult, PipelineSettings

SEEN_SECONDS = 90.0
"""Time within which a result must be visible here [s]; network file systems cache the content of a folder for 60 s."""
FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 0.05, 5.0
"""Time between the first two and between later attempts to see a result [s]."""


def job_there(paths: PathMap, job: Job) -> Job:
    """Return the job with the paths on the workers."""
    there = paths.there
    return dataclasses.replace(
        job,
        path_in=there(job.path_in),
        path_told=job.path_in,
        path_out=there(job.path_out),
        settings=_settings_there(paths, job.settings),
        result_root=None if job.result_root is None else there(job.result_root),
        trusted_folders=None if job.trusted_folders is None else tuple(map(there, job.trusted_folders)),
    )


def _settings_there(paths: PathMap, settings: PipelineSettings) -> PipelineSettings:
    """Return the settings with the paths of models on the workers.

    A path that the map says nothing about stays as it is: a worker looks for the name of a model in its own folders of
    models, too.
    """

    def there(path: pathlib.Path) -> pathlib.Path:
        return paths.there(path) if paths.covers(path) else path

    def of_files(kwargs: Mapping[str, Any]) -> dict[str, Any]:
        # Which keywords are files is known to the class of the segmenter only, which this process does not import.
        return {
            name: os.fspath(there(pathlib.Path(value))) if isinstance(value, str) and value.startswith("/") else value
            for name, value in kwargs.items()
        }

    fallback = settings.fallback
    return dataclasses.replace(
        settings,
        model_folders=tuple(map(there, settings.model_folders)),
        segmenter_kwargs=of_files(settings.segmenter_kwargs),
        fallback=None if fallback is None else dataclasses.replace(fallback, kwargs=of_files(fallback.kwargs)),
    )


def text_here(job: Job, there: Job, text: str) -> str:
    """Return a message of a worker with the paths on this computer."""
    return text.replace(f"{there.path_out}", f"{job.path_out}").replace(f"{there.path_in}", f"{job.path_in}")


def result_here(job: Job, there: Job, result: JobResult) -> JobResult:
    """Return a result with the paths on this computer."""
    error = text_here(job, there, result.error)
    return dataclasses.replace(result, path_in=job.path_in, path_out=job.path_out, error=error)


async def seen_here(result: JobResult) -> JobResult:
    """Return a result when it can be seen from here.

    Raises
    ------
    WorkerError
        With the reason ``result_unseen`` if it cannot.
    """
    if result.outcome == "skipped" and result.reason != "output_exists":
        return result
    path, pause, deadline = result.path_out, FIRST_LOOK_SECONDS, asyncio.get_running_loop().time() + SEEN_SECONDS
    while True:
        size = await in_thread(os.fspath(path.parent), _size, path, result.bytes_written)
        if size is not None and size == (result.bytes_written or size):
            return result
        if asyncio.get_running_loop().time() > deadline:
            found = "is not there" if size is None else f"has {size} bytes instead of {result.bytes_written}"
            raise WorkerError(f"{path}: was written by a worker, but {found} on this computer", "result_unseen")
        await asyncio.sleep(pause)
        pause = min(2 * pause, LAST_LOOK_SECONDS)


def _size(path: pathlib.Path, expected: int) -> int | None:
    """Return the size of a file [bytes]; None if it is not there."""
    with contextlib.suppress(OSError):
        # In most cases the file is there, and its folder, which may be large, need not be read.
        if (size := path.stat().st_size) == expected:
            return size
    try:
        # Reading the folder makes a network file system ask the server again.
        if path.name in os.listdir(path.parent):  # noqa: PTH208 -- names only, without an object for each
            return path.stat().st_size
    except OSError:
        return None
    return None
