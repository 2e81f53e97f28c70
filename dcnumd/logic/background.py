"""The background of one file, in the form in which the workers take it."""

from __future__ import annotations

import dataclasses
import pathlib
import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from dcnumd.errors import JobCancelledError, MeasurementError
from dcnumd.feat.feat_background.bg_copy import BackgroundCopy
from dcnumd.feat.feat_background.bg_sparse_median import BackgroundSparseMed, sparse_median_images, time_axis
from dcnumd.logic.plan import Plan
from dcnumd.logic.tasks import SharedBackgrounds
from dcnumd.read.frame_reader import FrameReader
from dcnumd.read.frame_source import FrameSource
from dcnumd.read.hdf5_data import HDF5Data


@dataclasses.dataclass(frozen=True)
class PreparedBackground:
    """Either a few shared images and which frame has which, or an image for each frame in a file."""

    images: SharedBackgrounds | None = None
    index: npt.NDArray[np.int64] | None = None
    """For each frame its image; given together with `images`."""
    frames: FrameSource | None = None
    bg_off: npt.NDArray[np.float64] | None = None
    """Background offset of each frame, as far as it is known already."""
    offset_correction: bool = False
    """Whether the offsets are computed when the frames are loaded."""

    @property
    def has_offset(self) -> bool:
        """Whether frames have a background offset at all."""
        return self.offset_correction or self.bg_off is not None


class ThreadedFrames:
    """Reads frames for several threads, each with a reader of its own."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self._local = threading.local()
        self._readers: list[FrameReader] = []

    def __call__(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Return the frames from `start` to `stop`, uint8 (frame, y, x)."""
        if not hasattr(self._local, "reader"):
            self._local.reader = FrameReader(self._source)
            self._readers.append(self._local.reader)
        frames = np.empty((stop - start, *self._source.frame_shape), np.uint8)
        self._local.reader.read_into(start, stop, frames)
        return frames

    def close(self) -> None:
        """Close all readers."""
        for reader in self._readers:
            reader.close()


def prepare_background(
    plan: Plan,
    scratch: pathlib.Path,
    num_cpus: int,
    cancel: Callable[[], bool],
) -> PreparedBackground:
    """Compute, or find, the background of a file.

    Parameters
    ----------
    plan
        The job and its input.
    scratch
        Where a method that writes a file may put it; the caller removes it.
    num_cpus
        Number of threads.
    cancel
        Returns whether the job should stop.
    """
    if plan.background is BackgroundSparseMed:
        return _sparse_median(plan, num_cpus, cancel)
    if plan.background is BackgroundCopy:
        return _from_file(plan.data)
    mapped = plan.job.settings.index_mapping is not None
    source = plan.data.check_frames() if mapped else plan.data.path
    with plan.background(source, scratch, compress=False, num_cpus=num_cpus, **plan.background_kwargs) as background:
        background.process()
    with HDF5Data(scratch, pixel_size=plan.data.pixel_size) as computed:
        return _from_file(computed)


def _sparse_median(plan: Plan, num_cpus: int, cancel: Callable[[], bool]) -> PreparedBackground:
    def on_image(_done: int, _total: int) -> None:
        if cancel():
            raise JobCancelledError("stopped while the background was computed")

    kwargs = dict(plan.background_kwargs)
    offset_correction = bool(kwargs.pop("offset_correction", True))
    read_frames = ThreadedFrames(plan.frames)
    try:
        images, index = sparse_median_images(
            read_frames, plan.count, time_axis(plan.data), num_cpus=num_cpus, on_image=on_image, **kwargs
        )
    finally:
        read_frames.close()
    return PreparedBackground(SharedBackgrounds.of(images), index, offset_correction=offset_correction)


def _from_file(data: HDF5Data) -> PreparedBackground:
    images = data.image_bg
    if images is None:
        raise MeasurementError(
            f"{data.path}: no events/image_bg to copy, neither in the file nor in its basins; "
            "choose another background, for example sparsemed",
            "no_background",
        )
    bg_off = np.asarray(data["bg_off"], np.float64) if "bg_off" in data else None
    return PreparedBackground(frames=FrameSource.of(images), bg_off=bg_off)
