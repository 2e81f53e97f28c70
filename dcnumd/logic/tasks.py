"""Tasks of the workers for one file: turning frames into events, and packing chunks of the result.

A worker processes a batch in all stages (load, segment, label, process, extract) while it is in the processor's cache.
It returns one small table per batch to the parent; images stay in shared memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dcnumd.feat.events import Events, Workspace, extract_events, feature_names
from dcnumd.feat.feat_background.bg_roll_median import RollingMedianSource
from dcnumd.feat.feat_background.bg_sparse_median import median_image
from dcnumd.feat.feat_background.offset import background_offset, wall_brightness
from dcnumd.feat.gate import Gate
from dcnumd.logic.mask_bits import draw_masks, pack_masks
from dcnumd.logic.staging import FullUnit, StagingLayout
from dcnumd.logic.timing import Span, StageClock
from dcnumd.logic.warm_up import load_kernels
from dcnumd.read.frame_reader import FrameReader, FrameSource
from dcnumd.segm import labeling
from dcnumd.segm.session import SharedSegmenter
from dcnumd.shared_memory.block import SharedBlock
from dcnumd.shared_memory.slot import ChunkSlotData
from dcnumd.write.pack import pack_chunk

DIGEST_BYTES = 16
"""Length of the digest of a frame [bytes]."""


@dataclasses.dataclass(frozen=True)
class SharedBackgrounds:
    """Background images in shared memory, uint8 (image, y, x)."""

    block: SharedBlock
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, images: npt.NDArray[np.uint8]) -> SharedBackgrounds:
        """Copy images to shared memory."""
        count, height, width = images.shape
        shared = cls(SharedBlock(max(images.nbytes, 1)), (count, height, width))
        shared.images[:] = images
        return shared

    @property
    def images(self) -> npt.NDArray[np.uint8]:
        """The images."""
        return self.block.array(0, self.shape, np.uint8)


@dataclasses.dataclass(frozen=True)
class FeatureSettings:
    """Settings of the features of events."""

    pixel_size: float
    brightness: bool
    haralick: bool
    volume: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in the order of the event table."""
        return feature_names(brightness=self.brightness, haralick=self.haralick, volume=self.volume)


def select_events(events: Events, chosen: npt.NDArray[np.bool_]) -> Events:
    """Return the events of a batch for which `chosen` (event,) is true."""
    if chosen.all():
        return events
    return dataclasses.replace(
        events,
        table=events.table[chosen],
        frame=events.frame[chosen],
        label=events.label[chosen],
        box=events.box[chosen],
    )


Step = Literal["all", "load", "mask", "extract", "fetch"]
"""What to do with frames: all, or, where only one worker segments, one step after the other; or only to load them,
because their events are known."""
LOADING = frozenset({"all", "load", "fetch"})
"""Steps that load frames."""


NO_SLOT = -1
"""Index of the slot of a batch whose frames are in none, since its events are known."""


@dataclasses.dataclass(frozen=True)
class FramesTask:
    """Task: process the frames `start` to `stop` of a slot, the first of which is frame `first` of the input."""

    slot_index: int
    start: int
    stop: int
    first: int
    background_index: npt.NDArray[np.int64] | None = dataclasses.field(default=None, repr=False, compare=False)
    """Position of each frame's image among the shared images; None if each frame has its own image."""
    bg_off: npt.NDArray[Any] | None = dataclasses.field(default=None, repr=False, compare=False)
    """Background offset of each frame; None if it is computed by the worker or does not exist."""
    step: Step = "all"


class Edges(NamedTuple):
    """Digests of the first and the last frame of a batch, which tell whether a frame equals that before the batch."""

    first: bytes
    last: bytes

    @classmethod
    def of(cls, images: npt.NDArray[np.uint8]) -> Edges:
        """Return the edges of the frames of a batch."""
        first, last = (hashlib.blake2b(images[number].data, digest_size=DIGEST_BYTES).digest() for number in (0, -1))
        return cls(first, last)


@dataclasses.dataclass(frozen=True)
class FramesReply:
    """The events of a batch after gating; frames are counted from the start of the batch."""

    events: Events
    bg_off: npt.NDArray[np.float64] | None
    edges: Edges
    masks: npt.NDArray[np.uint8]
    """Masks of the events, see `dcnumd.logic.mask_bits`."""
    spans: Sequence[Span] = ()
    bytes_read: int = 0


@dataclasses.dataclass(frozen=True)
class StepReply:
    """Frames were loaded into their slot, or their masks were computed."""

    spans: Sequence[Span]
    bytes_read: int


@dataclasses.dataclass(frozen=True)
class PackTask:
    """Task: pack some kinds in staging units as chunks of their datasets."""

    staging: int
    kinds: tuple[int, ...]
    units: tuple[FullUnit, ...]


@dataclasses.dataclass(frozen=True)
class PackReply:
    """Size of the packed chunk of each kind, unit by unit [bytes]."""

    sizes: Sequence[Sequence[int]]
    spans: Sequence[Span]


@dataclasses.dataclass(frozen=True)
class MedianTask:
    """Task: compute the median of the frames that begin at `start`."""

    start: int


@dataclasses.dataclass(frozen=True)
class MedianReply:
    """The median image, uint8 (y, x)."""

    image: npt.NDArray[np.uint8]
    spans: Sequence[Span]
    bytes_read: int


class Reader(Protocol):
    """Provides the images of frames, read from a file or computed."""

    @property
    def bytes_read(self) -> int:
        """Number of bytes read from files so far."""

    def read_into(self, start: int, stop: int, out: npt.NDArray[np.uint8]) -> None:
        """Write the images of the frames ``start … stop - 1`` to `out`, uint8 (frame, y, x)."""

    def close(self) -> None:
        """Close the file."""


@dataclasses.dataclass(frozen=True)
class FileProgram:
    """Everything that workers need for one file."""

    frames: FrameSource
    background_frames: FrameSource | RollingMedianSource | None
    backgrounds: SharedBackgrounds | None
    offset_correction: bool
    """Whether the workers compute the background offset."""
    features: FeatureSettings
    gate: Gate
    stagings: tuple[StagingLayout, ...]
    compression_level: int | None

    def open(self, segmenter: SharedSegmenter, slot_list: Sequence[ChunkSlotData]) -> FileSession:
        """Start a session in the worker."""
        return FileSession(self, segmenter, slot_list)


@dataclasses.dataclass(frozen=True)
class WarmUpTask:
    """Task: reply as soon as all kernels are loaded."""

    number: int


class WarmUpProgram:
    """Program of workers before a file: load kernels and model, which also verifies that this is possible."""

    def open(self, segmenter: SharedSegmenter, _slot_list: Sequence[ChunkSlotData]) -> WarmUpProgram:
        """Load the kernels, and what the segmenter needs, in the worker."""
        load_kernels()
        segmenter.warm_up()
        return self

    def run(self, _task: WarmUpTask) -> None:
        """Do nothing: the kernels are loaded by `open`."""

    def close(self) -> None:
        """Do nothing: the session has no resources."""


@dataclasses.dataclass(frozen=True)
class MedianProgram:
    """Program of workers that compute medians of `kernel_size` frames for background images."""

    frames: FrameSource
    kernel_size: int

    def open(self, _segmenter: SharedSegmenter, _slot_list: Sequence[ChunkSlotData]) -> MedianSession:
        """Start a session in the worker."""
        return MedianSession(self)


class MedianSession:
    """Computes medians in a worker."""

    def __init__(self, program: MedianProgram) -> None:
        self._reader = FrameReader(program.frames)
        self._window = np.empty((program.kernel_size, *program.frames.frame_shape), np.uint8)

    def run(self, task: MedianTask) -> MedianReply:
        """Compute one median."""
        clock, read_before = StageClock(), self._reader.bytes_read
        self._reader.read_into(task.start, task.start + len(self._window), self._window)
        image = median_image(self._window)
        clock.tick("background")
        return MedianReply(image, clock.spans, self._reader.bytes_read - read_before)

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()


class FileSession:
    """Runs the tasks of one file in a worker, with open readers and scratch memory."""

    def __init__(self, program: FileProgram, segmenter: SharedSegmenter, slots: Sequence[ChunkSlotData]) -> None:
        self._program = program
        self._segmenter = segmenter
        self._slots = slots
        self._workspace = Workspace()
        self._names = program.features.names
        self._buffers = [layout.buffers() for layout in program.stagings]
        self._drawn: npt.NDArray[np.uint8] | None = None
        self._wall_brightness = np.empty(0)
        if program.backgrounds is not None:
            self._wall_brightness = wall_brightness(program.backgrounds.images)
        self._background_reader: Reader | None = None
        with contextlib.ExitStack() as stack:
            self._reader = stack.enter_context(FrameReader(program.frames))
            if program.background_frames is not None:
                self._background_reader = stack.enter_context(contextlib.closing(program.background_frames.open()))
            self._resources = stack.pop_all()

    def run(self, task: FramesTask | PackTask) -> FramesReply | StepReply | PackReply:
        """Run one task."""
        return self._pack(task) if isinstance(task, PackTask) else self._process(task)

    def close(self) -> None:
        """Close the readers."""
        self._resources.close()

    @property
    def _bytes_read(self) -> int:
        return self._reader.bytes_read + (self._background_reader.bytes_read if self._background_reader else 0)

    def _process(self, task: FramesTask) -> FramesReply | StepReply:
        slot, clock, read_before = self._slots[task.slot_index], StageClock(), self._bytes_read
        start, stop = task.start, task.stop
        backgrounds, background_index = self._backgrounds(slot, task)
        if task.step in LOADING:
            self._load(slot, task, background_index, clock)
            clock.tick("load")
        if task.step == "all":
            self._segmenter.label_batch(slot, start, stop, backgrounds, background_index)
        elif task.step == "mask":
            self._segmenter.mask_batch(slot, start, stop, backgrounds, background_index)
        elif task.step == "extract":
            self._segmenter.label_masks(slot, start, stop)
        clock.tick("segment")
        if task.step in {"load", "mask", "fetch"}:
            return StepReply(clock.spans, self._bytes_read - read_before)
        return self._extract(task, backgrounds, background_index, clock, read_before)

    def _extract(
        self,
        task: FramesTask,
        backgrounds: npt.NDArray[np.uint8],
        background_index: npt.NDArray[np.int64],
        clock: StageClock,
        read_before: int,
    ) -> FramesReply:
        slot, start, stop = self._slots[task.slot_index], task.start, task.stop
        bg_off = None if slot.bg_off is None else slot.bg_off[start:stop].copy()
        images = slot.image[start:stop]
        features = self._program.features
        events = extract_events(
            images,
            backgrounds,
            background_index,
            np.empty(0) if bg_off is None else bg_off,
            slot.labels[start:stop],
            labeling.duplicate_frames(images, None),
            pixel_size=features.pixel_size,
            size_thresh=self._program.gate.size_thresh_mask,
            brightness=features.brightness,
            haralick=features.haralick,
            volume=features.volume,
            workspace=self._workspace,
        )
        events = select_events(events, self._program.gate.accept(events.table, self._names))
        masks = pack_masks(slot.labels[start:stop], events)
        clock.tick("extract")
        return FramesReply(events, bg_off, Edges.of(images), masks, clock.spans, self._bytes_read - read_before)

    def _backgrounds(
        self, slot: ChunkSlotData, task: FramesTask
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Return the background images of a batch, which may have to be loaded, and the index of each frame's."""
        if self._background_reader is not None and slot.image_bg is not None:
            return slot.image_bg[task.start : task.stop], np.arange(task.stop - task.start)
        assert self._program.backgrounds is not None
        assert task.background_index is not None
        return self._program.backgrounds.images, task.background_index

    def _load(self, slot: ChunkSlotData, task: FramesTask, index: npt.NDArray[np.int64], clock: StageClock) -> None:
        """Fill image, image_bg and bg_off of a batch."""
        start, stop, first = task.start, task.stop, task.first
        last = first + stop - start
        images = slot.image[start:stop]
        self._reader.read_into(first, last, images)
        if self._background_reader is not None and slot.image_bg is not None:
            clock.tick("load")
            self._background_reader.read_into(first, last, slot.image_bg[start:stop])
            clock.tick("background")
        if slot.bg_off is not None:
            if self._program.offset_correction:
                slot.bg_off[start:stop] = background_offset(images, self._wall_brightness, index)
            else:
                slot.bg_off[start:stop] = task.bg_off

    def _pack(self, task: PackTask) -> PackReply:
        clock = StageClock()
        sizes = [[self._pack_chunk(task.staging, full, kind) for kind in task.kinds] for full in task.units]
        clock.tick("pack")
        return PackReply(sizes, clock.spans)

    def _pack_chunk(self, staging: int, full: FullUnit, kind: int) -> int:
        """Pack one chunk, and return its size [bytes]."""
        layout = self._program.stagings[staging]
        buffers = self._buffers[staging][full.unit][kind]
        chunk = buffers.raw
        if layout.kinds[kind].is_mask:
            chunk = self._masks(layout.chunk_items, layout.kinds[kind].item_shape)
            draw_masks(buffers.raw[: full.items], chunk)
        else:
            chunk[full.items :] = 0
        return pack_chunk(chunk, self._program.compression_level, buffers.packed.data)

    def _masks(self, items: int, item_shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """Return memory for the masks of a chunk, which is small enough for the processor's cache."""
        if self._drawn is None:
            self._drawn = np.empty((items, *item_shape), np.uint8)
        return self._drawn
