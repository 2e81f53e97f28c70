"""Sparse median: background images at regular intervals, of which each frame uses the nearest."""

from __future__ import annotations

import bisect
import concurrent.futures
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.errors import MethodError
from dcnumd.feat.feat_background.base import Background
from dcnumd.feat.feat_background.kernels_median import median_of_stack
from dcnumd.feat.feat_background.offset import background_offset, wall_brightness
from dcnumd.feat.feat_background.parallel import map_in_threads
from dcnumd.feat.feat_background.time_axis import DEFAULT_FRAME_RATE, Times, nominal_time, time_axis

Images = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]

OFFSET_BATCH = 400
"""Number of frames that are read at once for the offset."""

logger = logging.getLogger(__name__)


class BackgroundSparseMed(Background):
    """Sparse median background with cleansing.

    Every `split_time` seconds, the upper median of `kernel_size` frames is a background image. Images that seem to
    contain cells are dropped, and each frame uses the remaining image that is nearest in time. The images are stored as
    an internal basin with a mapping.

    Parameters
    ----------
    input_data, output_path, compress, num_cpus
        As for `Background`.
    kernel_size
        Number of frames for a median.
    split_time
        Time between background images [s].
    thresh_cleansing
        Scale of the threshold for dropping images; larger values drop more, 0 keeps the fraction `frac_cleansing`.
    frac_cleansing
        Smallest fraction of the background images to keep, above 0; 1 keeps all.
    offset_correction
        Whether to write ``bg_off``, the brightness of each frame relative to its background image.
    """

    def __init__(
        self,
        input_data: str | pathlib.Path | npt.ArrayLike,
        output_path: str | pathlib.Path,
        *,
        compress: bool = True,
        num_cpus: int | None = None,
        **kwargs: Any,
    ) -> None:
        # Why not inherit this? The third positional argument of dcnum's class is `kernel_size`, that of the base class
        # is `compress`. Here both are keyword-only, so that code written for dcnum gets an error, not another result.
        super().__init__(input_data, output_path, compress=compress, num_cpus=num_cpus, **kwargs)

    def check_user_kwargs(  # type: ignore[override]  # each method has its own keywords
        self,
        *,
        kernel_size: int = 200,
        split_time: float = 1.0,
        thresh_cleansing: float = 0,
        frac_cleansing: float = 0.8,
        offset_correction: bool = True,
    ) -> None:
        """Check the keyword arguments, see the class."""
        check_sparse_median_kwargs(kernel_size, split_time, thresh_cleansing, frac_cleansing)
        if offset_correction not in (False, True):
            raise MethodError(
                f"sparsemed: offset_correction is {offset_correction!r}, expected true or false here; "
                "'auto' must be resolved before"
            )

    def process_approach(self) -> None:
        """Compute and write the images, then the offset."""
        kwargs = dict(self.kwargs)
        offset_correction = kwargs.pop("offset_correction")
        share = 0.5 if offset_correction else 1.0
        time = nominal_time(self.image_count, DEFAULT_FRAME_RATE) if self.hdin is None else time_axis(self.hdin)

        def medians(starts: Indices, kernel_size: int) -> Images:
            return self._medians(starts, kernel_size, share)

        images, index = sparse_median_images(medians, self.image_count, time, **kwargs)
        self.writer.store_basin(
            name="background images",
            description=f"Pipeline identifier: {self.get_ppid()}",
            internal_data={"image_bg": images},
            mapping=index,
        )
        if offset_correction:
            self._write_offset(images, index, share)

    def _medians(self, starts: Indices, kernel_size: int, progress: float) -> Images:
        """Return the upper medians of the windows that begin at the frames `starts`."""

        def median_at(start: int) -> Images:
            return median_image(self.read_frames(start, start + kernel_size))

        images = []
        with concurrent.futures.ThreadPoolExecutor(self.num_cpus) as pool:
            for image in map_in_threads(pool, median_at, starts.tolist()):
                images.append(image)
                self.image_proc.value = progress * len(images) / len(starts)
        return np.stack(images)

    def _write_offset(self, images: Images, index: Indices, progress: float) -> None:
        brightness = wall_brightness(images)

        def offset_from(start: int) -> npt.NDArray[np.float64]:
            stop = min(start + OFFSET_BATCH, self.image_count)
            return background_offset(self.read_frames.unconverted(start, stop), brightness, index[start:stop])

        with concurrent.futures.ThreadPoolExecutor(self.num_cpus) as pool:
            parts = []
            for part in map_in_threads(pool, offset_from, range(0, self.image_count, OFFSET_BATCH)):
                parts.append(part)
                done = len(parts) * OFFSET_BATCH / self.image_count
                self.image_proc.value = min(1.0, progress + (1 - progress) * done)
        self.writer.store_feature_chunk("bg_off", np.concatenate(parts))


def check_sparse_median_kwargs(
    kernel_size: int, split_time: float, thresh_cleansing: float, frac_cleansing: float
) -> None:
    """Make sure that the keywords of the sparse median are valid.

    Raises
    ------
    MethodError
        A value is out of range.
    """
    if isinstance(kernel_size, bool) or not isinstance(kernel_size, int | np.integer) or kernel_size < 1:
        raise MethodError(f"sparsemed: kernel_size is {kernel_size!r}, expected a whole number of at least 1")
    # the negated comparisons are also true for NaN
    if not split_time > 0:
        raise MethodError(f"sparsemed: split_time is {split_time!r}, expected more than 0 seconds")
    if not thresh_cleansing >= 0:
        raise MethodError(f"sparsemed: thresh_cleansing is {thresh_cleansing!r}, expected at least 0")
    if not 0 < frac_cleansing <= 1:
        raise MethodError(f"sparsemed: frac_cleansing is {frac_cleansing!r}, expected above 0 and at most 1")


Medians = Callable[[Indices, int], Images]
"""Returns the upper medians of windows: their first frames, and the number of frames in each; see `median_image`."""


def sparse_median_images(
    medians: Medians,
    n_frames: int,
    time: Times,
    *,
    kernel_size: int = 200,
    split_time: float = 1.0,
    thresh_cleansing: float = 0,
    frac_cleansing: float = 0.8,
) -> tuple[Images, Indices]:
    """Compute the background images of a measurement, and the index of the image of each frame.

    Parameters
    ----------
    medians
        Computes medians; called once for all windows.
    n_frames
        Number of frames, at least 1.
    time
        Time of each frame [s], starting at 0, shape (n_frames,); see `time_axis`.
    kernel_size, split_time, thresh_cleansing, frac_cleansing
        As for `BackgroundSparseMed`.

    Returns
    -------
    images
        uint8, shape (image, y, x).
    index
        Index of the image of each frame, int64, shape (n_frames,), never decreasing.

    Raises
    ------
    MethodError
        A keyword is out of range.
    """
    check_sparse_median_kwargs(kernel_size, split_time, thresh_cleansing, frac_cleansing)
    if n_frames < 1 or time.shape != (n_frames,):
        raise ValueError(f"expected the times of at least one frame, got {time.shape} for {n_frames} frames")
    if kernel_size > n_frames:
        logger.warning("sparsemed: kernel_size %d is larger than the %d frames; using them all", kernel_size, n_frames)
        kernel_size = n_frames
    steps, nearest = median_steps(time, split_time)
    starts = np.minimum(nearest, n_frames - kernel_size)
    distinct, which = np.unique(starts, return_inverse=True)
    images = medians(distinct, kernel_size)[which]
    if frac_cleansing != 1:
        kept = cleanse(images, thresh_cleansing, frac_cleansing)
        images, steps = images[kept], steps[kept]
    return images, assign_images(time, steps, split_time)


def median_steps(time: Times, split_time: float) -> tuple[Times, Indices]:
    """Return the times of the background images, and the frame that is nearest to each.

    Parameters
    ----------
    time
        Time of each frame [s], shape (frame,).
    split_time
        Time between background images [s].

    Returns
    -------
    steps
        Times [s], shape (image,).
    nearest
        Index of the frame, int64, shape (image,).
    """
    steps = np.arange(0, time[-1] - time[0], split_time)
    if not steps.size:  # one frame, or frames that all have the same time
        steps = np.zeros(1)
    ascending = _is_ascending(time)
    return steps, np.array([_nearest(time, step, 0, ascending=ascending) for step in steps], np.int64)


def _is_ascending(time: Times) -> bool:
    return bool(np.all(time[1:] >= time[:-1]))


def _nearest(time: Times, step: np.floating[Any], half: float, *, ascending: bool) -> int:
    """Return the first index at which ``|time - step - half|`` is smallest."""
    if not ascending:
        return int(np.argmin(np.abs(time - step - half)))

    def moment(index: int) -> float:
        # an array, because numpy before 2.0 uses a larger dtype for operations on scalars only
        return float((time[index : index + 1] - step - half)[0])

    def distance(index: int) -> float:
        return abs(moment(index))

    # With ascending times, the minimum is next to the change of sign; of equal distances the first one counts.
    after = bisect.bisect_left(range(len(time)), 0.0, key=moment)
    best = min(after, len(time) - 1)
    while best > 0 and distance(best - 1) <= distance(best):
        best -= 1
    return best


def median_image(frames: Images) -> Images:
    """Return the upper median (rank frames // 2) of frames, uint8 (frame, y, x), for each pixel (y, x)."""
    image = np.empty(frames.shape[1:], np.uint8)
    median_of_stack(frames.reshape(len(frames), -1), 0, image.size, image.reshape(-1))
    return image


def cleanse(images: Images, thresh_cleansing: float, frac_cleansing: float) -> npt.NDArray[np.bool_]:
    """Return which background images seem to contain no cell.

    A cell that stays in the channel increases the range of grey values in the rows around the middle of the image. The
    criterion is this range relative to its running median over the series.

    Parameters
    ----------
    images
        uint8, shape (image, y, x), in chronological order.
    thresh_cleansing, frac_cleansing
        As for `BackgroundSparseMed`.

    Returns
    -------
    bool, shape (image,)
    """
    height = images.shape[1]
    ranges = np.ptp(images, axis=2)
    excess = ranges - np.median(ranges, axis=0)
    reach = max(20, height // 4)
    # With few rows the start of this slice is negative and counts from the end. This is as in dcnum, and correcting it
    # would change results with the same pipeline identifier.
    signal = np.mean(excess[:, height // 2 - reach : height // 2 + reach], axis=1)
    signal = signal - running_median(signal, 10)
    deviation = np.abs(signal - np.median(signal))
    threshold = np.quantile(deviation, frac_cleansing)
    if thresh_cleansing:
        scaled = np.var(deviation) * 150 / thresh_cleansing
        if np.mean(deviation <= scaled) >= frac_cleansing:
            threshold = scaled
        else:
            logger.warning(
                "sparsemed: thresh_cleansing %g keeps too few background images; keeping the fraction %g",
                thresh_cleansing,
                frac_cleansing,
            )
    kept: npt.NDArray[np.bool_] = deviation <= threshold
    return kept


def running_median(signal: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Return the upper median of `size` values around each value of a series, which is mirrored at its ends.

    Why not `scipy.ndimage.median_filter`? The results are equal, but importing it takes half a second.
    """
    before = size // 2
    mirrored = np.pad(signal, (before, size - 1 - before), mode="symmetric")
    windows = np.sort(np.lib.stride_tricks.sliding_window_view(mirrored, size), axis=1)
    median: npt.NDArray[np.float64] = windows[:, before]
    return median


def assign_images(time: Times, steps: Times, split_time: float) -> Indices:
    """Return the index of each frame's image; the image of a step is used until half a `split_time` after it.

    Parameters
    ----------
    time
        Time of each frame [s], shape (frame,).
    steps
        Time of each background image that is kept [s], shape (image,).
    split_time
        Time between background images before some were dropped [s].

    Returns
    -------
    int64, shape (frame,), never decreasing
    """
    ascending = _is_ascending(time)
    index = np.full(len(time), len(steps) - 1, np.int64)
    start = 0
    for number, step in enumerate(steps):
        stop = _nearest(time, step, split_time / 2, ascending=ascending)
        index[start:stop] = number
        start = stop
    index[start:] = len(steps) - 1
    return index
