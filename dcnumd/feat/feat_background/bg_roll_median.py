"""Rolling median: each frame gets the median of the frames that follow it."""

from __future__ import annotations

import concurrent.futures
import pathlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dcnumd.errors import MeasurementError, MethodError
from dcnumd.feat.feat_background.base import Background
from dcnumd.feat.feat_background.kernels_median import ROLLING_BLOCK, rolling_median_of_stack
from dcnumd.feat.feat_background.parallel import map_in_threads, split_range
from dcnumd.write.pack import pack_chunk
from dcnumd.write.packed import PackedDataset

Images = npt.NDArray[np.uint8]

MAX_KERNEL_SIZE = 65534
"""The kernel counts in 16 bits."""
FRAMES_AT_ONCE = 1000
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
        Number of frames for a median, even.
    batch_size
        Number of frames that dcnum works on at a time. It is part of the identifier, but changes no result; the
        memory used here does not depend on it.
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
        """Check the keyword arguments, which the class documents."""
        for name, value in (("kernel_size", kernel_size), ("batch_size", batch_size)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise MethodError(f"rollmed: {name} is {value!r}, expected a whole number")
        if kernel_size % 2 or not 0 < kernel_size <= MAX_KERNEL_SIZE:
            raise MethodError(
                f"rollmed: kernel_size is {kernel_size}, expected an even number from 2 to {MAX_KERNEL_SIZE}"
            )
        if batch_size <= kernel_size:
            raise MethodError(
                f"rollmed: batch_size is {batch_size}, expected more than the kernel_size of {kernel_size}"
            )

    def process_approach(self) -> None:
        """Compute and write the images in batches."""
        dataset = PackedDataset(self.writer, "image_bg", self.image_shape, np.uint8)
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
        """Yield the background images of all frames in batches of whole chunks; a batch is overwritten by the next."""
        kernel_size, count = self.kwargs["kernel_size"], self.image_count
        if count < kernel_size:
            raise MeasurementError(
                f"{self.hdin.path if self.hdin else 'input'}: {count} frames are fewer than the kernel_size "
                f"{kernel_size} of rollmed; choose a smaller one, or the background sparsemed",
                reason="too_few_frames",
            )
        # Where there is more than one window, dcnum leaves the very last one out.
        windows = max(1, count - kernel_size)
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
        """Read the frames from `first` on, until `out` is full."""

        def read(part: tuple[int, int]) -> None:
            start, stop = part
            out[start:stop] = self.read_frames(first + start, first + stop)

        for _ in map_in_threads(pool, read, split_range(len(out), 4 * self.num_cpus)):
            pass


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
        Threads that share the work; None: this thread does it.

    Raises
    ------
    ValueError
        The arrays do not fit together.
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
