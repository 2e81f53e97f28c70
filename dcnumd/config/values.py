"""Settings: the content of config.toml as frozen dataclasses; `dcnumd.config.file` reads them.

The sample `config.toml` in the root of the project contains every key with its default.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from dcnumd.config.choices import (
    BasinStrategy,
    Compression,
    DeletedPolicy,
    ExecutorKind,
    ExistingPolicy,
    Format,
    InterruptedPolicy,
    LogFormat,
    LogLevel,
    QueueOrder,
)


@dataclasses.dataclass(frozen=True, slots=True)
class WatchSettings:
    """Settings of watched folders, and of when a file in them counts as complete."""

    folders: tuple[pathlib.Path, ...] = (pathlib.Path("/srv/acquisition"),)
    patterns: tuple[str, ...] = ("*.rtdc",)
    recursive: bool = True
    settle_seconds: float = dataclasses.field(default=5.0, metadata={"above": 0})
    early_start: bool = True
    """Whether a file is processed during its settle time; its result is published when that has passed."""
    rescan_seconds: float = dataclasses.field(default=60.0, metadata={"above": 0})
    force_polling: bool = False
    poll_seconds: float = dataclasses.field(default=5.0, metadata={"above": 0})
    interrupted: InterruptedPolicy = "fail"
    """What to do with a recording that was interrupted."""
    priority: int = 0
    """Priority of the measurements in these folders; higher priorities are processed first."""
    allow_basins_outside: bool = False
    """Whether a measurement may refer to files outside of the watched folders and the folders of results."""


@dataclasses.dataclass(frozen=True, slots=True)
class OutputSettings:
    """Settings of the place and the content of results."""

    folder: pathlib.Path | None = None
    suffix: str = dataclasses.field(default="_dcn", metadata={"file_name": True})
    basin_strategy: BasinStrategy = "tap"
    compression: Compression = "zstd-5"
    existing: ExistingPolicy = "skip"
    deleted: DeletedPolicy = "leave"
    """What the daemon does if a result that it made has been removed."""


@dataclasses.dataclass(frozen=True, slots=True)
class BackgroundSettings:
    """Code of a background method, and its keywords."""

    code: str = "sparsemed"
    keywords: Mapping[str, Any] = dataclasses.field(default_factory=dict, metadata={"rest": True})


@dataclasses.dataclass(frozen=True, slots=True)
class FallbackSettings:
    """The segmenter for measurements for which the configured one is not made; with an empty code, they fail."""

    code: str = ""
    mask: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    keywords: Mapping[str, Any] = dataclasses.field(
        default_factory=dict, metadata={"rest": True, "files": ("model_file",)}
    )


@dataclasses.dataclass(frozen=True, slots=True)
class SegmenterSettings:
    """Code of a segmenter, its keywords, and those of the mask processing."""

    code: str = "thresh"
    mask: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fallback: FallbackSettings = dataclasses.field(default=FallbackSettings(), metadata={"short": "code"})
    keywords: Mapping[str, Any] = dataclasses.field(
        default_factory=dict, metadata={"rest": True, "files": ("model_file",)}
    )


@dataclasses.dataclass(frozen=True, slots=True)
class FeatureSettings:
    """Groups of features that are computed."""

    brightness: bool = True
    haralick: bool = True
    volume: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class GateSettings:
    """Conditions for events to be kept."""

    online_gates: bool = False
    size_thresh_mask: int | None = dataclasses.field(default=None, metadata={"minimum": 0})


@dataclasses.dataclass(frozen=True, slots=True)
class PipelineSection:
    """Settings that determine the numbers in a result."""

    pixel_size: float = dataclasses.field(default=0.0, metadata={"minimum_or_0": 1e-8})
    background: BackgroundSettings = BackgroundSettings()
    segmenter: SegmenterSettings = SegmenterSettings()
    features: FeatureSettings = FeatureSettings()
    gate: GateSettings = GateSettings()


@dataclasses.dataclass(frozen=True, slots=True)
class ModelSettings:
    """Settings of models for segmentation."""

    folders: tuple[pathlib.Path, ...] = dataclasses.field(default=(), metadata={"empty": True})
    """Folders in which models are looked for by their names."""


@dataclasses.dataclass(frozen=True, slots=True)
class ResourceSettings:
    """Settings of the resources that processing may use."""

    num_workers: int = dataclasses.field(default=0, metadata={"minimum": 0})
    nice: int = dataclasses.field(default=10, metadata={"minimum": 0, "maximum": 19})
    cpus: tuple[int, ...] = dataclasses.field(default=(), metadata={"empty": True, "minimum": 0})
    """Numbers of the processors that the worker processes may use; empty means all."""
    order: QueueOrder = "oldest"
    """Order in which waiting measurements of equal priority are processed."""
    pause_while_acquiring: bool = False
    min_free_gb: float = dataclasses.field(default=1.0, metadata={"minimum": 0})
    max_memory_mb: int = dataclasses.field(default=0, metadata={"minimum": 0})
    """Memory limit of all processes together [MB]; 0 means no limit."""
    job_timeout_seconds: float = dataclasses.field(default=3600.0, metadata={"minimum": 0})


@dataclasses.dataclass(frozen=True, slots=True)
class LiveSettings:
    """Settings of the processing of measurements while they are recorded."""

    enabled: bool = False
    view_seconds: float = dataclasses.field(default=2.0, metadata={"above": 0})
    """Largest age of what the live page shows [s]; if the camera is too fast, some frames are left for later."""
    spool_mb: int = dataclasses.field(default=4096, metadata={"minimum": 1})
    """Largest size of the file with the events of a recording [MB]."""


@dataclasses.dataclass(frozen=True, slots=True)
class ExecutorSettings:
    """Settings of where jobs run."""

    kind: ExecutorKind = "local"
    scheduler: str = ""
    """Address of the Dask scheduler; empty if `scheduler_file` names the file that contains it."""
    scheduler_file: pathlib.Path | None = None
    capacity: int = dataclasses.field(default=0, metadata={"minimum": 0})
    """Number of jobs of this daemon that may run at the same time; 0 means one for each worker."""
    paths: Mapping[str, Any] = dataclasses.field(default_factory=dict, metadata={"path_pairs": True})
    """Folder on the workers for each folder on this computer; empty means that the paths are equal."""
    fallback_minutes: float = dataclasses.field(default=0.0, metadata={"minimum": 0})
    """Time without a scheduler or a worker after which jobs run on this computer [min]; 0 means never."""


@dataclasses.dataclass(frozen=True, slots=True)
class RetrySettings:
    """Settings of further attempts after a transient error."""

    attempts: int = dataclasses.field(default=3, metadata={"minimum": 1})
    backoff_seconds: float = dataclasses.field(default=30.0, metadata={"minimum": 0})


@dataclasses.dataclass(frozen=True, slots=True)
class StateSettings:
    """Folder of the ledger; None means that of `default_state_folder`."""

    folder: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class LogSettings:
    """Settings of logging."""

    level: LogLevel = "info"
    format: LogFormat = "auto"
    file: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ReportLimits:
    """Limits beyond which the traffic light of a report warns, and of the events whose medians head it."""

    min_events: int = dataclasses.field(default=200, metadata={"minimum": 0})
    """Smallest number of events."""
    max_flicker: float = dataclasses.field(default=1.0, metadata={"minimum": 0})
    """Largest standard deviation of the frames' brightness about its trend [grey levels]."""
    max_masks_dropped: float = dataclasses.field(default=0.05, metadata={"minimum": 0})
    """Largest fraction of masks without a contour among all masks."""
    max_background_drift: float = dataclasses.field(default=5.0, metadata={"minimum": 0})
    """Largest change of the background's brightness during the recording [grey levels]."""
    min_brightness: float = dataclasses.field(default=60.0, metadata={"minimum": 0})
    """Smallest brightness of the background [grey levels]."""
    max_brightness: float = dataclasses.field(default=220.0, metadata={"minimum": 0})
    """Largest brightness of the background [grey levels]."""
    max_border_cells: float = dataclasses.field(default=0.5, metadata={"minimum": 0})
    """Largest fraction of cells that are cut by the edge of the frame among all cells."""
    max_saturated: float = dataclasses.field(default=0.01, metadata={"minimum": 0})
    """Largest fraction of the images' pixels that have the largest value that can be stored."""
    clogging_share: float = dataclasses.field(default=0.1, metadata={"minimum": 0})
    """Smallest event rate at the end as a fraction of the usual rate; below it, the flow counts as clogged."""
    max_area_ratio: float = dataclasses.field(default=1.05, metadata={"minimum_or_0": 1})
    """Largest porosity of the events whose median area and deformation head the report; 0 means all events."""
    max_ragged: float = dataclasses.field(default=0.75, metadata={"minimum": 0})
    """Largest fraction of events with a porosity above `max_area_ratio` among all events."""


@dataclasses.dataclass(frozen=True, slots=True)
class PlotSettings:
    """Settings of the standard plot, which shows deformation over area."""

    area: tuple[float, ...] = dataclasses.field(
        default=(), metadata={"ends": True, "minimum": 0.0, "maximum": 100_000.0}
    )
    """Ends of the area axis [µm²]; empty means that they follow from the width of the channel."""
    deform: tuple[float, ...] = dataclasses.field(default=(), metadata={"ends": True, "minimum": -1.0, "maximum": 1.0})
    """Ends of the deformation axis; empty means the usual ones."""
    isoelastics: bool = True
    """Whether lines of equal elasticity are drawn, which requires dclab."""


@dataclasses.dataclass(frozen=True, slots=True)
class ReportSettings:
    """Settings of the reports of results."""

    enabled: bool = True
    folder: pathlib.Path | None = None
    """Folder of the reports; None puts them beside the results."""
    gallery: int = dataclasses.field(default=24, metadata={"minimum": 0, "maximum": 500})
    """Number of cells that a report shows."""
    formats: tuple[Format, ...] = ("html", "json")
    pairs: tuple[str, ...] = dataclasses.field(
        default=(), metadata={"empty": True, "pattern": (r"\w+:\w+", "two features, such as 'area_um:bright_avg'")}
    )
    """Additional pairs of features to plot."""
    plot: PlotSettings = dataclasses.field(default_factory=PlotSettings)
    limits: ReportLimits = dataclasses.field(default_factory=ReportLimits)


@dataclasses.dataclass(frozen=True, slots=True)
class WebSettings:
    """Settings of the live page."""

    listen: str = dataclasses.field(
        default="", metadata={"pattern": (r"(.+:\d{1,5})?", "an address and a port, such as '127.0.0.1:8480', or ''")}
    )
    """Address and port of the page; empty means that it is not served."""
    token_file: pathlib.Path | None = None
    """File with the token that permits to retry and pause; None means that nobody may do so."""
    hosts: tuple[str, ...] = dataclasses.field(default=(), metadata={"empty": True})
    """Host names with which browsers may request the page, besides its address."""


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """All settings of dcnumd."""

    watch: WatchSettings = WatchSettings()
    output: OutputSettings = OutputSettings()
    pipeline: PipelineSection = PipelineSection()
    models: ModelSettings = ModelSettings()
    resources: ResourceSettings = ResourceSettings()
    live: LiveSettings = LiveSettings()
    executor: ExecutorSettings = ExecutorSettings()
    retry: RetrySettings = RetrySettings()
    state: StateSettings = StateSettings()
    log: LogSettings = LogSettings()
    report: ReportSettings = ReportSettings()
    web: WebSettings = WebSettings()
    source: pathlib.Path | None = dataclasses.field(default=None, compare=False, metadata={"internal": True})
    """Path of the config file that was read; None if there was none."""
    overrides: tuple[str, ...] = dataclasses.field(default=(), compare=False, metadata={"internal": True})
    """Overrides from the command line."""
    several: tuple[Settings, ...] = dataclasses.field(default=(), metadata={"internal": True})
    """Settings for the folders of each ``[[watch]]`` table; empty if there is only one table."""
    neighbours: tuple[OutputSettings, ...] = dataclasses.field(default=(), compare=False, metadata={"internal": True})
    """Outputs of all groups, for one of several groups; none of the files there are measurements."""

    @property
    def outputs(self) -> tuple[OutputSettings, ...]:
        """Settings of all results, including those of other groups."""
        return self.neighbours or tuple(group.output for group in self.groups)

    @property
    def groups(self) -> tuple[Settings, ...]:
        """Settings of each group of watched folders; shared settings are equal in all of them."""
        return self.several or (self,)

    def folders(self) -> list[pathlib.Path]:
        """Return all watched folders."""
        return [folder for group in self.groups for folder in group.watch.folders]

    def trusted_folders(self) -> tuple[pathlib.Path, ...]:
        """Return the folders of measurements and results; files there may refer to files in all of them."""
        return (*self.folders(), *(folder for output in self.outputs if (folder := output.folder) is not None))

    def group_of(self, path: pathlib.Path) -> Settings:
        """Return the settings for a measurement: those of the innermost watched folder that contains it."""
        if not self.several:
            return self
        folder = self.watched_folder_of(path)
        return next((group for group in self.several if folder in group.watch.folders), self)

    def state_folder(self) -> pathlib.Path:
        """Return the folder of the ledger."""
        return self.state.folder or default_state_folder()

    def watched_folder_of(self, path: pathlib.Path) -> pathlib.Path | None:
        """Return the innermost watched folder that contains `path`; None if there is none."""
        # Not by `path.parents`, which makes a path of each: this is asked several times for each measurement.
        above = path.parts[:-1]
        holders = [folder for folder in self.folders() if above[: len(folder.parts)] == folder.parts]
        return max(holders, key=lambda folder: len(folder.parts), default=None)

    def sharing(self, output_folder: pathlib.Path) -> list[pathlib.Path]:
        """Return the watched folders whose results go to `output_folder`."""
        return [
            folder for group in self.groups if group.output.folder == output_folder for folder in group.watch.folders
        ]


def default_state_folder() -> pathlib.Path:
    """Return the folder of the ledger that is used if the settings name none."""
    if from_systemd := os.environ.get("STATE_DIRECTORY"):
        return pathlib.Path(from_systemd.split(":", maxsplit=1)[0])
    if os.geteuid() == 0:
        return pathlib.Path("/var/lib/dcnumd")
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return pathlib.Path(base).expanduser() / "dcnumd"
