"""Settings: config.toml and ``--set`` overrides become frozen, validated values.

The sample `config.toml` at the top of the project shows every key with its default.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import tomli

from dcnumd.config_reader import SectionReader
from dcnumd.errors import ConfigError
from dcnumd.logic.job import BasinStrategy, ExistingPolicy, Job, PipelineSettings

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json"]
QueueOrder = Literal["oldest", "newest"]
Compression = Literal[
    "none",
    "zstd-1",
    "zstd-2",
    "zstd-3",
    "zstd-4",
    "zstd-5",
    "zstd-6",
    "zstd-7",
    "zstd-8",
    "zstd-9",
]

S = TypeVar("S")

SYSTEM_CONFIG = pathlib.Path("/etc/dcnumd/config.toml")


@dataclasses.dataclass(frozen=True, slots=True)
class WatchSettings:
    """Which folders are watched, and when a file in them is complete."""

    folders: tuple[pathlib.Path, ...] = (pathlib.Path("/srv/acquisition"),)
    patterns: tuple[str, ...] = ("*.rtdc",)
    recursive: bool = True
    settle_seconds: float = dataclasses.field(default=5.0, metadata={"above": 0})
    rescan_seconds: float = dataclasses.field(default=60.0, metadata={"above": 0})
    force_polling: bool = False
    poll_seconds: float = dataclasses.field(default=5.0, metadata={"above": 0})
    priority: int = 0
    """Measurements of folders with a higher one are processed first."""
    allow_basins_outside: bool = False
    """A measurement may refer to files outside of the watched folders and those of results."""


@dataclasses.dataclass(frozen=True, slots=True)
class OutputSettings:
    """Where results go and what they hold."""

    folder: pathlib.Path | None = None
    suffix: str = dataclasses.field(default="_dcn", metadata={"file_name": True})
    basin_strategy: BasinStrategy = "tap"
    compression: Compression = "zstd-5"
    existing: ExistingPolicy = "skip"


@dataclasses.dataclass(frozen=True, slots=True)
class BackgroundSettings:
    """A background method by its code, with its own keywords."""

    code: str = "sparsemed"
    keywords: Mapping[str, Any] = dataclasses.field(default_factory=dict, metadata={"rest": True})


@dataclasses.dataclass(frozen=True, slots=True)
class SegmenterSettings:
    """A segmenter by its code, with its own keywords and those of the mask processing."""

    code: str = "thresh"
    mask: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    keywords: Mapping[str, Any] = dataclasses.field(default_factory=dict, metadata={"rest": True})


@dataclasses.dataclass(frozen=True, slots=True)
class FeatureSettings:
    """Which groups of features are computed."""

    brightness: bool = True
    haralick: bool = True
    volume: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class GateSettings:
    """Which events are kept."""

    online_gates: bool = False
    size_thresh_mask: int | None = dataclasses.field(default=None, metadata={"minimum": 0})


@dataclasses.dataclass(frozen=True, slots=True)
class PipelineSection:
    """What decides the numbers in a result."""

    pixel_size: float = dataclasses.field(default=0.0, metadata={"minimum": 0})
    background: BackgroundSettings = BackgroundSettings()
    segmenter: SegmenterSettings = SegmenterSettings()
    features: FeatureSettings = FeatureSettings()
    gate: GateSettings = GateSettings()


@dataclasses.dataclass(frozen=True, slots=True)
class ResourceSettings:
    """What the work may cost."""

    num_workers: int = dataclasses.field(default=0, metadata={"minimum": 0})
    nice: int = dataclasses.field(default=10, metadata={"minimum": 0, "maximum": 19})
    cpus: tuple[int, ...] = dataclasses.field(default=(), metadata={"empty": True, "minimum": 0})
    """Processors that the working processes may use; empty: all."""
    order: QueueOrder = "oldest"
    """Which of the waiting measurements is next, among those of one priority."""
    pause_while_acquiring: bool = False
    min_free_gb: float = dataclasses.field(default=1.0, metadata={"minimum": 0})
    max_memory_mb: int = dataclasses.field(default=0, metadata={"minimum": 0})
    """All processes together take no more than this [MB]; 0: no limit."""
    job_timeout_seconds: float = dataclasses.field(default=3600.0, metadata={"minimum": 0})


@dataclasses.dataclass(frozen=True, slots=True)
class RetrySettings:
    """How often a job is tried again after a fault that may pass."""

    attempts: int = dataclasses.field(default=3, metadata={"minimum": 1})
    backoff_seconds: float = dataclasses.field(default=30.0, metadata={"minimum": 0})


@dataclasses.dataclass(frozen=True, slots=True)
class StateSettings:
    """Where the ledger lives; None is the folder that `default_state_folder` names."""

    folder: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class LogSettings:
    """What is logged, and how."""

    level: LogLevel = "info"
    format: LogFormat = "auto"
    file: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """All settings of dcnumd."""

    watch: WatchSettings = WatchSettings()
    output: OutputSettings = OutputSettings()
    pipeline: PipelineSection = PipelineSection()
    resources: ResourceSettings = ResourceSettings()
    retry: RetrySettings = RetrySettings()
    state: StateSettings = StateSettings()
    log: LogSettings = LogSettings()
    source: pathlib.Path | None = dataclasses.field(default=None, compare=False, metadata={"internal": True})
    """The file that was read; None when there was none."""
    several: tuple[Settings, ...] = dataclasses.field(default=(), metadata={"internal": True})
    """With several ``[[watch]]`` tables: the settings that hold for the folders of each."""

    @property
    def groups(self) -> tuple[Settings, ...]:
        """Settings of each watched group of folders; what they share is the same in all of them."""
        return self.several or (self,)

    def folders(self) -> list[pathlib.Path]:
        """Return all watched folders."""
        return [folder for group in self.groups for folder in group.watch.folders]

    def group_of(self, path: pathlib.Path) -> Settings:
        """Return the settings that hold for a measurement: those of the innermost watched folder that holds it."""
        if not self.several:
            return self
        folder = self.watched_folder_of(path)
        return next((group for group in self.several if folder in group.watch.folders), self)

    def state_folder(self) -> pathlib.Path:
        """Return the folder of the ledger."""
        return self.state.folder or default_state_folder()

    def pipeline_settings(self) -> PipelineSettings:
        """Return what decides the numbers, in the form that a job carries."""
        pipeline = self.pipeline
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

    def watched_folder_of(self, path: pathlib.Path) -> pathlib.Path | None:
        """Return the innermost watched folder that holds `path`."""
        holders = [folder for folder in self.folders() if folder in path.parents]
        return max(holders, key=lambda folder: len(folder.parts), default=None)

    def output_root_of(self, path: pathlib.Path) -> pathlib.Path:
        """Return the folder that the result of the measurement `path` must not leave."""
        return self.group_of(path).output.folder or self.watched_folder_of(path) or path.parent

    def output_for(self, path: pathlib.Path) -> pathlib.Path:
        """Return where the result of the measurement `path` goes.

        With ``output.folder`` the tree below the watched folder is mirrored there. When the results of several
        folders go there, each has its own tree under its own name, so that equal names do not meet.
        """
        output = self.group_of(path).output
        name = f"{path.stem}{output.suffix}.rtdc"
        if output.folder is None:
            return path.with_name(name)
        root = self.watched_folder_of(path)
        if root is None:
            return output.folder / name
        base = output.folder / root.name if len(self.sharing(output.folder)) > 1 else output.folder
        return base / path.parent.relative_to(root) / name

    def job_for(self, path: pathlib.Path, job_id: str) -> Job:
        """Return the job that processes the measurement `path` under these settings."""
        path = pathlib.Path(os.path.abspath(path))  # noqa: PTH100 -- resolve() would follow links
        group = self.group_of(path)
        return Job(
            path_in=path,
            path_out=self.output_for(path),
            settings=group.pipeline_settings(),
            basin_strategy=group.output.basin_strategy,
            compression=group.output.compression,
            existing=group.output.existing,
            num_workers=self.resources.num_workers,
            job_id=job_id,
            max_memory_mb=self.resources.max_memory_mb,
        )

    def watched_job_for(self, path: pathlib.Path, job_id: str) -> Job:
        """Return the job for a measurement that anybody may have put into a watched folder: it is not trusted."""
        group = self.group_of(path)
        outputs = [folder for other in self.groups if (folder := other.output.folder) is not None]
        return dataclasses.replace(
            self.job_for(path, job_id),
            trusted_folders=(*self.folders(), *outputs),
            trust_basins=group.watch.allow_basins_outside,
            result_root=self.output_root_of(path),
        )

    def sharing(self, output_folder: pathlib.Path) -> list[pathlib.Path]:
        """Return the watched folders whose results go to one folder."""
        return [
            folder for group in self.groups if group.output.folder == output_folder for folder in group.watch.folders
        ]


def default_state_folder() -> pathlib.Path:
    """Return the folder of the ledger when the settings name none."""
    if from_systemd := os.environ.get("STATE_DIRECTORY"):
        return pathlib.Path(from_systemd.split(":", maxsplit=1)[0])
    if os.geteuid() == 0:
        return pathlib.Path("/var/lib/dcnumd")
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return pathlib.Path(base).expanduser() / "dcnumd"


def find_config(explicit: pathlib.Path | None) -> pathlib.Path | None:
    """Return the config file to use, None if there is none.

    Raises
    ------
    ConfigError
        If the file that was asked for, on the command line or by ``$DCNUMD_CONFIG``, does not exist.
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
        A TOML file, or None for the defaults. Relative folders in it count from the file's own folder.
    overrides
        Texts like ``pipeline.segmenter.thresh=-8``; the value is TOML, and what is not is taken as text.
        Relative folders in them count from the current folder.

    Raises
    ------
    ConfigError
        Naming file, key, what is wrong and what is allowed.
    """
    table = _read_toml(path) if path else {}
    origins: dict[str, str] = {}
    for override in overrides:
        origins |= _apply_override(table, override)
    reader = SectionReader(str(path) if path else "built-in defaults", path.parent if path else None, origins)
    watch = table.get("watch", {})
    several = watch if isinstance(watch, list) else [watch]
    common = {name: section for name, section in table.items() if name != "watch"}
    root = dataclasses.replace(reader.read(Settings, common), source=path)
    if not several:
        raise reader.error("watch", "got an empty list; at least one [[watch]] table is needed")
    names = [f"watch[{number}]." for number in range(1, len(several) + 1)] if len(several) > 1 else ["watch."]
    groups = [_read_group(reader, root, common, *named) for named in zip(several, names, strict=True)]
    settings = groups[0] if len(groups) == 1 else dataclasses.replace(root, several=tuple(groups))
    _check_folders(settings, reader)
    return settings


def _read_group(reader: SectionReader, root: Settings, common: Mapping[str, Any], table: Any, prefix: str) -> Settings:
    """Return the settings for one group of watched folders, which may have an output and a pipeline of their own."""
    if not isinstance(table, dict):
        raise reader.error(prefix.rstrip("."), f"got {table!r}; a section is expected")
    own = {name: table[name] for name in ("output", "pipeline") if name in table}
    watch = reader.read(WatchSettings, {name: value for name, value in table.items() if name not in own}, prefix)
    sections: dict[str, Any] = {"watch": watch}
    for name, kind in (("output", OutputSettings), ("pipeline", PipelineSection)):
        if name in own:
            if not isinstance(own[name], dict):
                raise reader.error(f"{prefix}{name}", f"got {own[name]!r}; a section is expected")
            merged = _merged(common.get(name, {}), own[name])
            sections[name] = reader.read(kind, merged, f"{prefix}{name}.")
    return dataclasses.replace(root, **sections)


def _merged(table: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with what another one says in its place; another method brings all of its keywords."""
    base = dict(table)
    if "code" in over and over["code"] != base.get("code"):
        base = {}
    for key, value in over.items():
        inner = base.get(key)
        base[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return base


def _read_toml(path: pathlib.Path) -> dict[str, Any]:
    try:
        return tomli.loads(path.read_text(encoding="utf-8"))
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def _apply_override(table: dict[str, Any], override: str) -> dict[str, str]:
    """Put one ``--set`` into the table; return the key with the text to blame for it."""
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
    """Refuse folders that are watched twice, and mirrored trees in which the results of two folders could meet."""
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
