"""The command `check`: whether the daemon can work with a config, and which pipeline ID it computes."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from dcnumd.commands.check_executor import executor_findings
from dcnumd.commands.check_file import check_file
from dcnumd.commands.check_live import live_findings
from dcnumd.commands.check_pipeline import check_pipeline, measured_speeds, pipeline_id, speed_in_words
from dcnumd.commands.finding import Finding
from dcnumd.commands.options import json_option, with_settings
from dcnumd.config.values import Settings
from dcnumd.daemon.ownership import lock_owner
from dcnumd.errors import DcnumdError
from dcnumd.kernels.cache import candidates, is_complete
from dcnumd.meta.features import BY_NAME

if TYPE_CHECKING:
    from dcnumd.logic.speed import Speed

FEATURE_GROUPS = {"brightness": "brightness", "texture": "haralick", "volume": "volume"}
"""Key in the section ``pipeline.features`` that turns on each group of features, for groups that can be turned off."""


@click.command(epilog="Example: dcnumd check -c config.toml /srv/acquisition/M001_data.rtdc")
@click.argument("files", metavar="[FILE…]", nargs=-1, type=click.Path(path_type=pathlib.Path))
@click.option("--quick", is_flag=True, help="Do not measure how fast models are.")
@json_option
@with_settings(config_needed=True)
def check(settings: Settings, files: tuple[pathlib.Path, ...], quick: bool, as_json: bool) -> int:
    """Say whether the config is sound: folders, rights, space, methods; and which pipeline ID it makes.

    Also say of each FILE whether it can be processed with this config, and by which segmenter. Segmenters with a model
    are run for 2 s to measure their speed. A warning is about something that works but is probably a mistake, such as a
    watched folder that is missing; the daemon watches it when it appears. Exit code 2 if there is a problem, 1 if a
    FILE cannot be processed.
    """
    findings = list(check_settings(settings))
    ppids: list[str] = []
    for group in settings.groups:
        try:
            ppids.append(pipeline_id(group))
        except DcnumdError as error:
            findings.append(Finding("problem", "pipeline", error.message))
        else:
            findings += check_pipeline(group, ppids[-1])
    speeds: list[Speed] = []
    # The frames and the camera of a file tell more than a model does; and workers have their own speed.
    here = settings.executor.kind == "local" or settings.executor.fallback_minutes > 0
    if here and not quick and not files and _is_sound(findings):
        try:
            speeds = measured_speeds(settings)
        except DcnumdError as error:
            findings.append(Finding("problem", "speed", error.message))
        findings += map(speed_in_words, speeds)
    sound = _is_sound(findings)
    checked = [check_file(settings, path, quick=quick) for path in files]
    if as_json:
        found = [dataclasses.asdict(finding) for finding in findings]
        told = [dataclasses.asdict(one) for one in checked]
        ppid = ppids[0] if ppids else ""
        document = {"sound": sound, "ppid": ppid, "ppids": ppids, "findings": found, "files": told}
        document["speeds"] = [dataclasses.asdict(speed) for speed in speeds]
        click.echo(json.dumps(document, indent=2))
    else:
        for finding in (*findings, *itertools.chain.from_iterable(one.findings for one in checked)):
            click.echo(finding.line)
    if not sound:
        return 2
    return 1 if any(one.reason for one in checked) else 0


def _is_sound(findings: Iterable[Finding]) -> bool:
    return all(finding.level != "problem" for finding in findings)


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
    yield from executor_findings(settings)
    yield from live_findings(settings)
    yield _processors(settings.resources.cpus)
    yield _state(settings.state_folder())
    if settings.log.file is not None:
        yield _writable("log.file", settings.log.file.parent)
    yield _kernels()
    if settings.report.enabled:
        yield from _pairs(settings)


def _processors(wanted: tuple[int, ...]) -> Finding:
    allowed = os.sched_getaffinity(0)
    if missing := sorted(set(wanted) - allowed):
        return Finding("problem", "resources.cpus", f"{missing} cannot be used here; there are {sorted(allowed)}")
    return Finding("ok", "resources.cpus", f"{sorted(wanted or allowed)}")


def _kernels() -> Finding:
    folders = list(candidates())
    complete = next(filter(is_complete, folders), None)
    if complete is not None:
        return Finding("ok", "kernels", f"compiled, in {complete}")
    places = " or ".join(str(folder.parent) for folder in folders)
    return Finding("note", "kernels", f"the first start compiles them, to {places}")


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
