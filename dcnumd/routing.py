"""Application of the settings to a measurement: its job, the path of its result, and the request for its report."""

from __future__ import annotations

import dataclasses
import pathlib

from dcnumd.config.values import Settings
from dcnumd.logic.job import Job, PipelineSettings, SegmenterSpec
from dcnumd.logic.memory import beside_pipeline, in_mb
from dcnumd.processes.processors import physical_cores
from dcnumd.report.request import ReportRequest


def pipeline_settings(settings: Settings) -> PipelineSettings:
    """Return the settings that determine the numbers in a result, in the form that a job contains."""
    pipeline, other = settings.pipeline, settings.pipeline.segmenter.fallback
    return PipelineSettings(
        pixel_size=pipeline.pixel_size or None,
        background_code=pipeline.background.code,
        background_kwargs=dict(pipeline.background.keywords),
        segmenter_code=pipeline.segmenter.code,
        segmenter_kwargs=dict(pipeline.segmenter.keywords),
        mask_kwargs=dict(pipeline.segmenter.mask),
        fallback=SegmenterSpec(other.code, dict(other.keywords), dict(other.mask)) if other.code else None,
        feature_kwargs=dataclasses.asdict(pipeline.features),
        gate_kwargs={k: v for k, v in dataclasses.asdict(pipeline.gate).items() if v is not None},
        model_folders=settings.models.folders,
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
    """Return the job for a measurement in a watched folder; it is not trusted, since anybody may have put it there."""
    group = settings.group_of(path)
    return dataclasses.replace(
        job_for(settings, path, job_id),
        trusted_folders=settings.trusted_folders(),
        trust_basins=group.watch.allow_basins_outside,
        result_root=output_root_of(settings, path),
        replace_former=True,
        other_memory_mb=in_mb(memory_beside_pipeline(settings)),
    )


def memory_beside_pipeline(settings: Settings) -> int:
    """Return the largest memory of the processes of a daemon other than those of the pipeline [bytes]."""
    cluster = settings.executor.kind == "dask"
    return beside_pipeline(
        # Workers make reports where they process measurements.
        reports=settings.report.enabled and (not cluster or settings.executor.fallback_minutes > 0),
        isoelastics=settings.report.plot.isoelastics,
        cluster=cluster,
        live_workers=number_of_workers(settings) if settings.live.enabled else 0,
    )


def number_of_workers(settings: Settings) -> int:
    """Return the number of worker processes of a pipeline on this computer."""
    return settings.resources.num_workers or physical_cores(settings.resources.cpus or None)


def report_request(settings: Settings, result: pathlib.Path, folder: pathlib.Path) -> ReportRequest:
    """Return the request for the report of `result` in `folder`."""
    return ReportRequest(
        path_result=result,
        path_report=folder / result.stem,
        formats=settings.report.formats,
        gallery=settings.report.gallery,
        pairs=tuple((x, y) for x, _, y in (pair.partition(":") for pair in settings.report.pairs)),
        plot=settings.report.plot,
        limits=settings.report.limits,
    )


def report_request_for(settings: Settings, path: pathlib.Path, result: pathlib.Path, job_id: str) -> ReportRequest:
    """Return the request for the report of the measurement `path` in a watched folder, whose result is at `result`."""
    job = watched_job_for(settings, path, job_id)
    return dataclasses.replace(
        report_request(settings, result, report_folder_for(settings, path, result)),
        root=index_folder_for(settings, path),
        trusted_folders=job.trusted_folders,
        trust_basins=job.trust_basins,
        job_id=job_id,
    )


def report_folder_for(settings: Settings, path: pathlib.Path, result: pathlib.Path) -> pathlib.Path:
    """Return the folder of the report of the measurement `path`, whose result is at `result`."""
    if settings.report.folder is None:
        return result.parent
    return _mirrored(path, settings.report.folder, settings.watched_folder_of(path), settings.folders())


def output_root_of(settings: Settings, path: pathlib.Path) -> pathlib.Path:
    """Return the folder in or below which the result of the measurement `path` must be."""
    return settings.group_of(path).output.folder or settings.watched_folder_of(path) or path.parent


def output_for(settings: Settings, path: pathlib.Path) -> pathlib.Path:
    """Return the path of the result of the measurement `path`.

    With ``output.folder``, the tree below the watched folder is mirrored there. If the results of several watched
    folders go there, each has a separate tree with the name of the folder, so that equal names do not collide.
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
    """Return an absolute path without ``..``; a symbolic link is followed only if it precedes ``..``."""
    if path.root == "/" and ".." not in path.parts:
        return path
    plain = pathlib.Path("/")  # Why not `os.path.normpath`? It ignores that a part before ".." may be a link.
    for part in path.absolute().parts[1:]:
        if part != "..":
            plain /= part
        else:
            plain = (plain.resolve() if plain.is_symlink() else plain).parent
    return plain


def _mirrored(
    path: pathlib.Path, folder: pathlib.Path, root: pathlib.Path | None, sharing: list[pathlib.Path]
) -> pathlib.Path:
    """Return the folder of `path` in the copy of the tree below the watched folder `root` that is in `folder`.

    If several watched folders are `sharing` it, each has a separate tree with the name of the folder.
    """
    if root is None:
        return folder
    base = folder / root.name if len(sharing) > 1 else folder
    return base / path.parent.relative_to(root)
