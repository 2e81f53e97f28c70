"""The background of one file, in a form that can be sent to the workers."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dcnumd.errors import MeasurementError
from dcnumd.feat.feat_background.base import complete_kwargs
from dcnumd.feat.feat_background.bg_copy import BackgroundCopy
from dcnumd.feat.feat_background.bg_roll_median import (
    BackgroundRollMed,
    RollingMedianSource,
    check_rolling_median_kwargs,
    count_windows,
)
from dcnumd.feat.feat_background.bg_sparse_median import BackgroundSparseMed, sparse_median_images
from dcnumd.feat.feat_background.time_axis import time_axis
from dcnumd.logic.job_line import JobLine
from dcnumd.logic.plan import MAX_BACKGROUND_BYTES, Plan
from dcnumd.logic.tasks import MedianProgram, MedianTask, SharedBackgrounds
from dcnumd.logic.timing import StageTimes
from dcnumd.read.frame_reader import FrameSource
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.read.image_stack import ImageStack
from dcnumd.read.index_mapping import Indices
from dcnumd.segm.segmenter_mpo import MPOSegmenter


@dataclasses.dataclass(frozen=True)
class PreparedBackground:
    """The background of a file: either a few shared images with an index, or one image for each frame."""

    images: SharedBackgrounds | None = None
    kept: ImageStack | None = None
    """The images of `frames` in an internal basin of the input, which the result then copies; None without one."""
    index: npt.NDArray[np.int64] | None = None
    """Position of the image of each frame in `images`, or in the dataset of `kept`."""
    frames: FrameSource | RollingMedianSource | None = None
    bg_off: npt.NDArray[Any] | None = None
    """Background offset of each frame, in the dtype of the result; None if it is computed later or does not exist."""
    offset_correction: bool = False
    """Whether the workers compute the offsets when they load frames."""
    offset_of_input: bool = False
    """Whether `bg_off` is a feature of the input rather than of this background."""

    @property
    def has_offset(self) -> bool:
        """Whether frames have a background offset."""
        return self.offset_correction or self.bg_off is not None

    def of_frames(self, frames: slice) -> tuple[npt.NDArray[np.int64] | None, npt.NDArray[Any] | None]:
        """Return the image positions and the offsets of some frames, as `FramesTask` has them."""
        index = None if self.index is None else self.index[frames]
        return index, None if self.bg_off is None else self.bg_off[frames]


@contextlib.contextmanager
def prepare_background(
    plan: Plan,
    segmenter: MPOSegmenter,
    scratch: pathlib.Path,
    times: StageTimes,
    line: JobLine,
    known: KnownMedians | None = None,
) -> Iterator[PreparedBackground]:
    """Compute or find the background of a file, and keep its files open in the block.

    As in dcnum, the background is that of the whole measurement, regardless of an index mapping.

    Parameters
    ----------
    plan
        The job and its input.
    segmenter
        Its workers compute medians in parallel.
    scratch
        Path for the output of a method that writes a file; the caller removes it.
    times
        Receives the time of each stage.
    line
        Receives progress; raises an error when the job is cancelled.
    known
        Medians that need not be computed.
    """
    if plan.background is BackgroundCopy:
        yield _from_file(plan, plan.data)
    elif plan.background is BackgroundSparseMed:
        with _whole_measurement(plan) as data:
            medians = Medians(FrameSource.of(data.check_frames()), segmenter, times, line, known)
            background = _sparse_median(plan, data, medians)
        yield background
    elif plan.background is BackgroundRollMed:
        with _whole_measurement(plan) as data:
            background = _rolling_median(plan, data)
        yield background
    else:
        with (
            times.stage("foreign background"),
            plan.background(
                plan.data.path, scratch, compress=False, num_cpus=segmenter.num_workers, **plan.background_kwargs
            ) as method,
            line.watching("background", method.get_progress),
        ):
            method.process()
        with HDF5Data(scratch, index_mapping=plan.data.index_mapping) as computed:
            yield _from_file(plan, computed)


@contextlib.contextmanager
def _whole_measurement(plan: Plan) -> Iterator[HDF5Data]:
    if plan.data.index_mapping is None:
        yield plan.data
    else:
        with HDF5Data(plan.data.path) as data:
            yield data


class KnownMedians(Protocol):
    """Provides medians that were computed before."""

    def median(self, start: int, kernel_size: int) -> npt.NDArray[np.uint8] | None:
        """Return the median of the frames that begin at `start`; None if it is not known."""


class Medians:
    """Has workers compute the medians of frames.

    Parameters
    ----------
    frames
        The frames of the measurement.
    segmenter
        Its workers compute the medians.
    times
        Receives the time of each stage.
    line
        Receives progress; raises an error when the job is cancelled.
    known
        Medians that need not be computed.
    """

    def __init__(
        self,
        frames: FrameSource,
        segmenter: MPOSegmenter,
        times: StageTimes,
        line: JobLine,
        known: KnownMedians | None = None,
    ) -> None:
        self._frames = frames
        self._segmenter = segmenter
        self._times = times
        self._line = line
        self._known = known

    def __call__(self, starts: Indices, kernel_size: int) -> npt.NDArray[np.uint8]:
        """Return the upper medians of windows, see `bg_sparse_median.Medians`."""
        images = np.empty((len(starts), *self._frames.frame_shape), np.uint8)
        missing = {}
        for number, start in enumerate(starts.tolist()):
            known = None if self._known is None else self._known.median(start, kernel_size)
            if known is None:
                missing[start] = number
            else:
                images[number] = known
        if missing:
            for start, image in self._compute(list(missing), kernel_size):
                images[missing[start]] = image
        return images

    def _compute(self, starts: list[int], kernel_size: int) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        segmenter, times, line = self._segmenter, self._times, self._line
        segmenter.program = MedianProgram(self._frames, kernel_size)
        segmenter.reinitialize_workers(segmenter.slot_list or [])
        pool = segmenter.pool
        with (
            times.pool(segmenter.num_workers, lambda: pool.seconds_waited),
            contextlib.closing(pool.run([MedianTask(start) for start in starts], line.stop_if_asked)) as replies,
        ):
            for reply in replies:
                times.add(reply.worker, reply.value.spans)
                times.bytes_read += reply.value.bytes_read
                line.report("background")
                yield reply.task.start, reply.value.image


def _sparse_median(plan: Plan, data: HDF5Data, medians: Medians) -> PreparedBackground:
    kwargs = dict(plan.background_kwargs)
    offset_correction = bool(kwargs.pop("offset_correction", True))
    images, index = sparse_median_images(medians, len(data), time_axis(data), **kwargs)
    if plan.data.index_mapping is not None:
        index = index[plan.data.index_mapping]
    return _with_offset(
        PreparedBackground(SharedBackgrounds.of(images), index=index, offset_correction=offset_correction), plan.data
    )


def _rolling_median(plan: Plan, data: HDF5Data) -> PreparedBackground:
    """Return a recipe with which the workers compute the images when they need them."""
    kwargs = complete_kwargs(BackgroundRollMed, plan.background_kwargs)
    check_rolling_median_kwargs(**kwargs)
    frames = FrameSource.of(data.check_frames())
    count_windows(frames.frame_count, kwargs["kernel_size"], frames.path)
    source = RollingMedianSource(frames, kwargs["kernel_size"], plan.data.index_mapping)
    return _with_offset(PreparedBackground(frames=source), plan.data)


def _from_file(plan: Plan, data: HDF5Data) -> PreparedBackground:
    images = data.image_bg
    if images is None:
        faults = "".join(f"; {basin.fault.message}" for basin in data.basins if basin.fault is not None)
        raise MeasurementError(
            f"{data.path}: no events/image_bg to copy, neither in the file nor in its basins{faults}; "
            "choose another background, for example sparsemed",
            "no_background",
        )
    background = PreparedBackground(frames=FrameSource.of(images))
    if images.basin is not None and images.indices is not None and images.dataset.size <= MAX_BACKGROUND_BYTES:
        background = dataclasses.replace(background, kept=images, index=images.indices)
    if "bg_off" in data:
        return dataclasses.replace(background, bg_off=np.asarray(data["bg_off"]))
    return _with_offset(background, plan.data)


def _with_offset(background: PreparedBackground, data: HDF5Data) -> PreparedBackground:
    """Return the background with the offset of the input, if it has none itself.

    That offset may belong to another background. It is used nevertheless, because dcnum does so.
    """
    if background.has_offset or "bg_off" not in data:
        return background
    return dataclasses.replace(background, bg_off=np.asarray(data["bg_off"]), offset_of_input=True)
