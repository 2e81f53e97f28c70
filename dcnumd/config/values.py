"""Settings: what config.toml says, as frozen values; `dcnumd.config.file` reads them.

The sample `config.toml` at the top of the project shows every key with its default.
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
    ExistingPolicy,
    Format,
    LogFormat,
    LogLevel,
    QueueOrder,
)


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
class ReportLimits:
    """From where on the traffic light of a report warns."""

    min_events: int = dataclasses.field(default=200, metadata={"minimum": 0})
    """Fewer events are few."""
    max_flicker: float = dataclasses.field(default=1.0, metadata={"minimum": 0})
    """Standard deviation of the frames' brightness about its course [grey levels]."""
    max_masks_dropped: float = dataclasses.field(default=0.05, metadata={"minimum": 0})
    """Share of masks without a contour, of all masks."""
    max_background_drift: float = dataclasses.field(default=5.0, metadata={"minimum": 0})
    """Change of the background's brightness during the recording [grey levels]."""
    min_brightness: float = dataclasses.field(default=60.0, metadata={"minimum": 0})
    """A darker background is too dark [grey levels]."""
    max_brightness: float = dataclasses.field(default=220.0, metadata={"minimum": 0})
    """A brighter one is too bright [grey levels]."""
    max_border_cells: float = dataclasses.field(default=0.5, metadata={"minimum": 0})
    """Share of cells that the edge of the frame cuts, of all cells."""
    max_saturated: float = dataclasses.field(default=0.01, metadata={"minimum": 0})
    """Share of the images' pixels that are as bright as can be stored."""
    clogging_share: float = dataclasses.field(default=0.1, metadata={"minimum": 0})
    """The flow counts as clogged when the event rate ends below this share of its usual value."""


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

    def watched_folder_of(self, path: pathlib.Path) -> pathlib.Path | None:
        """Return the innermost watched folder that holds `path`."""
        holders = [folder for folder in self.folders() if folder in path.parents]
        return max(holders, key=lambda folder: len(folder.parts), default=None)

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
