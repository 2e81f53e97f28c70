"""The command `check`: whether the daemon can work with a config, and which pipeline ID it computes."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Literal

import click

from dcnumd import routing
from dcnumd.commands.options import json_option, with_settings
from dcnumd.config.values import Settings
from dcnumd.daemon.ownership import lock_owner
from dcnumd.errors import DcnumdError, WorkerError
from dcnumd.kernels.cache import candidates, is_complete
from dcnumd.logic.memory import (
    beside_pipeline,
    expected_workload,
    fitting_layout,
    in_mb,
    usually_needed,
)
from dcnumd.meta.features import BY_NAME
from dcnumd.processes.processors import physical_cores

Level = Literal["ok", "note", "warning", "problem"]
COLOURS: dict[Level, str] = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "red"}
FEATURE_GROUPS = {"brightness": "brightness", "texture": "haralick", "volume": "volume"}
"""Key in the section ``pipeline.features`` that turns on each group of features, for groups that can be turned off."""

USUAL_FRAME, LARGE_FRAME = (80, 320), (1024, 1280)
"""Height and width [px] of a usual and of a large frame, for which the memory is estimated."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """The result of checking one setting or one folder."""

    level: Level
    subject: str
    text: str


@click.command(epilog="Example: dcnumd check -c config.toml --json")
@json_option
@with_settings(config_needed=True)
def check(settings: Settings, as_json: bool) -> int:
    """Say whether the config is sound: folders, rights, space, methods; and which pipeline ID it makes.

    A warning is about something that works but is probably a mistake, such as a watched folder that is missing; the
    daemon watches it when it appears. Exit code 2 if there is a problem.
    """
    findings = list(check_settings(settings))
    ppids: list[str] = []
    for group in settings.groups:
        try:
            ppids.append(pipeline_id(group))
        except DcnumdError as error:
            findings.append(Finding("problem", "pipeline", error.message))
        else:
            findings += [_memory(group), Finding("ok", "pipeline", ppids[-1]), *_fallback(group), *_threshold(group)]
    sound = all(finding.level != "problem" for finding in findings)
    if as_json:
        found = [dataclasses.asdict(finding) for finding in findings]
        ppid = ppids[0] if ppids else ""
        click.echo(json.dumps({"sound": sound, "ppid": ppid, "ppids": ppids, "findings": found}, indent=2))
    else:
        for finding in findings:
            level = click.style(f"{finding.level:8}", fg=COLOURS[finding.level])
            click.echo(f"{level} {finding.subject:16} {finding.text}")
    return 0 if sound else 2


def check_settings(settings: Settings) -> Iterator[Finding]:
    """Check everything that a config names, without changing anything, and yield the findings."""
    yield Finding("ok", "config", f"{settings.source}")
    for folder in settings.folders():
        yield from _watched(folder)
    yield from _watched_outputs(settings)
    for policy in {group.output.deleted: None for group in settings.groups}:
        again = "not made again" if policy == "leave" else "made again at the next scan"
        yield Finding("ok", "output.deleted", f'"{policy}": a result that is taken away is {again}')
    targets: dict[pathlib.Path, None] = {}
    for group in settings.groups:
        folders = [group.output.folder] if group.output.folder else filter(_is_there, group.watch.folders)
        targets.update(dict.fromkeys(folders))
    if settings.report.enabled and settings.report.folder is not None:
        targets[settings.report.folder] = None
    for target in targets:
        yield from _target(target, settings.resources.min_free_gb)
    yield _processors(settings.resources.cpus)
    yield _state(settings.state_folder())
    if settings.log.file is not None:
        yield _writable("log.file", settings.log.file.parent)
    yield _kernels()
    if settings.report.enabled:
        yield from _pairs(settings)


def pipeline_id(settings: Settings) -> str:
    """Return the pipeline ID of these settings, with placeholders for the parts that depend on the measurement.

    Raises
    ------
    DcnumdError
        If a method or one of its keywords does not exist.
    """
    # Importing the engine takes a second, so it is imported only where it is used.
    from dcnumd.logic.plan import configured_ids  # noqa: PLC0415
    from dcnumd.meta.ppid import DCNUM_PPID_GENERATION, PipelineID, get_data_ppid  # noqa: PLC0415

    pipeline = routing.pipeline_settings(settings)
    # "auto" is resolved to true or false for each measurement.
    automatic = pipeline.background_kwargs.get("offset_correction") == "auto"
    data = get_data_ppid(pipeline.pixel_size) if pipeline.pixel_size else "hdf:p=(from the file)^i=0"
    identifier = PipelineID(generation=DCNUM_PPID_GENERATION, data=data, **configured_ids(pipeline))
    return f"{identifier}" + (" (o=1 where the light flickers, else o=0)" if automatic else "")


def _fallback(settings: Settings) -> Iterator[Finding]:
    """Yield the segmenter of measurements for which the configured one is not made."""
    from dcnumd.logic.plan import fallback_id  # noqa: PLC0415 -- as above

    if (identifier := fallback_id(routing.pipeline_settings(settings))) is not None:
        text = f"{identifier} where {settings.pipeline.segmenter.code} is not made for the measurement"
        yield Finding("ok", "fallback", text)


def _processors(wanted: tuple[int, ...]) -> Finding:
    allowed = os.sched_getaffinity(0)
    if missing := sorted(set(wanted) - allowed):
        return Finding("problem", "resources.cpus", f"{missing} cannot be used here; there are {sorted(allowed)}")
    return Finding("ok", "resources.cpus", f"{sorted(wanted or allowed)}")


def _memory(settings: Settings) -> Finding:
    """Report the largest memory that all processes take together, for usual frames and for large ones."""
    resources = settings.resources
    workers = resources.num_workers or physical_cores(resources.cpus or None)
    limit = resources.max_memory_mb
    others = beside_pipeline(reports=settings.report.enabled, isoelastics=settings.report.plot.isoelastics)
    pipeline, strategy = routing.pipeline_settings(settings), settings.output.basin_strategy
    works = [expected_workload(shape, pipeline, basin_strategy=strategy) for shape in (USUAL_FRAME, LARGE_FRAME)]
    sizes = [in_mb(others + usually_needed(workers, work)) for work in works]
    usual, large = (f"{height}x{width} pixels" for height, width in (USUAL_FRAME, LARGE_FRAME))
    text = f"at most {sizes[0]} MB with {workers} workers and frames of {usual}, {sizes[1]} MB with {large}"
    if not 0 < limit < max(sizes):
        return Finding("ok", "memory", text)
    shortest = expected_workload(USUAL_FRAME, pipeline, basin_strategy=strategy, seconds=1.0)
    try:
        fitting_layout(workers, shortest, limit * 10**6, others)
    except WorkerError as error:
        return Finding("problem", "memory", str(error))
    return Finding("note", "memory", f"{text}; held below {limit} MB (resources.max_memory_mb)")


def _kernels() -> Finding:
    folders = list(candidates())
    complete = next(filter(is_complete, folders), None)
    if complete is not None:
        return Finding("ok", "kernels", f"compiled, in {complete}")
    places = " or ".join(str(folder.parent) for folder in folders)
    return Finding("note", "kernels", f"the first start compiles them, to {places}")


def _threshold(settings: Settings) -> Iterator[Finding]:
    """Yield a warning if cells would have to be brighter than the background."""
    segmenter = settings.pipeline.segmenter
    thresh = segmenter.keywords.get("thresh", -6)
    if segmenter.code == "thresh" and thresh >= 0:
        text = (
            f"{thresh} selects all pixels that are not clearly brighter than the background; cells are darker: try -6"
        )
        yield Finding("warning", "thresh", text)


def _pairs(settings: Settings) -> Iterator[Finding]:
    """Yield a warning for each feature that is to be plotted but will not be in the results."""
    for name in dict.fromkeys(name for pair in settings.report.pairs for name in pair.split(":")):
        feature = BY_NAME.get(name)
        if feature is None:
            close = difflib.get_close_matches(name, BY_NAME, n=1)
            advice = f"did you mean {close[0]}?" if close else "it must be in the measurement"
            yield Finding("warning", "report.pairs", f"{name} is not a feature that dcnumd computes; {advice}")
        elif (key := FEATURE_GROUPS.get(feature.group)) is not None:
            groups = [group.pipeline.features for group in settings.groups]
            if not any(getattr(features, key) for features in groups):
                text = f"{name} is not computed because pipeline.features.{key} is false"
                yield Finding("warning", "report.pairs", text)


def _watched(folder: pathlib.Path) -> Iterator[Finding]:
    if not _is_there(folder):
        yield Finding("warning", "watch.folders", f"{folder} does not exist; it is watched when it appears")
    elif not os.access(folder, os.R_OK | os.X_OK):
        yield Finding("problem", "watch.folders", f"{folder} cannot be read by this user")
    else:
        yield Finding("ok", "watch.folders", f"{folder}")


def _watched_outputs(settings: Settings) -> Iterator[Finding]:
    """Yield a note for each output folder that overlaps a watched folder, which is allowed."""
    outputs = {output.folder: None for output in settings.outputs if output.folder is not None}
    for output in outputs:
        for watched in settings.folders():
            there, here = (pathlib.Path(os.path.realpath(path)) for path in (output, watched))
            if there == here:
                what = "is watched, too; results in it are not taken for measurements"
            elif there in here.parents:
                what = f"holds the watched folder {watched}; results in it are not taken for measurements"
            elif here in there.parents:
                what = f"lies in the watched folder {watched}; nothing in it is taken for a measurement"
            else:
                continue
            yield Finding("note", "output.folder", f"{output} {what}")


def _target(folder: pathlib.Path, min_free_gb: float) -> Iterator[Finding]:
    nearest = _nearest(folder)
    finding = _writable("output", folder)
    if finding.level == "problem":
        # Only a note, because the daemon must start all the same; it continues once the folder can be written.
        finding = Finding("note", finding.subject, f"{finding.text}; measurements wait until it can")
    yield finding
    try:
        free = shutil.disk_usage(nearest).free / 1e9
    except OSError as error:
        yield Finding(
            "note", "space", f"{nearest} cannot be measured: {error.strerror}; measurements wait until it can"
        )
        return
    enough = free >= min_free_gb
    what = f"{free:.1f} GB free in {nearest} (resources.min_free_gb = {min_free_gb:g})"
    yield Finding("ok" if enough else "note", "space", what if enough else f"{what}; measurements wait for more")


def _state(folder: pathlib.Path) -> Finding:
    owner = lock_owner(folder)
    if owner is not None:
        return Finding("note", "state.folder", f"{folder} is in use by a running dcnumd (process {owner})")
    return _writable("state.folder", folder)


def _writable(subject: str, folder: pathlib.Path) -> Finding:
    nearest = _nearest(folder)
    if not nearest.is_dir():
        return Finding("problem", subject, f"{nearest} is not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        return Finding("problem", subject, f"{nearest} cannot be written by this user")
    return Finding("ok", subject, f"{folder}" if nearest == folder else f"{folder} (will be made)")


def _nearest(folder: pathlib.Path) -> pathlib.Path:
    """Return the path itself, or its nearest parent that exists."""
    return next(parent for parent in (folder, *folder.parents) if _is_there(parent))


def _is_there(path: pathlib.Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # The path is below a folder that this user may not enter.
        return False
