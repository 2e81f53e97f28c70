"""Rolling median: the background of a frame is the median of the following frames."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dcnumd.errors import FramesError, MethodError
from dcnumd.feat.feat_background.base import Background
from dcnumd.feat.feat_background.kernels_median import ROLLING_BLOCK, rolling_median_of_stack
from dcnumd.feat.feat_background.parallel import map_in_threads, split_range
from dcnumd.read.frame_reader import FrameReader, FrameSource
from dcnumd.read.index_mapping import Indices
from dcnumd.write.pack import pack_chunk
from dcnumd.write.packed import create_packed

Images = npt.NDArray[np.uint8]

MAX_KERNEL_SIZE = 65534
"""Largest kernel size; the kernel has 16-bit counters."""
FRAMES_AT_ONCE = 1000
SKIPPED_KERNELS = 4
"""Largest number of unneeded windows that are computed between needed ones, as a multiple of the kernel size. Starting
again costs as much as one kernel size."""
COMPRESSION_LEVEL = 5


class BackgroundRollMed(Background):
    """Rolling median background.

    The background image of frame i is the upper median of the frames i to i + kernel_size - 1. The last
    `kernel_size` frames share the last such image.

    Parameters
    ----------
    input_data, output_path, compress, num_cpus
        As for `Background`.
    kernel_size
        Number of frames for a median; even.
    batch_size
        Number of frames that dcnum processes at a time. It is part of the identifier, but does not change the result,
        nor the memory used here.
    """

    def __init__(
        self,
        input_data: str | pathlib.Path | npt.ArrayLike,
        output_path: str | pathlib.Path,
        kernel_size: int = 100,
        batch_size: int = 10000,
        compress: bool = True,
        num_cpus: int | None = None,
    ) -> None:
        super().__init__(
            input_data,
            output_path,
            compress=compress,
            num_cpus=num_cpus,
            kernel_size=kernel_size,
            batch_size=batch_size,
        )
        self._level = COMPRESSION_LEVEL if compress else None

    def check_user_kwargs(  # type: ignore[override]  # each method has its own keywords
        self, *, kernel_size: int = 100, batch_size: int = 10000
    ) -> None:
        """Check the keyword arguments, see the class."""
        check_rolling_median_kwargs(kernel_size, batch_size)

    def check_image_count(self) -> None:
        """Make sure that the input has enough frames for one image."""
        self._windows = count_windows(
            self.image_count, self.kwargs["kernel_size"], str(self.hdin.path if self.hdin else "input")
        )

    def process_approach(self) -> None:
        """Compute and write the images in batches."""
        (dataset,) = create_packed(self.writer, [("image_bg", np.dtype(np.uint8), self.image_shape)])
        items = dataset.chunk_items
        with concurrent.futures.ThreadPoolExecutor(self.num_cpus) as pool:

            def pack(images: Images) -> bytes:
                return pack_chunk(images, self._level, items=items)

            number = 0
            for images in self._batches(pool, items):
                chunks = [images[start : start + items] for start in range(0, len(images), items)]
                for chunk, packed in zip(chunks, map_in_threads(pool, pack, chunks), strict=True):
                    dataset.write_chunk(number, packed, items=len(chunk))
                    number += 1
                self.image_proc.value = min(1.0, number * items / self.image_count)
        dataset.finish(self.image_count)

    def _batches(self, pool: concurrent.futures.ThreadPoolExecutor, items: int) -> Iterator[Images]:
        """Yield the background images of all frames in batches of whole chunks; each batch overwrites the last one."""
        kernel_size, count, windows = self.kwargs["kernel_size"], self.image_count, self._windows
        batch = -(-max(FRAMES_AT_ONCE, 2 * kernel_size) // items) * items
        frames = np.empty((min(batch, count) + kernel_size - 1, *self.image_shape), np.uint8)
        images = np.empty((min(batch, count), *self.image_shape), np.uint8)
        filled = 0
        for start in range(0, count, batch):
            stop = min(start + batch, count)
            found = max(0, min(stop, windows) - start)
            if found:
                needed = found + kernel_size - 1
                self._read(pool, start + filled, frames[filled:needed])
                rolling_median(frames[:needed], kernel_size, images[:found], pool)
                last = images[found - 1].copy()
                filled = max(0, needed - batch)
                frames[:filled] = frames[batch : batch + filled]
            images[found : stop - start] = last
            yield images[: stop - start]

    def _read(self, pool: concurrent.futures.ThreadPoolExecutor, first: int, out: Images) -> None:
        """Read frames into `out`, beginning with the frame `first`."""

        def read(part: tuple[int, int]) -> None:
            start, stop = part
            out[start:stop] = self.read_frames(first + start, first + stop)

        for _ in map_in_threads(pool, read, split_range(len(out), 4 * self.num_cpus)):
            pass


def check_rolling_median_kwargs(kernel_size: int = 100, batch_size: int = 10000) -> None:
    """Make sure that the keywords of the rolling median are valid.

    Raises
    ------
    MethodError
        A value is out of range.
    """
    for name, value in (("kernel_size", kernel_size), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise MethodError(f"rollmed: {name} is {value!r}, expected a whole number")
    if kernel_size % 2 or not 0 < kernel_size <= MAX_KERNEL_SIZE:
        raise MethodError(f"rollmed: kernel_size is {kernel_size}, expected an even number from 2 to {MAX_KERNEL_SIZE}")
    if batch_size <= kernel_size:
        raise MethodError(f"rollmed: batch_size is {batch_size}, expected more than the kernel_size of {kernel_size}")


def count_windows(n_frames: int, kernel_size: int, where: str) -> int:
    """Return the number of windows with a background image; frames after the last window share its image.

    Raises
    ------
    FramesError
        There are too few frames for one window; `where` names the file in the message.
    """
    if n_frames < kernel_size:
        raise FramesError(
            f"{where}: {n_frames} frames are fewer than the kernel_size {kernel_size} of rollmed; "
            "choose a smaller one, or the background sparsemed",
            reason="too_few_frames",
        )
    # if there is more than one window, dcnum omits the last one
    return max(1, n_frames - kernel_size)


@dataclasses.dataclass(frozen=True, eq=False)
class RollingMedianSource:
    """A picklable recipe for computing the background images of frames in another process.

    Attributes
    ----------
    frames
        All frames of the measurement.
    kernel_size
        Number of frames for a median, at most the number of `frames`.
    indices
        Position of each selected frame in `frames`, int64; None for all in order.
    """

    frames: FrameSource
    kernel_size: int
    indices: Indices | None = None

    @property
    def frames_per_batch(self) -> int:
        """Smallest number of frames in an efficient batch: each batch reads one kernel size of frames in addition."""
        return 3 * self.kernel_size

    def open(self) -> RollingMedianReader:
        """Return a reader for this process or thread."""
        return RollingMedianReader(self)


class RollingMedianReader:
    """Computes the background images of a `RollingMedianSource`, with the interface of a `FrameReader`."""

    def __init__(self, source: RollingMedianSource) -> None:
        self.source = source
        self._windows = count_windows(source.frames.frame_count, source.kernel_size, source.frames.path)
        self._reader = FrameReader(source.frames)
        self._frames = np.empty((0, *source.frames.frame_shape), np.uint8)

    @property
    def bytes_read(self) -> int:
        """Number of bytes read from the file so far."""
        return self._reader.bytes_read

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def read_into(self, start: int, stop: int, out: Images) -> None:
        """Compute the background images of frames ``start … stop - 1``, see `FrameReader.read_into`."""
        indices = self.source.indices
        positions = np.arange(start, stop) if indices is None else indices[start:stop]
        windows = np.minimum(positions, self._windows - 1)
        longest = windows.size + SKIPPED_KERNELS * self.source.kernel_size
        begin = 0
        for end in range(1, windows.size + 1):
            if (
                end == windows.size
                or not 0 <= windows[end] - windows[end - 1] <= self.source.kernel_size // 2
                or (windows[end] - windows[begin] >= longest)
            ):
                self._compute(windows[begin:end], out[begin:end])
                begin = end

    def _compute(self, windows: Indices, out: Images) -> None:
        """Compute the images of consecutive windows, of which some may be skipped or repeated."""
        first, last = int(windows[0]), int(windows[-1])
        count = last - first + self.source.kernel_size
        if len(self._frames) < count:
            self._frames = np.empty((count, *out.shape[1:]), np.uint8)
        frames = self._frames[:count]
        self._reader.read_into(first, first + count, frames)
        if bool((np.diff(windows) == 1).all()):
            rolling_median(frames, self.source.kernel_size, out)
        else:
            images = np.empty((last - first + 1, *out.shape[1:]), np.uint8)
            rolling_median(frames, self.source.kernel_size, images)
            np.take(images, windows - first, axis=0, out=out)


def rolling_median(
    frames: Images, kernel_size: int, out: Images, pool: concurrent.futures.ThreadPoolExecutor | None = None
) -> None:
    """Compute the upper median of each `kernel_size` consecutive frames.

    Parameters
    ----------
    frames
        uint8, C-contiguous, shape (n + kernel_size - 1, y, x).
    kernel_size
        Number of frames for a median, at most 65534.
    out
        uint8, C-contiguous, shape (n, y, x); image i is the median of frames i to i + kernel_size - 1.
    pool
        Threads that share the work; None to use only this thread.

    Raises
    ------
    ValueError
        The arrays have wrong shapes or dtypes.
    """
    count = len(out)
    fits = frames.shape == (count + kernel_size - 1, *out.shape[1:]) and frames.dtype == out.dtype == np.uint8
    if not fits or not frames.flags.c_contiguous or not out.flags.c_contiguous or kernel_size > MAX_KERNEL_SIZE:
        raise ValueError(
            f"frames {frames.dtype} {frames.shape} do not fit kernel_size {kernel_size} and out {out.dtype} {out.shape}"
        )
    if not count:
        return
    pixels = int(np.prod(out.shape[1:]))
    stack, medians = frames.reshape(-1, pixels), out.reshape(count, pixels)

    def work(columns: tuple[int, int]) -> None:
        rolling_median_of_stack(stack, kernel_size, *columns, medians)

    if pool is None:
        work((0, pixels))
        return
    for _ in map_in_threads(pool, work, split_range(pixels, 16, ROLLING_BLOCK)):
        pass
