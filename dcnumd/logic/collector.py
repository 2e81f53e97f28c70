"""Puts what the workers deliver into its final order: frame after frame, label after label."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.feat.events import Events
from dcnumd.logic.chunk_slot_data import ChunkSlotData
from dcnumd.logic.staging import Staging
from dcnumd.logic.tasks import FramesReply, FramesTask, PackTask, select_events


@dataclasses.dataclass
class Batch:
    """A processed batch that waits for its turn."""

    task: FramesTask
    reply: FramesReply
    staged: int = 0
    """Number of its events that are in staging units."""
    committed: bool = False
    """Whether its numbers are taken over and duplicates of the previous batch's last frame are gone."""


class Columns:
    """The scalar features of all events, gathered batch by batch."""

    def __init__(self) -> None:
        self._parts: dict[str, list[npt.NDArray[Any]]] = collections.defaultdict(list)

    def add(self, name: str, values: npt.NDArray[Any]) -> None:
        """Append values of a feature."""
        self._parts[name].append(values)

    def items(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield each feature with all its values."""
        for name, parts in self._parts.items():
            yield name, np.concatenate(parts)


class Collector:
    """Takes batches in any order and commits them in the order of the frames.

    Parameters
    ----------
    slots
        The slots that tasks refer to.
    staging
        Where images and masks of events go.
    columns
        Names of the computed features, in the order of the event table.
    count
        Number of frames of the whole file.
    """

    def __init__(self, slots: Sequence[ChunkSlotData], staging: Staging, columns: Sequence[str], count: int) -> None:
        self._slots = slots
        self._staging = staging
        self._names = columns
        self._count = count
        self._waiting: dict[int, Batch] = {}
        self._last_frame: npt.NDArray[np.uint8] | None = None
        self._unit: int | None = None
        self._unit_fill = 0
        self._chunk = 0
        self.columns = Columns()
        self.frames_done = 0
        self.events_done = 0
        self.masks_dropped = 0

    @property
    def finished(self) -> bool:
        """Whether all frames are committed."""
        return self.frames_done == self._count

    def add(self, task: FramesTask, reply: FramesReply) -> None:
        """Take over a processed batch."""
        self._waiting[task.first] = Batch(task, reply)

    def advance(self) -> list[PackTask]:
        """Commit what is next in order, as far as there is room; return what can be packed now."""
        full: list[PackTask] = []
        while (batch := self._waiting.get(self.frames_done)) is not None:
            if not batch.committed:
                self._commit(batch)
            if not self._stage(batch, full):
                break
            self._finish(batch)
        if self.finished and self._unit is not None and self._unit_fill:
            full += self._close_unit()
        return full

    def _commit(self, batch: Batch) -> None:
        task, slot = batch.task, self._slots[batch.task.slot_index]
        events = batch.reply.events
        self.masks_dropped += events.invalid
        first_image = slot.image[task.start]
        if self._last_frame is not None and np.array_equal(first_image, self._last_frame):
            # workers see only their own batch; a frame that repeats the last one yields no events
            events = select_events(events, events.frame != 0)
            batch.reply = dataclasses.replace(batch.reply, events=events)
        self._last_frame = slot.image[task.stop - 1].copy()
        self._add_columns(task, events, batch.reply)
        batch.committed = True

    def _add_columns(self, task: FramesTask, events: Events, reply: FramesReply) -> None:
        frames = events.frame
        for position, name in enumerate(self._names):
            self.columns.add(name, events.table[:, position])
        self.columns.add("basinmap0", task.first + frames)
        self.columns.add("nevents", np.bincount(frames, minlength=1)[frames])
        if reply.bg_off is not None:
            self.columns.add("bg_off", reply.bg_off[frames])
        if task.background_index is not None:
            self.columns.add("basinmap1", task.background_index[frames])

    def _stage(self, batch: Batch, full: list[PackTask]) -> bool:
        """Copy the events of a batch to staging units; return False when there is no room for all."""
        events, task = batch.reply.events, batch.task
        slot = self._slots[task.slot_index]
        capacity = self._staging.layout.chunk_shape[0]
        labels = slot.labels[task.start : task.stop]
        sources = {"image": slot.image[task.start : task.stop]}
        if slot.image_bg is not None:
            sources["image_bg"] = slot.image_bg[task.start : task.stop]
        while batch.staged < len(events.frame):
            if self._unit is None:
                self._unit, self._unit_fill = self._staging.take(), 0
                if self._unit is None:
                    return False
            stop = min(batch.staged + capacity - self._unit_fill, len(events.frame))
            part = slice(batch.staged, stop)
            self._staging.fill(
                self._unit,
                self._unit_fill,
                sources,
                labels,
                (events.frame[part], events.label[part], events.box[part]),
            )
            self._unit_fill += stop - batch.staged
            batch.staged = stop
            if self._unit_fill == capacity:
                full += self._close_unit()
        return True

    def _close_unit(self) -> list[PackTask]:
        assert self._unit is not None
        self._staging.close_unit(self._unit)
        tasks = [
            PackTask(self._unit, kind, self._unit_fill, self._chunk) for kind in range(len(self._staging.layout.kinds))
        ]
        self._unit = None
        self._chunk += 1
        return tasks

    def _finish(self, batch: Batch) -> None:
        task, slot = batch.task, self._slots[batch.task.slot_index]
        del self._waiting[task.first]
        self.frames_done += task.stop - task.start
        self.events_done += len(batch.reply.events.frame)
        if task.stop == slot.length:
            slot.state = "d"
