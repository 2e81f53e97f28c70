"""Settings: what config.toml says, as frozen values; `config_file` reads them.

The sample `config.toml` at the top of the project shows every key with its default.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

from dcnumd.logic.job import BasinStrategy, ExistingPolicy, Job, PipelineSettings
from dcnumd.logic.memory import beside_pipeline, in_mb
from dcnumd.report.request import Format, ReportLimits, ReportRequest

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json"]
DeletedPolicy = Literal["leave", "remake"]
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
    deleted: DeletedPolicy = "leave"
    """What the daemon does about a result that it made and that is gone."""


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

    pixel_size: float = dataclasses.field(default=0.0, metadata={"minimum_or_0": 1e-8})
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
class ReportSettings:
    """Which reports are made of results, and where."""

    enabled: bool = True
    folder: pathlib.Path | None = None
    """None: beside the results."""
    gallery: int = dataclasses.field(default=24, metadata={"minimum": 0, "maximum": 500})
    """How many cells a report shows."""
    formats: tuple[Format, ...] = ("html", "json")
    pairs: tuple[str, ...] = dataclasses.field(
        default=(), metadata={"empty": True, "pattern": (r"\w+:\w+", "two features, such as 'area_um:bright_avg'")}
    )
    """Further pairs of features to plot."""
    limits: ReportLimits = dataclasses.field(default_factory=ReportLimits)


@dataclasses.dataclass(frozen=True, slots=True)
class WebSettings:
    """The live page."""

    listen: str = dataclasses.field(
        default="", metadata={"pattern": (r"(.+:\d{1,5})?", "an address and a port, such as '127.0.0.1:8480', or ''")}
    )
    """Where it is served; empty: nowhere."""
    token_file: pathlib.Path | None = None
    """Who knows what is in it may retry and pause; None: nobody."""
    hosts: tuple[str, ...] = dataclasses.field(default=(), metadata={"empty": True})
    """Names by which browsers may ask for the page, besides the address where it is served."""


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
    report: ReportSettings = ReportSettings()
    web: WebSettings = WebSettings()
    source: pathlib.Path | None = dataclasses.field(default=None, compare=False, metadata={"internal": True})
    """The file that was read; None when there was none."""
    overrides: tuple[str, ...] = dataclasses.field(default=(), compare=False, metadata={"internal": True})
    """What the command line set."""
    several: tuple[Settings, ...] = dataclasses.field(default=(), metadata={"internal": True})
    """With several ``[[watch]]`` tables: the settings that hold for the folders of each."""
    neighbours: tuple[OutputSettings, ...] = dataclasses.field(default=(), compare=False, metadata={"internal": True})
    """For one of several: the outputs of all of them, none of which are measurements."""

    @property
    def outputs(self) -> tuple[OutputSettings, ...]:
        """How and where all results are written, also those of other groups."""
        return self.neighbours or tuple(group.output for group in self.groups)

    @property
    def groups(self) -> tuple[Settings, ...]:
        """Settings of each watched group of folders; what they share is the same in all of them."""
        return self.several or (self,)

    def folders(self) -> list[pathlib.Path]:
        """Return all watched folders."""
        return [folder for group in self.groups for folder in group.watch.folders]

    def trusted_folders(self) -> tuple[pathlib.Path, ...]:
        """Return the folders of measurements and results: what anybody puts there may lead to files in these."""
        return (*self.folders(), *(folder for output in self.outputs if (folder := output.folder) is not None))

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
        return _mirrored(path, output.folder, self.watched_folder_of(path), self.sharing(output.folder)) / name

    def index_folder_for(self, path: pathlib.Path) -> pathlib.Path:
        """Return the folder whose index lists the measurement `path`."""
        return self.report.folder or self.output_root_of(path)

    def report_request_for(self, path: pathlib.Path, result: pathlib.Path, job_id: str) -> ReportRequest:
        """Return the request for the report of a measurement whose result lies at `result`."""
        folder = result.parent
        if self.report.folder is not None:
            folder = _mirrored(path, self.report.folder, self.watched_folder_of(path), self.folders())
        job = self.watched_job_for(path, job_id)
        return ReportRequest(
            path_result=result,
            path_report=folder / result.stem,
            formats=self.report.formats,
            gallery=self.report.gallery,
            pairs=tuple((x, y) for x, _, y in (pair.partition(":") for pair in self.report.pairs)),
            limits=self.report.limits,
            root=self.index_folder_for(path),
            trusted_folders=job.trusted_folders,
            trust_basins=job.trust_basins,
            job_id=job_id,
        )

    def job_for(self, path: pathlib.Path, job_id: str) -> Job:
        """Return the job that processes the measurement `path` under these settings."""
        path = plain_path(path)
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
        return dataclasses.replace(
            self.job_for(path, job_id),
            trusted_folders=self.trusted_folders(),
            trust_basins=group.watch.allow_basins_outside,
            result_root=self.output_root_of(path),
            replace_former=True,
            other_memory_mb=in_mb(beside_pipeline(reports=self.report.enabled)),
        )

    def sharing(self, output_folder: pathlib.Path) -> list[pathlib.Path]:
        """Return the watched folders whose results go to one folder."""
        return [
            folder for group in self.groups if group.output.folder == output_folder for folder in group.watch.folders
        ]


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


def default_state_folder() -> pathlib.Path:
    """Return the folder of the ledger when the settings name none."""
    if from_systemd := os.environ.get("STATE_DIRECTORY"):
        return pathlib.Path(from_systemd.split(":", maxsplit=1)[0])
    if os.geteuid() == 0:
        return pathlib.Path("/var/lib/dcnumd")
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return pathlib.Path(base).expanduser() / "dcnumd"
