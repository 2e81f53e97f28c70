"""What a worker does for one file: turn frames into events, and pack chunks of the result.

A worker takes a batch through all stages (load, segment, label, process, extract) while it is in the processor's
cache. What goes back to the parent is one small table for each batch; images stay in shared memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dcnumd.feat.events import Events, Workspace, extract_events, feature_names
from dcnumd.feat.feat_background.offset import background_offset, wall_brightness
from dcnumd.feat.gate import Gate
from dcnumd.logic.chunk_slot_data import ChunkSlotData, SharedBlock
from dcnumd.logic.staging import StagingLayout
from dcnumd.read.frame_reader import FrameReader
from dcnumd.read.frame_source import FrameSource
from dcnumd.segm import labeling
from dcnumd.segm.segmenter_mpo import MPOSegmenter
from dcnumd.write.pack import pack_chunk


@dataclasses.dataclass(frozen=True)
class SharedBackgrounds:
    """Background images that all workers see, uint8 (image, y, x)."""

    block: SharedBlock
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, images: npt.NDArray[np.uint8]) -> SharedBackgrounds:
        """Put images into shared memory."""
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
    """What is measured of each event."""

    pixel_size: float
    brightness: bool
    haralick: bool
    volume: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in the order of the event table."""
        return feature_names(brightness=self.brightness, haralick=self.haralick, volume=self.volume)


def select_events(events: Events, chosen: npt.NDArray[np.bool_]) -> Events:
    """Return those events of a batch for which `chosen` (event,) is true."""
    if chosen.all():
        return events
    return dataclasses.replace(
        events,
        table=events.table[chosen],
        frame=events.frame[chosen],
        label=events.label[chosen],
        box=events.box[chosen],
    )


@dataclasses.dataclass(frozen=True)
class FramesTask:
    """Process the frames `start` to `stop` of a slot, the first of which is frame `first` of the input."""

    slot_index: int
    start: int
    stop: int
    first: int
    background_index: npt.NDArray[np.int64] | None = dataclasses.field(default=None, repr=False, compare=False)
    """For each frame its image among the shared backgrounds; None if each frame has an image of its own."""
    bg_off: npt.NDArray[np.float64] | None = dataclasses.field(default=None, repr=False, compare=False)
    """Background offsets that are known already."""


@dataclasses.dataclass(frozen=True)
class FramesReply:
    """The events of a batch, gated; frames are counted from the start of the batch."""

    events: Events
    bg_off: npt.NDArray[np.float64] | None
    seconds: dict[str, float]


@dataclasses.dataclass(frozen=True)
class PackTask:
    """Pack the first `items` of one kind in a staging unit as chunk number `chunk` of its dataset."""

    unit: int
    kind: int
    items: int
    chunk: int


@dataclasses.dataclass(frozen=True)
class PackReply:
    """Size of the packed chunk [bytes] and the time it took."""

    size: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class FileProgram:
    """All that workers need to know of one file."""

    frames: FrameSource
    background_frames: FrameSource | None
    backgrounds: SharedBackgrounds | None
    offset_correction: bool
    """Whether the background offset is computed from the frames."""
    features: FeatureSettings
    gate: Gate
    staging: StagingLayout
    compression_level: int | None

    def open(self, segmenter: MPOSegmenter, slot_list: Sequence[ChunkSlotData]) -> FileSession:
        """Start a session in the worker."""
        return FileSession(self, segmenter, slot_list)


class StageClock:
    """Adds up the seconds between two ticks under the name of a stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def tick(self, stage: str) -> None:
        """Count the time since the last tick for `stage`."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


class FileSession:
    """A worker's session: open readers and scratch memory for one file."""

    def __init__(self, program: FileProgram, segmenter: MPOSegmenter, slots: Sequence[ChunkSlotData]) -> None:
        self._program = program
        self._segmenter = segmenter
        self._slots = slots
        self._workspace = Workspace()
        self._names = program.features.names
        self._wall_brightness = np.empty(0)
        if program.backgrounds is not None:
            self._wall_brightness = wall_brightness(program.backgrounds.images)
        self._background_reader: FrameReader | None = None
        with contextlib.ExitStack() as stack:
            self._reader = stack.enter_context(FrameReader(program.frames))
            if program.background_frames is not None:
                self._background_reader = stack.enter_context(FrameReader(program.background_frames))
            self._readers = stack.pop_all()

    def run(self, task: FramesTask | PackTask) -> FramesReply | PackReply:
        """Do one task."""
        return self._pack(task) if isinstance(task, PackTask) else self._process(task)

    def close(self) -> None:
        """Close the readers."""
        self._readers.close()

    def _process(self, task: FramesTask) -> FramesReply:
        slot, clock = self._slots[task.slot_index], StageClock()
        start, stop = task.start, task.stop
        backgrounds, background_index = self._load(slot, task)
        clock.tick("load")
        self._segmenter.label_batch(slot, start, stop, backgrounds, background_index)
        clock.tick("segment")
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
        clock.tick("extract")
        return FramesReply(events, bg_off, clock.seconds)

    def _load(self, slot: ChunkSlotData, task: FramesTask) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Fill image, image_bg and bg_off of a batch; return its background images and which frame has which."""
        start, stop, first = task.start, task.stop, task.first
        last = first + stop - start
        images = slot.image[start:stop]
        self._reader.read_into(first, last, images)
        if self._background_reader is not None and slot.image_bg is not None:
            backgrounds = slot.image_bg[start:stop]
            self._background_reader.read_into(first, last, backgrounds)
            index = np.arange(stop - start)
        else:
            assert self._program.backgrounds is not None
            assert task.background_index is not None
            backgrounds, index = self._program.backgrounds.images, task.background_index
        if slot.bg_off is not None:
            if self._program.offset_correction:
                slot.bg_off[start:stop] = background_offset(images, self._wall_brightness, index)
            else:
                slot.bg_off[start:stop] = task.bg_off
        return backgrounds, index

    def _pack(self, task: PackTask) -> PackReply:
        begin = time.perf_counter()
        layout = self._program.staging
        raw = layout.raw(task.unit, task.kind)
        raw[task.items :] = 0
        out = layout.packed(task.unit, task.kind)
        size = pack_chunk(raw, self._program.compression_level, out.data)
        return PackReply(size, time.perf_counter() - begin)
