"""The job: what to do with one measurement, as a frozen value.

This module imports no numerical code, so that the supervisor can build jobs and read their results.
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
class PipelineSettings:
    """Everything that decides the numbers in a result, and therefore its pipeline identifier."""

    pixel_size: float | None = None
    """Pixel size [µm]; None takes it from the file."""
    index_mapping: int | tuple[int, ...] | slice | None = None
    """Which frames of the input are processed; None means all."""
    background_code: str = "sparsemed"
    background_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """``offset_correction`` may be "auto": the flicker check then decides."""
    segmenter_code: str = "thresh"
    segmenter_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mask_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    feature_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    gate_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class KnownContent(NamedTuple):
    """The content that a file had under a stamp."""

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
    """Other files may be read only in and below these, whatever the measurement refers to; None: anywhere."""
    trust_basins: bool = True
    """Basins may lie outside of `trusted_folders`."""
    result_root: pathlib.Path | None = None
    """No symbolic link may lead the result out of this folder; None: the result's own folder."""
    max_memory_mb: int = 0
    """All processes together take no more than this [MB]; 0: no limit."""
    other_memory_mb: int = 0
    """Of it, what those beside the pipeline take [MB]."""
    replace_former: bool = False
    """With `existing` = ``skip``, replace a result that says that dcnumd made it of a former content of `path_in`."""
    known: KnownContent | None = None
    """What is known of the content of `path_in`, so that it need not be found out again."""


Outcome = Literal["done", "skipped"]


@dataclasses.dataclass(frozen=True, slots=True)
class JobResult:
    """What came of a job that did not fail (a failed one raises a `DcnumdError`)."""

    outcome: Outcome
    reason: str
    """Why a job was skipped, for example ``output_exists``; empty for done."""
    path_in: pathlib.Path
    path_out: pathlib.Path
    ppid: str
    pphash: str
    frames: int = 0
    events: int = 0
    masks_dropped: int = 0
    """Masks without a two-dimensional contour."""
    seconds: float = 0.0
    stages: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Seconds spent in each stage, added up over all workers."""
    waiting: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Seconds that all workers together had nothing to do, and that the pipeline process waited for them."""
    bottleneck: str = ""
    """The stage that took the largest part of the time."""
    bytes_read: int = 0
    """Bytes of images that were read from files."""
    bytes_written: int = 0
    """Size of the result."""
    worker_pids: tuple[int, ...] = ()
    error: str = ""
    """Of ``output_differs``: what is in the place of the result, and what to do."""

    def log_fields(self) -> dict[str, Any]:
        """Return what a log tells of a result, and where the time went."""
        total = sum(self.stages.values())
        return {
            "frames": self.frames,
            "events": self.events,
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
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a running job is."""

    job_id: str
    stage: Literal["background", "segmentation", "writing"]
    frames_done: int
    frames: int
    events: int
