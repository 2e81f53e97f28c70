"""Memory of the pipeline's processes for a measurement, and layouts that need less.

Apart from the processes themselves, a file needs slots, staging units and the data that each worker reads at once.
Their size does not depend on the length of the measurement; only background images and a few numbers per frame do.
Sizes of data are computed; other sizes were measured (PSS, x86-64, Python 3.11, glibc) and rounded up. This module
imports no numerical code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
from typing import Any

from dcnumd.config.choices import BasinStrategy
from dcnumd.errors import ModelError, WorkerError
from dcnumd.logic.job import PipelineSettings, SegmenterSpec
from dcnumd.segm.segm_torch.model_memory import BATCH, NO_MODEL, ModelNeeds, model_needs
from dcnumd.write.chunk_size import best_chunk_items

MIB = 2**20
PIPELINE_BYTES = 160 * MIB
"""Memory of the pipeline process, the fork server, and the libraries that all processes share [bytes]."""
WORKER_BYTES = 32 * MIB
"""Memory that each worker does not share [bytes]."""
SERVICE_BYTES = 110 * MIB
"""Memory of the supervisor and the probe process of the daemon [bytes]."""
REPORT_BYTES = 260 * MIB
"""Memory of the process that makes reports, with the libraries for drawing [bytes]."""
ISOELASTICS_BYTES = 50 * MIB
"""Additional memory of this process if it imports dclab for isoelasticity lines [bytes]."""
CLUSTER_BYTES = 80 * MIB
"""Additional memory of the supervisor if it uses a Dask cluster, and of the process that writes indexes [bytes]."""
LIVE_BYTES = 64 * MIB
"""Memory of the process that reads recordings, in addition to that of a pipeline without work [bytes]: the frames and
the events that it works on, for frames of a usual size, and the events that the live page shows."""
FRAME_BYTES = 100
"""Memory for numbers of each frame of the measurement [bytes]."""
EVENT_BYTES = 4096
"""Memory for the features of the events of a frame until they are written [bytes], for five events per frame."""
SCALAR_KINDS = 100
"""Largest number of scalar features in a result that also has copies of those of the input."""

SLOT_PIXEL_BYTES = {"thresh": 3, "torchmpo": 4, "torchsto": 4, "torchuni": 4}
"""Number of bytes in a slot that a segmenter uses for each pixel, by its code."""
SLOT_FRAMES = 1000
"""Number of frames in a slot, before it is aligned to the chunks of the file."""
SLOT_BYTES = 2**25
"""Approximate size of the images in a slot [bytes], unless a single frame is larger."""
BATCH_FRAMES = 100
"""Number of frames in a batch for a worker, before it is aligned to the chunks of the file."""
BATCHES_PER_WORKER = 4
"""Smallest number of batches for each worker, so that all workers end at about the same time."""
UNITS_PER_SLOT = 3
"""Number of units of a growing recording in a slot, so that each worker has a task while others are begun and ended."""
FEW_UNITS = 2
"""Smallest number of staging units, which is enough for scalar features, whose chunks have many events; with fewer,
packing and filling would wait for each other."""
MASK_UNITS = 4
"""Number of staging units, relative to `Layout.units`, if only masks are written."""
FEW_FRAMES = 20
"""Number of frames below which slots are reduced only if nothing else can be."""


@dataclasses.dataclass(frozen=True, slots=True)
class Workload:
    """Properties of a file and its pipeline that determine the memory."""

    frame_shape: tuple[int, int]
    frames: int
    chunk_frames: int
    """Number of frames in an HDF5 chunk of the input."""
    slot_pixel_bytes: int
    """Number of bytes in a slot for each pixel."""
    image_kinds: int
    """Number of images of an event that are written: mask, image, background."""
    readers: int
    """Number of files or datasets of images that each worker reads."""
    kernel_frames: int
    """Number of frames that a worker holds for medians."""
    batch_frames: int
    """Number of additional frames that a worker holds for a batch, at most those of a slot."""
    background_images: int
    """Number of background images of the whole measurement."""
    models: ModelNeeds = NO_MODEL
    """Memory for the models of the segmenter."""

    @property
    def pixels(self) -> int:
        """Number of pixels in a frame."""
        return self.frame_shape[0] * self.frame_shape[1]


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """Amount of data that is processed at the same time."""

    slots: int
    slot_frames: int
    units: int
    """Number of output chunks of each kind of images that can be filled or packed at the same time."""

    def image_units(self, kinds: int) -> int:
        """Return the number of staging units for some kinds of images; more for masks alone, which take little room."""
        return self.units * (MASK_UNITS if kinds == 1 else 1)


def aligned(frames: int, chunk: int) -> int:
    """Return the multiple of `chunk` nearest to `frames`, at least one; or `frames` for a far larger chunk."""
    if chunk > 2 * frames:
        return frames
    return max(round(frames / chunk), 1) * chunk


def slot_count(num_workers: int) -> int:
    """Return the number of slots: one more than the workers need, so that one can be committed meanwhile."""
    return 1 + -(-BATCHES_PER_WORKER * num_workers * BATCH_FRAMES // SLOT_FRAMES)


def usual_layout(num_workers: int, work: Workload) -> Layout:
    """Return the fastest layout, for sufficient memory."""
    frames = min(SLOT_FRAMES, max(SLOT_BYTES // work.pixels, 1))
    length = max(1, min(aligned(frames, work.chunk_frames), work.frames))
    return Layout(slot_count(num_workers), length, num_workers + 2)


def needed(num_workers: int, work: Workload, layout: Layout) -> int:
    """Return the largest memory of all processes of the pipeline [bytes]."""
    workers = num_workers * (WORKER_BYTES + work.models.worker_bytes + _bytes_of_reading(work))
    # medians occupy no more workers than there are images
    windows = min(num_workers, work.background_images or num_workers)
    medians = windows * (work.kernel_frames + min(work.batch_frames, layout.slot_frames)) * work.pixels
    slots = layout.slots * layout.slot_frames * (work.pixels * work.slot_pixel_bytes + EVENT_BYTES)
    # masks wait as bits, and each worker draws those of one chunk
    mask_bytes = best_chunk_items(work.pixels) * work.pixels
    unit_bytes = _unit_bytes(work.image_kinds, work.pixels) - mask_bytes * 7 // 8
    images = layout.image_units(work.image_kinds) * unit_bytes + num_workers * mask_bytes
    staging = images + FEW_UNITS * _unit_bytes(SCALAR_KINDS, 8)
    # cleansing makes a second copy, and the workers receive another one
    backgrounds = 3 * work.background_images * work.pixels
    shared = PIPELINE_BYTES + work.models.shared_bytes
    return shared + workers + medians + slots + staging + backgrounds + work.frames * FRAME_BYTES


def usually_needed(num_workers: int, work: Workload) -> int:
    """Return `needed` for the fastest layout."""
    return needed(num_workers, work, usual_layout(num_workers, work))


def _bytes_of_reading(work: Workload) -> int:
    """Return the memory of a worker for chunks that it reads, and for the features of events [bytes]."""
    chunk = work.chunk_frames * work.pixels
    # a stored and a decompressed chunk; and the buffers for the features of an event that fills the frame
    return work.readers * 2 * chunk + 16 * work.pixels


def _unit_bytes(kinds: int, item_size: int) -> int:
    # raw and packed, which is slightly larger for incompressible data
    return kinds * best_chunk_items(item_size) * item_size * 202 // 100


def beside_pipeline(*, reports: bool, isoelastics: bool = False, cluster: bool = False, live_workers: int = 0) -> int:
    """Return the largest memory of the other processes of the daemon [bytes].

    Parameters
    ----------
    reports
        Whether reports are made.
    isoelastics
        Whether reports have isoelasticity lines, which they have only if dclab is installed.
    cluster
        Whether the daemon uses a Dask cluster.
    live_workers
        Number of workers of the process that reads recordings; 0 if there is none.
    """
    reporting = for_reports(isoelastics=isoelastics) if reports else 0
    live = for_live(live_workers) if live_workers else 0
    return SERVICE_BYTES + reporting + live + (CLUSTER_BYTES if cluster else 0)


def for_live(num_workers: int) -> int:
    """Return the largest memory of the process that reads recordings, and of its workers [bytes]."""
    return PIPELINE_BYTES + num_workers * WORKER_BYTES + LIVE_BYTES


def for_reports(*, isoelastics: bool) -> int:
    """Return the largest memory of the process that makes reports [bytes]; for `isoelastics` see above."""
    return REPORT_BYTES + (ISOELASTICS_BYTES if isoelastics and _has_dclab() else 0)


@functools.cache
def _has_dclab() -> bool:
    # The search reads folders, and this is asked several times for each job.
    return importlib.util.find_spec("dclab") is not None


def fitting_layout(num_workers: int, work: Workload, max_bytes: int, other_bytes: int = 0) -> Layout:
    """Return the fastest layout within a limit that includes the memory of other processes.

    Raises
    ------
    WorkerError
        Reason ``memory_limit``: even the smallest layout exceeds the limit.
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
    """Return the expected workload of a measurement that does not exist yet.

    Parameters
    ----------
    frame_shape
        Height and width of a frame [px].
    settings
        Settings of the pipeline.
    basin_strategy
        Strategy for basins; ``drain`` writes more images.
    seconds
        Duration of the recording [s], which has little effect.
    frame_rate
        Frame rate [Hz].
    """
    # instruments store about 1 MiB in a chunk, as dcnumd does
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
    """Return the workload of a measurement; methods of other packages are assumed to need the most memory."""
    kwargs: dict[str, Any] = dict(settings.background_kwargs)
    shared = settings.background_code == "sparsemed"
    kernel, batch, images = 0, 0, 0
    if shared:
        kernel = int(kwargs.get("kernel_size", 200))
        images = 1 + int(seconds / float(kwargs.get("split_time", 1.0)))
    elif settings.background_code == "rollmed":
        kernel = int(kwargs.get("kernel_size", 100))
        batch = max(BATCH_FRAMES, 3 * kernel)
        # skipped frames are read as well, and their images are computed
        kernel *= 9 if settings.index_mapping is not None else 1
    # image and labels, and for models the mask; segmenters of other packages also use the corrected image
    pixel_bytes = SLOT_PIXEL_BYTES.get(settings.segmenter_code, 6)
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
        models=_needs_of_models(settings, frame_shape[0] * frame_shape[1]),
    )


def _needs_of_models(settings: PipelineSettings, pixels: int) -> ModelNeeds:
    """Return the memory for the models that settings name; nothing if they name none."""
    found = [
        _needs_of_model(settings, chosen, pixels) for chosen in settings.segmenters if chosen.kwargs.get("model_file")
    ]
    return ModelNeeds(*map(max, zip(*found, strict=True))) if found else NO_MODEL


def _needs_of_model(settings: PipelineSettings, chosen: SegmenterSpec, pixels: int) -> ModelNeeds:
    # the supervisor imports this module, and needs these only for models
    from dcnumd.segm.segm_torch.model_file import find_model, read_model  # noqa: PLC0415
    from dcnumd.segm.segm_torch.model_meta import EAGER, OPENVINO  # noqa: PLC0415

    # what cannot be read fails before it takes memory
    size, frames, is_program, backend = 0, BATCH, chosen.code == "torchuni", ""
    with contextlib.suppress(ModelError):
        model = read_model(find_model(chosen.kwargs["model_file"], settings.model_folders))
        size, is_program = model.size, model.meta.file_format == "ExportedProgram"
        frames = 1 if chosen.code == "torchmpo" else model.meta.batch_size or BATCH
        backend = model.wiring(chosen.kwargs.get("backend") or None, chosen.kwargs.get("device") or None).backend
    is_compiled = is_program and backend not in {EAGER, OPENVINO}
    return model_needs(size, pixels, frames, is_program=is_program, is_compiled=is_compiled)
