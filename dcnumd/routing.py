"""What becomes of a measurement under the settings: its job, the paths of its result and report, their request."""

from __future__ import annotations

import dataclasses
import pathlib

from dcnumd.config.values import Settings
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.memory import beside_pipeline, in_mb
from dcnumd.report.request import ReportRequest


def pipeline_settings(settings: Settings) -> PipelineSettings:
    """Return what decides the numbers, in the form that a job carries."""
    pipeline = settings.pipeline
    return PipelineSettings(
        pixel_size=pipeline.pixel_size or None,
        background_code=pipeline.background.code,
        background_kwargs=dict(pipeline.background.keywords),
        segmenter_code=pipeline.segmenter.code,
        segmenter_kwargs=dict(pipeline.segmenter.keywords),
        mask_kwargs=dict(pipeline.segmenter.mask),
        feature_kwargs=dataclasses.asdict(pipeline.features),
        gate_kwargs={k: v for k, v in dataclasses.asdict(pipeline.gate).items() if v is not None},
    )


def job_for(settings: Settings, path: pathlib.Path, job_id: str) -> Job:
    """Return the job that processes the measurement `path` under these settings."""
    path = plain_path(path)
    group = settings.group_of(path)
    return Job(
        path_in=path,
        path_out=output_for(settings, path),
        settings=pipeline_settings(group),
        basin_strategy=group.output.basin_strategy,
        compression=group.output.compression,
        existing=group.output.existing,
        num_workers=settings.resources.num_workers,
        job_id=job_id,
        max_memory_mb=settings.resources.max_memory_mb,
    )


def watched_job_for(settings: Settings, path: pathlib.Path, job_id: str) -> Job:
    """Return the job for a measurement that anybody may have put into a watched folder: it is not trusted."""
    group = settings.group_of(path)
    return dataclasses.replace(
        job_for(settings, path, job_id),
        trusted_folders=settings.trusted_folders(),
        trust_basins=group.watch.allow_basins_outside,
        result_root=output_root_of(settings, path),
        replace_former=True,
        other_memory_mb=in_mb(beside_pipeline(reports=settings.report.enabled)),
    )


def report_request_for(settings: Settings, path: pathlib.Path, result: pathlib.Path, job_id: str) -> ReportRequest:
    """Return the request for the report of a measurement whose result lies at `result`."""
    folder = result.parent
    if settings.report.folder is not None:
        folder = _mirrored(path, settings.report.folder, settings.watched_folder_of(path), settings.folders())
    job = watched_job_for(settings, path, job_id)
    return ReportRequest(
        path_result=result,
        path_report=folder / result.stem,
        formats=settings.report.formats,
        gallery=settings.report.gallery,
        pairs=tuple((x, y) for x, _, y in (pair.partition(":") for pair in settings.report.pairs)),
        limits=settings.report.limits,
        root=index_folder_for(settings, path),
        trusted_folders=job.trusted_folders,
        trust_basins=job.trust_basins,
        job_id=job_id,
    )


def output_root_of(settings: Settings, path: pathlib.Path) -> pathlib.Path:
    """Return the folder that the result of the measurement `path` must not leave."""
    return settings.group_of(path).output.folder or settings.watched_folder_of(path) or path.parent


def output_for(settings: Settings, path: pathlib.Path) -> pathlib.Path:
    """Return where the result of the measurement `path` goes.

    With ``output.folder`` the tree below the watched folder is mirrored there. When the results of several
    folders go there, each has its own tree under its own name, so that equal names do not meet.
    """
    output = settings.group_of(path).output
    name = f"{path.stem}{output.suffix}.rtdc"
    if output.folder is None:
        return path.with_name(name)
    return _mirrored(path, output.folder, settings.watched_folder_of(path), settings.sharing(output.folder)) / name


def index_folder_for(settings: Settings, path: pathlib.Path) -> pathlib.Path:
    """Return the folder whose index lists the measurement `path`."""
    return settings.report.folder or output_root_of(settings, path)


def plain_path(path: pathlib.Path) -> pathlib.Path:
    """Return a path from the root, without ``..``; symbolic links are followed only where one comes before ``..``."""
    plain = pathlib.Path("/")
    for part in path.absolute().parts[1:]:
        if part != "..":
            plain /= part
        else:
            plain = (plain.resolve() if plain.is_symlink() else plain).parent
    return plain


def _mirrored(
    path: pathlib.Path, folder: pathlib.Path, root: pathlib.Path | None, sharing: list[pathlib.Path]
) -> pathlib.Path:
    """Return where in `folder` the tree below the watched folder `root` has the place of `path`.

    When several watched folders are `sharing` it, each has its own tree under its own name.
    """
    if root is None:
        return folder
    base = folder / root.name if len(sharing) > 1 else folder
    return base / path.parent.relative_to(root)
