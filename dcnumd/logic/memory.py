"""How much memory a measurement takes, all processes of the pipeline together, and how to get along with less.

What a file takes beside the processes themselves are slots, staging units and what each worker reads at once. None of
them depends on the length of the measurement; only background images and a few numbers for each frame do. What follows
from the sizes is computed, what does not was measured (PSS, x86-64, Python 3.11, glibc) and rounded up. No numerical
code is loaded here.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from dcnumd.config.choices import BasinStrategy
from dcnumd.errors import WorkerError
from dcnumd.logic.job import PipelineSettings
from dcnumd.write.chunk_size import best_chunk_items

MIB = 2**20
PIPELINE_BYTES = 160 * MIB
"""The pipeline process, the server that workers are forked from, and what all of them share of libraries."""
WORKER_BYTES = 32 * MIB
"""What each worker has for itself."""
SERVICE_BYTES = 110 * MIB
"""The supervisor and the probe process of the daemon."""
REPORT_BYTES = 260 * MIB
"""The process that makes reports, with the libraries that draw."""
FRAME_BYTES = 100
"""Numbers that are held for each frame of the measurement."""
EVENT_BYTES = 4096
"""Features of the events of a frame, until they are written: five events, some more when there are fewer frames."""
SCALAR_KINDS = 100
"""Scalar features of an event at most, in a result that has copies of those of the input."""

SLOT_FRAMES = 1000
"""Frames in a slot, before it is aligned to the chunks of the file."""
SLOT_BYTES = 2**25
"""Bytes of images in a slot, about, unless a single frame has more."""
BATCH_FRAMES = 100
"""Frames that a worker takes at a time, before they are aligned to the chunks of the file."""
BATCHES_PER_WORKER = 4
"""Batches that each worker gets at least, so that all of them end at about the same time."""
FEW_UNITS = 2
"""With less, packing and filling would wait for each other."""
FEW_FRAMES = 20
"""Slots are not made smaller than this as long as there is something else to save."""


@dataclasses.dataclass(frozen=True, slots=True)
class Workload:
    """What decides how much memory a file takes."""

    frame_shape: tuple[int, int]
    frames: int
    chunk_frames: int
    """Frames in an HDF5 chunk of the input."""
    slot_pixel_bytes: int
    """Bytes of a slot that are in use for each pixel."""
    image_kinds: int
    """Images of an event that are written: mask, image, background."""
    readers: int
    """Files or datasets of images that each worker reads from."""
    kernel_frames: int
    """Frames that a worker holds for medians,"""
    batch_frames: int
    """and further ones, but not more than a slot has."""
    background_images: int
    """Images for the whole measurement."""

    @property
    def pixels(self) -> int:
        """Pixels of a frame."""
        return self.frame_shape[0] * self.frame_shape[1]


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """How much is worked on at the same time."""

    slots: int
    slot_frames: int
    units: int
    """Output chunks of each kind that can be filled or packed."""


def aligned(frames: int, chunk: int) -> int:
    """Return the multiple of `chunk` nearest to `frames`, at least one; a far larger chunk is not kept whole."""
    if chunk > 2 * frames:
        return frames
    return max(round(frames / chunk), 1) * chunk


def slot_count(num_workers: int) -> int:
    """Return the number of slots: one more than there are tasks for, worked on while another one is committed."""
    return 1 + -(-BATCHES_PER_WORKER * num_workers * BATCH_FRAMES // SLOT_FRAMES)


def usual_layout(num_workers: int, work: Workload) -> Layout:
    """Return the layout that is best when there is enough memory."""
    frames = min(SLOT_FRAMES, max(SLOT_BYTES // work.pixels, 1))
    length = max(1, min(aligned(frames, work.chunk_frames), work.frames))
    return Layout(slot_count(num_workers), length, num_workers + 2)


def needed(num_workers: int, work: Workload, layout: Layout) -> int:
    """Return how many bytes all processes of the pipeline take at most."""
    workers = num_workers * (WORKER_BYTES + _bytes_of_reading(work))
    # not more of them are at work on medians than there are images
    windows = min(num_workers, work.background_images or num_workers)
    medians = windows * (work.kernel_frames + min(work.batch_frames, layout.slot_frames)) * work.pixels
    slots = layout.slots * layout.slot_frames * (work.pixels * work.slot_pixel_bytes + EVENT_BYTES)
    staging = layout.units * (_unit_bytes(work.image_kinds, work.pixels) + _unit_bytes(SCALAR_KINDS, 8))
    # while they are chosen, there are two copies, and then another one for the workers
    backgrounds = 3 * work.background_images * work.pixels
    return PIPELINE_BYTES + workers + medians + slots + staging + backgrounds + work.frames * FRAME_BYTES


def usually_needed(num_workers: int, work: Workload) -> int:
    """Return how many bytes that is when there is enough memory for the best layout."""
    return needed(num_workers, work, usual_layout(num_workers, work))


def _bytes_of_reading(work: Workload) -> int:
    """Return what a worker takes for the chunks that it reads, and for the features of events."""
    chunk = work.chunk_frames * work.pixels
    # a chunk as it is stored and unpacked; and what the features of an event need, if it fills the frame
    return work.readers * 2 * chunk + 16 * work.pixels


def _unit_bytes(kinds: int, item_size: int) -> int:
    # as it is, and packed, which takes a little more at worst
    return kinds * best_chunk_items(item_size) * item_size * 202 // 100


def beside_pipeline(*, reports: bool) -> int:
    """Return how many bytes the other processes of the daemon take at most."""
    return SERVICE_BYTES + REPORT_BYTES * reports


def fitting_layout(num_workers: int, work: Workload, max_bytes: int, other_bytes: int = 0) -> Layout:
    """Return the layout that is best within a limit, of which other processes take a part.

    Raises
    ------
    WorkerError
        Reason ``memory_limit``: not even the smallest fits.
    """
    usual = usual_layout(num_workers, work)
    for units, least in ((usual.units, FEW_FRAMES), (FEW_UNITS, 1)):
        for frames in range(usual.slot_frames, min(least, usual.slot_frames) - 1, -1):
            layout = Layout(usual.slots, frames // work.chunk_frames * work.chunk_frames or frames, units)
            if needed(num_workers, work, layout) + other_bytes <= max_bytes:
                return layout
    least_bytes = needed(num_workers, work, dataclasses.replace(usual, slot_frames=1, units=FEW_UNITS))
    height, width = work.frame_shape
    others = f", {in_mb(other_bytes)} MB of it beside the pipeline" if other_bytes else ""
    raise WorkerError(
        f"frames of {height}x{width} pixels and {num_workers} workers take at least "
        f"{in_mb(least_bytes + other_bytes)} MB of memory{others}; "
        f"resources.max_memory_mb is {max_bytes // 10**6}. Allow more, or use fewer workers",
        "memory_limit",
    )


def in_mb(size: int) -> int:
    """Return a number of bytes in MB, rounded up."""
    return -(-size // 10**6)


def expected_workload(
    frame_shape: tuple[int, int],
    settings: PipelineSettings,
    *,
    basin_strategy: BasinStrategy = "tap",
    seconds: float = 600.0,
    frame_rate: float = 3000.0,
) -> Workload:
    """Return what a measurement will ask for, before there is one.

    Parameters
    ----------
    frame_shape
        Height and width of a frame [px].
    settings
        What is computed.
    basin_strategy
        ``drain`` writes more images.
    seconds, frame_rate
        Length of the recording [s], which matters little, and its frame rate [Hz].
    """
    # instruments store about 1 MiB in a chunk, as we do
    chunk = best_chunk_items(frame_shape[0] * frame_shape[1])
    frames = max(1, int(seconds * frame_rate))
    return workload(settings, basin_strategy, frame_shape, frames, chunk, seconds)


def workload(
    settings: PipelineSettings,
    basin_strategy: BasinStrategy,
    frame_shape: tuple[int, int],
    frames: int,
    chunk_frames: int,
    seconds: float,
) -> Workload:
    """Return what a measurement with some settings asks for; methods of other packages count as the worst case."""
    kwargs: dict[str, Any] = dict(settings.background_kwargs)
    shared = settings.background_code == "sparsemed"
    kernel, batch, images = 0, 0, 0
    if shared:
        kernel = int(kwargs.get("kernel_size", 200))
        images = 1 + int(seconds / float(kwargs.get("split_time", 1.0)))
    elif settings.background_code == "rollmed":
        kernel = int(kwargs.get("kernel_size", 100))
        batch = max(BATCH_FRAMES, 3 * kernel)
        # frames that are skipped are read, too, and get an image for nothing
        kernel *= 9 if settings.index_mapping is not None else 1
    # image and labels; what others segment goes through mask and corrected image
    pixel_bytes = 3 if settings.segmenter_code == "thresh" else 6
    return Workload(
        frame_shape=frame_shape,
        frames=frames,
        chunk_frames=chunk_frames,
        slot_pixel_bytes=pixel_bytes + (not shared),
        image_kinds=1 + (basin_strategy == "drain") + (not shared),
        readers=1 if shared or settings.background_code == "rollmed" else 2,
        kernel_frames=min(kernel, frames),
        batch_frames=min(batch, frames),
        background_images=min(images, frames),
    )
