"""Jobs and their results as frozen values.

This module imports no numerical code, so that the supervisor can create jobs and read their results.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from dcnumd.config.choices import BasinStrategy, ExistingPolicy
from dcnumd.logic.stamp import Stamp


@dataclasses.dataclass(frozen=True, slots=True)
class SegmenterSpec:
    """A segmenter with its keywords and those of the mask processing."""

    code: str
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mask_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class PipelineSettings:
    """Settings that determine the numbers in a result, and therefore its pipeline identifier."""

    pixel_size: float | None = None
    """Pixel size [µm]; None for that of the file."""
    index_mapping: int | tuple[int, ...] | slice | None = None
    """Frames of the input that are processed; None for all."""
    background_code: str = "sparsemed"
    background_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Keywords of the background; ``offset_correction`` may be "auto", which the flicker check resolves."""
    segmenter_code: str = "thresh"
    segmenter_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mask_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fallback: SegmenterSpec | None = None
    """Segmenter for measurements for which that of the pipeline is not made; None if these fail."""
    feature_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    gate_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model_folders: tuple[pathlib.Path, ...] = ()
    """Folders in which a file of a segmenter, such as its model, is looked for if it is given by its name."""

    @property
    def segmenter(self) -> SegmenterSpec:
        """The segmenter of the pipeline."""
        return SegmenterSpec(self.segmenter_code, self.segmenter_kwargs, self.mask_kwargs)

    @property
    def segmenters(self) -> tuple[SegmenterSpec, ...]:
        """The segmenter of the pipeline and, if there is one, its fallback."""
        return (self.segmenter, *([self.fallback] if self.fallback is not None else []))


class KnownContent(NamedTuple):
    """The content of a file at the time of a stamp."""

    stamp: Stamp
    digest: str
    """See `dcnumd.read.content.content_digest`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One measurement to process; both paths are absolute."""

    path_in: pathlib.Path
    path_out: pathlib.Path
    settings: PipelineSettings = PipelineSettings()
    basin_strategy: BasinStrategy = "tap"
    compression: str = "zstd-5"
    existing: ExistingPolicy = "skip"
    num_workers: int = 0
    """Number of worker processes; 0 means one for each physical core."""
    job_id: str = ""
    trusted_folders: tuple[pathlib.Path, ...] | None = None
    """Folders in and below which files may be read to which the measurement refers; None for any."""
    trust_basins: bool = True
    """Whether basins may be outside of `trusted_folders`."""
    result_root: pathlib.Path | None = None
    """Folder that symbolic links in the path of the result must not leave; None for the result's own folder."""
    max_memory_mb: int = 0
    """Limit for the memory of all processes together [MB]; 0 for no limit."""
    other_memory_mb: int = 0
    """Part of that memory that processes other than the pipeline take [MB]."""
    replace_former: bool = False
    """With `existing` = ``skip``, whether to replace a result that dcnumd made from an earlier content of `path_in`."""
    known: KnownContent | None = None
    """Known content of `path_in`, which need not be digested again if its stamp is unchanged."""
    interrupted: bool = False
    """Whether to process the frames that all features have if the file is marked as open for writing in SWMR mode."""
    path_told: pathlib.Path | None = None
    """Absolute path of the measurement in the result, if it is not that on the computer that processes it."""
    spool: pathlib.Path | None = dataclasses.field(default=None, compare=False)
    """Events that were computed while the recording grew; those that hold for the finished file are used."""


Outcome = Literal["done", "skipped"]


@dataclasses.dataclass(frozen=True, slots=True)
class JobResult:
    """Outcome of a job that did not fail; a job that fails raises a `DcnumdError`."""

    outcome: Outcome
    reason: str
    """Reason code of a skipped job, for example ``output_exists``; empty for done."""
    path_in: pathlib.Path
    path_out: pathlib.Path
    ppid: str
    pphash: str
    frames: int = 0
    events: int = 0
    frames_known: int = 0
    """Number of frames that the job did not process, since their events were computed while they were recorded."""
    masks_dropped: int = 0
    """Number of masks without a two-dimensional contour."""
    seconds: float = 0.0
    stages: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Seconds in each stage, summed over all workers."""
    waiting: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Seconds of waiting: of all workers together for tasks, and of the pipeline process for workers."""
    bottleneck: str = ""
    """The stage that took the largest part of the time."""
    bytes_read: int = 0
    """Number of bytes of images that were read from files."""
    bytes_written: int = 0
    """Size of the result."""
    worker_pids: tuple[int, ...] = ()
    interrupted: bool = False
    """Whether the recording was interrupted, and `frames` is the number of frames that all features have."""
    error: str = ""
    """For ``output_differs``: which file is in the place of the result, and what to do."""
    early: bool = False
    """Whether processing began before the measurement counted as complete; see `dcnumd.logic.early`."""

    def log_fields(self) -> dict[str, Any]:
        """Return the fields of a log event about the result and its timing."""
        total = sum(self.stages.values())
        return {
            "frames": self.frames,
            "events": self.events,
            "frames_known": self.frames_known,
            "seconds": round(self.seconds, 3),
            "frames_per_second": round(self.frames / self.seconds, 1) if self.seconds else 0.0,
            "output": os.fspath(self.path_out),
            "masks_dropped": self.masks_dropped,
            "stage_seconds": {stage: round(seconds, 3) for stage, seconds in self.stages.items()},
            "stage_shares": {stage: round(seconds / total, 3) for stage, seconds in self.stages.items()},
            "waiting_seconds": {who: round(seconds, 3) for who, seconds in self.waiting.items()},
            "bottleneck": self.bottleneck,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            **({"interrupted": True} if self.interrupted else {}),
            "early": self.early,
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a running job."""

    job_id: str
    stage: Literal["background", "segmentation", "writing"]
    frames_done: int
    frames: int
    events: int
    worker: str = ""
    """Name of the worker of the cluster that runs the job; empty on this computer."""
