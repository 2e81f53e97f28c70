"""The background of a recording while it grows, as it would be if the recording ended now.

The image of a frame can change as long as the recording grows, mainly because the sparse median keeps a share of all
images. A frame is settled when its image is known and would change only by that.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dcnumd.errors import MeasurementError
from dcnumd.feat.feat_background.base import complete_kwargs
from dcnumd.feat.feat_background.bg_copy import BackgroundCopy
from dcnumd.feat.feat_background.bg_roll_median import BackgroundRollMed, RollingMedianSource
from dcnumd.feat.feat_background.bg_sparse_median import (
    BackgroundSparseMed,
    Medians,
    assign_images,
    cleanse,
    median_steps,
)
from dcnumd.feat.feat_background.time_axis import DEFAULT_FRAME_RATE, Times, elapsed_time, frame_rate, time_feature
from dcnumd.logic.background import PreparedBackground
from dcnumd.logic.known_events import digest_of
from dcnumd.logic.plan import MAX_BACKGROUND_BYTES, Plan
from dcnumd.logic.tasks import DIGEST_BYTES, SharedBackgrounds
from dcnumd.read.growing import GrowingFile, GrowingStack, GrowingValues, unsuited

Images = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Choice:
    """The background of the first frames of a recording."""

    background: PreparedBackground
    frames: int
    """Number of frames that have a background."""
    settled: int
    """Number of frames whose background does not depend on frames that are recorded next."""
    numbers: Indices | None = None
    """Number of the image of each frame, which stays the same while the recording grows, int64 (frame,)."""


class Chooser(Protocol):
    """Chooses the background of a growing recording by one method."""

    def choose(self, frames: int, medians: Medians) -> Choice | None:
        """Return the background of the first `frames` frames; None if there are too few of them."""

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what the spool needs to know of the background."""


class RecordingTime:
    """The time of each frame of a growing recording since the first one.

    Parameters
    ----------
    plan
        The recording.
    file
        Its file.
    """

    def __init__(self, plan: Plan, file: GrowingFile) -> None:
        self._feature = time_feature(plan.data)
        self._rate = frame_rate(plan.data) or DEFAULT_FRAME_RATE
        dataset = None if self._feature is None else file.numbers(self._feature)
        self._values = None if dataset is None else GrowingValues(dataset, file.path)

    def first(self, frames: int) -> Times:
        """Return the times of the first frames [s]."""
        values = None if self._values is None else self._values.first(frames)
        return elapsed_time(self._feature, values, frames, self._rate)


class SparseMedianChooser:
    """Chooses among the images of the sparse median.

    Parameters
    ----------
    plan
        The recording.
    time
        Times of its frames.
    """

    def __init__(self, plan: Plan, time: RecordingTime) -> None:
        kwargs = complete_kwargs(BackgroundSparseMed, plan.background_kwargs)
        self._offset_correction = bool(kwargs["offset_correction"])
        self._kernel_size, self._split_time = int(kwargs["kernel_size"]), float(kwargs["split_time"])
        self._cleansing = float(kwargs["thresh_cleansing"]), float(kwargs["frac_cleansing"])
        self._time = time
        self._images: dict[int, Images] = {}
        self._numbers: dict[bytes, int] = {}
        self._brightness: dict[int, float] = {}
        self._path = plan.data.path
        self._most = MAX_BACKGROUND_BYTES // math.prod(plan.frame_shape)

    def choose(self, frames: int, medians: Medians) -> Choice | None:
        """Return the background; see `Chooser`. An image whose frames are not all recorded is left out."""
        time = self._time.first(frames)
        # A single wrong time is enough; all images before it would be the same few.
        if float(time[-1]) / self._split_time > self._most:
            raise unsuited(self._path, "there are too many background images to keep")
        steps, starts = median_steps(time, self._split_time)
        whole = starts + self._kernel_size <= frames
        if not whole.any():
            return None
        steps, starts = steps[whole], starts[whole]
        images = self._medians(starts, medians)
        if self._cleansing[1] != 1:
            kept = cleanse(images, *self._cleansing)
            images, steps = images[kept], steps[kept]
        index = assign_images(time, steps, self._split_time)
        numbers = np.array([self._number(image) for image in images], np.int64)
        settled = int(np.searchsorted(time, steps[-1] + self._split_time / 2))
        background = PreparedBackground(
            SharedBackgrounds.of(images), index=index, offset_correction=self._offset_correction
        )
        return Choice(background, frames, settled, numbers[index])

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the medians and the digests of the images; see `Chooser`."""
        return {
            "image_digests": np.frombuffer(b"".join(self._numbers), np.uint8).reshape(-1, DIGEST_BYTES),
            "median_starts": np.array(list(self._images), np.int64),
            "median_images": np.array(list(self._images.values()), np.uint8),
            "kernel_size": np.array(self._kernel_size),
        }

    def _medians(self, starts: Indices, medians: Medians) -> Images:
        missing = [start for start in dict.fromkeys(starts.tolist()) if start not in self._images]
        if missing:
            images = medians(np.array(missing, np.int64), self._kernel_size)
            self._images |= dict(zip(missing, images, strict=True))
        return np.stack([self._images[start] for start in starts.tolist()])

    def _number(self, image: Images) -> int:
        return self._numbers.setdefault(digest_of(image), len(self._numbers))


class RollingMedianChooser:
    """The rolling median: the image of a frame is settled when the frames of its window are recorded.

    Parameters
    ----------
    plan
        The recording.
    stack
        Its frames.
    """

    def __init__(self, plan: Plan, stack: GrowingStack) -> None:
        self._kernel_size = int(complete_kwargs(BackgroundRollMed, plan.background_kwargs)["kernel_size"])
        self._stack = stack

    def choose(self, frames: int, medians: Medians) -> Choice | None:  # noqa: ARG002 -- the workers compute medians
        """Return the background; see `Chooser`."""
        if frames <= self._kernel_size:
            return None
        source = RollingMedianSource(self._stack.source(), self._kernel_size)
        settled = frames - self._kernel_size
        return Choice(PreparedBackground(frames=source), settled, settled)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return nothing but what each spool has; see `Chooser`."""
        return {}


class CopyChooser:
    """The background of the recording itself.

    Parameters
    ----------
    stack
        Its background images.
    """

    def __init__(self, stack: GrowingStack) -> None:
        self._stack = stack

    def choose(self, frames: int, medians: Medians) -> Choice | None:  # noqa: ARG002 -- there are no medians
        """Return the background; see `Chooser`."""
        self._stack.extend(frames)
        known = self._stack.frames
        return Choice(PreparedBackground(frames=self._stack.source()), known, known)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the keys of the background images; see `Chooser`."""
        return {"background_keys": self._stack.keys}


def chooser_for(plan: Plan, file: GrowingFile, stack: GrowingStack, time: RecordingTime) -> Chooser:
    """Return what chooses the background of a recording.

    Raises
    ------
    MeasurementError
        Reason ``not_live``, for a method that needs the whole recording.
    """
    if plan.background is BackgroundSparseMed:
        return SparseMedianChooser(plan, time)
    if plan.background is BackgroundRollMed:
        return RollingMedianChooser(plan, stack)
    if plan.background is BackgroundCopy and file.image_bg is not None:
        return CopyChooser(GrowingStack(file.image_bg))
    if plan.background is BackgroundCopy:
        raise MeasurementError(f"{file.path}: has no events/image_bg that grows", "not_live")
    code = plan.background.get_ppid_code()
    raise unsuited(file.path, f"the background {code!r} is computed from the whole recording")
