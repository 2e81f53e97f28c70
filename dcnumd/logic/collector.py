"""Collects the batches of the workers in their final order: by frame, then by label."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.logic.columns import Columns
from dcnumd.logic.known_events import KnownEvents
from dcnumd.logic.mask_bits import mask_offsets, stage_masks
from dcnumd.logic.staging import Buffers, Staging
from dcnumd.logic.tasks import NO_SLOT, FramesReply, FramesTask, select_events
from dcnumd.shared_memory.slot import ChunkSlotData


@dataclasses.dataclass
class Batch:
    """A processed batch that waits until all earlier frames are committed."""

    task: FramesTask
    reply: FramesReply
    columns: list[npt.NDArray[Any]] | None = None
    """Scalar features; set when all earlier frames are committed and a repeated first frame has been removed."""
    images_staged: int = 0
    """Number of events whose images are staged."""
    columns_staged: int = 0
    """Number of events whose scalar features are staged."""

    @functools.cached_property
    def mask_offsets(self) -> npt.NDArray[np.int64]:
        """Where the mask of each event begins, and where the last one ends [bytes]; once the batch is committed."""
        return mask_offsets(self.reply.events.box)

    @property
    def count(self) -> int:
        """Number of events."""
        return len(self.reply.events.frame)


class Collector:
    """Receives batches in any order and commits them in the order of the frames.

    Parameters
    ----------
    slots
        The slots that tasks refer to.
    images, scalars
        Staging units for images and masks, and for scalar features.
    columns
        The scalar features.
    count
        Number of frames in the file.
    known
        Events that need not be computed; None if all are.
    """

    def __init__(
        self,
        slots: Sequence[ChunkSlotData],
        images: Staging,
        scalars: Staging,
        columns: Columns,
        count: int,
        known: KnownEvents | None = None,
    ) -> None:
        self._slots = slots
        self._images = images
        self._scalars = scalars
        self._columns = columns
        self._count = count
        self._known = known
        self._waiting: dict[int, Batch] = {}
        self._last_frame: bytes | None = None
        self.frames_done = 0
        self.events_done = 0
        self.masks_dropped = 0

    @property
    def finished(self) -> bool:
        """Whether all frames are committed."""
        return self.frames_done == self._count

    def add(self, task: FramesTask, reply: FramesReply) -> None:
        """Add a processed batch."""
        self._waiting[task.first] = Batch(task, reply)

    def advance(self) -> None:
        """Commit the next batches in order, until the staging units are full."""
        while (batch := self._next_batch()) is not None:
            if batch.columns is None:
                self._drop_repeated_frame(batch)
                batch.columns = self._columns.values(batch.task, batch.reply)
            self._stage(batch, batch.columns)
            if not batch.images_staged == batch.columns_staged == batch.count:
                return
            self._finish(batch)
            if self.finished:
                self._images.close_unit()
                self._scalars.close_unit()

    def _next_batch(self) -> Batch | None:
        """Return the batch that is committed next; None if it is not processed yet, or if there are no more frames."""
        first = self.frames_done
        if first not in self._waiting and self._known is not None:
            known = self._known.batch_at(first)
            if known is not None:
                self.add(*known)
        return self._waiting.get(first)

    def _drop_repeated_frame(self, batch: Batch) -> None:
        """Remove the events of a first frame that equals the frame before, which is not in the worker's batch."""
        edges, events = batch.reply.edges, batch.reply.events
        self.masks_dropped += events.invalid
        if edges.first == self._last_frame:
            masks = batch.reply.masks[mask_offsets(events.box)[np.count_nonzero(events.frame == 0)] :]
            events = select_events(events, events.frame != 0)
            batch.reply = dataclasses.replace(batch.reply, events=events, masks=masks)
        self._last_frame = edges.last

    def _stage(self, batch: Batch, columns: Sequence[npt.NDArray[Any]]) -> None:
        """Copy events of a batch to the staging units, until they are full."""
        events = batch.reply.events
        offsets = batch.mask_offsets
        sources = self._sources(batch.task)
        kinds = self._images.layout.kinds

        def copy_images(buffers: Sequence[Buffers], position: int, part: slice) -> None:
            for kind, buffer in zip(kinds, buffers, strict=True):
                out = buffer.raw[position : position + part.stop - part.start]
                if kind.is_mask:
                    stage_masks(batch.reply.masks, offsets[part.start : part.stop + 1], events.box[part], out)
                else:
                    np.take(sources[kind.name], events.frame[part], axis=0, out=out, mode="clip")

        def copy_columns(buffers: Sequence[Buffers], position: int, part: slice) -> None:
            for values, buffer in zip(columns, buffers, strict=True):
                buffer.raw[position : position + part.stop - part.start] = values[part]

        batch.images_staged = self._images.stage(batch.images_staged, batch.count, copy_images)
        batch.columns_staged = self._scalars.stage(batch.columns_staged, batch.count, copy_columns)

    def _sources(self, task: FramesTask) -> dict[str, npt.NDArray[np.uint8]]:
        """Return the images of the frames of a batch by the name of their feature."""
        if task.slot_index == NO_SLOT:
            return {}
        slot, frames = self._slots[task.slot_index], slice(task.start, task.stop)
        sources = {"image": slot.image[frames]}
        if slot.image_bg is not None:
            sources["image_bg"] = slot.image_bg[frames]
        return sources

    def _finish(self, batch: Batch) -> None:
        task = batch.task
        del self._waiting[task.first]
        self.frames_done += task.stop - task.start
        self.events_done += batch.count
        if task.slot_index != NO_SLOT and task.stop == self._slots[task.slot_index].length:
            self._slots[task.slot_index].state = "d"
