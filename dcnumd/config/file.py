"""Search for the config file, reading of it, and overrides from the command line."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tomli

from dcnumd.config.path_map import PathMap
from dcnumd.config.reader import SectionReader
from dcnumd.config.slips import explain
from dcnumd.config.values import (
    BackgroundSettings,
    OutputSettings,
    PipelineSection,
    SegmenterSettings,
    Settings,
    WatchSettings,
)
from dcnumd.errors import ConfigError
from dcnumd.extras import lacking

DEFAULT_CODES = {"background": BackgroundSettings().code, "segmenter": SegmenterSettings().code}
"""Code of the default method by the name of its section."""
SYSTEM_CONFIG = pathlib.Path("/etc/dcnumd/config.toml")


def find_config(explicit: pathlib.Path | None) -> pathlib.Path | None:
    """Return the absolute path of the config file; None if there is none.

    Raises
    ------
    ConfigError
        If the file that was named on the command line or by ``$DCNUMD_CONFIG`` does not exist.
    """
    named = explicit or (pathlib.Path(value) if (value := os.environ.get("DCNUMD_CONFIG")) else None)
    if named is not None:
        if not named.is_file():
            origin = "-c" if explicit else "$DCNUMD_CONFIG"
            raise ConfigError(f"{named}: no such config file (asked for by {origin})")
        return named.absolute()
    for candidate in (pathlib.Path("config.toml"), SYSTEM_CONFIG):
        if candidate.is_file():
            return candidate.absolute()
    return None


def load_settings(path: pathlib.Path | None, overrides: Sequence[str] = ()) -> Settings:
    """Read settings from a config file, if any, and apply ``--set`` overrides.

    Parameters
    ----------
    path
        Path of a TOML file; None for the defaults. Relative folders in it are relative to the folder of the file.
    overrides
        Overrides such as ``pipeline.segmenter.thresh=-8``; a value that is not valid TOML is taken as text. Relative
        folders in them are relative to the current folder.

    Raises
    ------
    ConfigError
        If settings are wrong; the message contains file, key, problem and what is allowed, for each of them.
    """
    table = _read_toml(path) if path else {}
    origins: dict[str, str] = {}
    for override in overrides:
        origins |= _apply_override(table, override)
    reader = SectionReader(str(path) if path else "built-in defaults", path.parent if path else None, origins)
    watch = table.get("watch", {})
    several = watch if isinstance(watch, list) else [watch]
    common = {name: section for name, section in table.items() if name != "watch"}
    root = dataclasses.replace(reader.read(Settings, common), source=path, overrides=tuple(overrides))
    if not several:
        raise reader.error("watch", "got an empty list; at least one [[watch]] table is needed")
    names = [f"watch[{number}]." for number in range(1, len(several) + 1)] if len(several) > 1 else ["watch."]
    groups = [_read_group(reader, root, common, *named) for named in zip(several, names, strict=True)]
    reader.finish()
    settings = groups[0]
    if len(groups) > 1:
        outputs = tuple(group.output for group in groups)
        members = tuple(dataclasses.replace(group, neighbours=outputs) for group in groups)
        settings = dataclasses.replace(root, several=members)
    _check_folders(settings, reader)
    _check_executor(settings, reader)
    _check_live(settings, reader)
    return settings


def reread_settings(settings: Settings) -> Settings:
    """Read the config file of `settings` again, with the same overrides.

    Raises
    ------
    ConfigError
        As for `load_settings`.
    """
    return load_settings(settings.source, settings.overrides)


def _read_group(reader: SectionReader, root: Settings, common: Mapping[str, Any], table: Any, prefix: str) -> Settings:
    """Return the settings of one group of watched folders, which may have its own output and pipeline."""
    if not isinstance(table, dict):
        reader.mistakes.append(reader.error(prefix.rstrip("."), f"got {table!r}; a section is expected"))
        return root
    own = {name: table[name] for name in ("output", "pipeline") if name in table}
    watch = reader.read(WatchSettings, {name: value for name, value in table.items() if name not in own}, prefix)
    sections: dict[str, Any] = {"watch": watch}
    for name, kind in (("output", OutputSettings), ("pipeline", PipelineSection)):
        if name in own:
            if not isinstance(own[name], dict):
                reader.mistakes.append(reader.error(f"{prefix}{name}", f"got {own[name]!r}; a section is expected"))
                continue
            merged = _merged(common.get(name, {}), own[name])
            sections[name] = reader.read(kind, merged, f"{prefix}{name}.")
    return dataclasses.replace(root, **sections)


def _merged(table: Mapping[str, Any], over: Mapping[str, Any], default_code: str = "") -> dict[str, Any]:
    """Return `table` with the values of `over` in it; if the method is another one, keywords of `table` are dropped.

    `default_code` is the method of a section that names none.
    """
    base = dict(table)
    if "code" in over and over["code"] != base.get("code", default_code):
        base = {}
    for key, value in over.items():
        inner = base.get(key)
        if isinstance(inner, dict) and isinstance(value, dict):
            base[key] = _merged(inner, value, DEFAULT_CODES.get(key, ""))
        else:
            base[key] = value
    return base


def _read_toml(path: pathlib.Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {explain(text, error.lineno, error.msg)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}; save the file as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def _apply_override(table: dict[str, Any], override: str) -> dict[str, str]:
    """Apply one ``--set`` to the table; return the key with the text that error messages give as its origin."""
    key, separator, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not separator or not all(parts):
        raise ConfigError(f"--set {override}: expected key=value, for example pipeline.segmenter.thresh=-8")
    try:
        value = tomli.loads(f"value = {text}")["value"]
    except tomli.TOMLDecodeError:
        value = text
    for part in parts[:-1]:
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict):
            what = "stands for several tables; change them in the file" if isinstance(inner, list) else "is a value"
            raise ConfigError(f"--set {override}: {part} {what}, not a section")
        table = inner
    table[parts[-1]] = value
    return {".".join(parts): f"--set {override}"}


def _check_folders(settings: Settings, reader: SectionReader) -> None:
    """Raise an error if a folder is watched twice, or if mirrored results of two watched folders could collide."""
    folders = settings.folders()
    twice = next((folder for number, folder in enumerate(folders) if folder in folders[:number]), None)
    if twice is not None and settings.several:
        raise reader.error("watch.folders", f"{twice} is watched twice; each folder belongs to one [[watch]] table")
    for group in settings.groups:
        sharing = settings.sharing(group.output.folder) if group.output.folder is not None else []
        names = [folder.name for folder in sharing]
        if len(set(names)) < len(names):
            listed = ", ".join(str(folder) for folder in sharing)
            raise reader.error(
                "output.folder",
                f"the watched folders {listed} would share one tree of results, because their names are equal; "
                f'watch folders with different names, or set output.folder to ""',
            )


def _check_executor(settings: Settings, reader: SectionReader) -> None:
    """Raise an error if jobs cannot be given to the workers of the configured cluster."""
    executor = settings.executor
    if executor.kind == "local":
        return
    if lack := lacking("distributed"):
        raise reader.error("executor.kind", f'"dask" cannot be used: {lack}')
    if bool(executor.scheduler) == (executor.scheduler_file is not None):
        raise reader.error("executor", 'with kind = "dask", either scheduler or scheduler_file is needed')
    paths = PathMap.of(executor.paths)
    reports = [settings.report.folder] if settings.report.enabled and settings.report.folder is not None else []
    for folder in (*settings.trusted_folders(), *reports):
        if not paths.covers(folder):
            raise reader.error("executor.paths", f"says nothing of {folder}; add its folder on the workers")


def _check_live(settings: Settings, reader: SectionReader) -> None:
    """Raise an error if other settings exclude the processing of measurements while they are recorded."""
    if not settings.live.enabled:
        return
    if settings.resources.pause_while_acquiring:
        raise reader.error(
            "live.enabled",
            "excludes resources.pause_while_acquiring, which suspends all processing during a recording; "
            "set one of them to false",
        )
    if settings.executor.kind == "dask":
        raise reader.error(
            "live.enabled",
            'excludes executor.kind = "dask": a recording is read on the computer to which the instrument writes it, '
            "because other computers may see parts of a growing file late or in another order",
        )
