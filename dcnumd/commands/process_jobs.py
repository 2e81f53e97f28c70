"""The jobs of the command `process`: one for each file that is named, or that is in a folder that is named."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence

import click

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.folders.listing import CandidateFilter, has_result_name, list_folder
from dcnumd.logic.job import Job

FrameSelection = int | tuple[int, ...] | slice


def make_jobs(
    settings: Settings,
    paths: Sequence[pathlib.Path],
    output: pathlib.Path | None,
    frames: FrameSelection | None,
    *,
    recursive: bool = False,
) -> list[Job]:
    """Return the jobs, one for each distinct file.

    Parameters
    ----------
    settings
        Settings of the pipeline and of results.
    paths
        Files, and folders with files. Results in a folder are left out, as far as their names tell.
    output
        Folder of the results, in which the tree below a folder in `paths` is repeated; None for that of the config.
    frames
        Selection of frames; None for all.
    recursive
        Whether to process the files in subfolders as well.

    Raises
    ------
    click.UsageError
        If two files would have the same result, or a folder has no measurements or cannot be listed.
    """
    jobs: dict[pathlib.Path, Job] = {}
    for path, subfolder in _inputs(settings, paths, recursive=recursive):
        job = routing.job_for(settings, path, str(len(jobs) + 1))
        if output is not None:
            name = f"{path.stem}{settings.output.suffix}.rtdc"
            job = dataclasses.replace(job, path_out=output.absolute() / subfolder / name)
        if frames is not None:
            job = dataclasses.replace(job, settings=dataclasses.replace(job.settings, index_mapping=frames))
        other = jobs.get(job.path_out)
        if other is None:
            jobs[job.path_out] = job
        elif os.path.realpath(other.path_in) != os.path.realpath(job.path_in):
            raise click.UsageError(
                f"{job.path_in} and {other.path_in} would both become {job.path_out}; "
                "process them separately, with different -o"
            )
    return list(jobs.values())


def _inputs(
    settings: Settings, paths: Sequence[pathlib.Path], *, recursive: bool
) -> Iterator[tuple[pathlib.Path, pathlib.PurePath]]:
    """Yield each file with the path of its folder below the named one, which is empty for a file that is named."""
    for path in paths:
        if not path.is_dir():
            yield path, pathlib.PurePath()
            continue
        try:
            found = list_folder(os.fspath(path), CandidateFilter.of(settings), recursive=recursive).found
        except OSError as error:
            raise click.UsageError(f"{path}: cannot be listed: {error.strerror}") from error
        names = sorted(name for name, _ in found if not has_result_name(name, settings))
        if not names:
            where = "in it or below it" if recursive else "directly in it; --recursive includes its subfolders"
            raise click.UsageError(f"{path}: there are no measurements {where}")
        for name in map(pathlib.Path, names):
            yield name, name.parent.relative_to(path)
