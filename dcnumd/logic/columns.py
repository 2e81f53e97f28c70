"""The scalar features of a result, and their values for the events of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.logic.background import PreparedBackground
from dcnumd.logic.plan import Plan
from dcnumd.logic.staging import Kind
from dcnumd.logic.tasks import FramesReply, FramesTask
from dcnumd.read.frame_scalars import frame_scalars
from dcnumd.read.image_stack import ImageStack

FRAME_MAP = "basinmap0"
"""Feature with the frame in the input of each event."""
BACKGROUND_MAP = "basinmap1"
"""Feature with the background image of each event."""


class Columns:
    """Provides the values of all scalar features, batch by batch.

    Attributes
    ----------
    kinds
        The features, in the order of `values`.
    maps_equal
        Whether `FRAME_MAP` and `BACKGROUND_MAP` have had equal values so far, as in very small results.
    """

    def __init__(self, plan: Plan, background: PreparedBackground) -> None:
        self._mapping = plan.data.index_mapping
        self._inputs = input_scalars(plan, background) if plan.job.basin_strategy == "drain" else {}
        self.maps_equal = True
        types: dict[str, np.dtype[Any]] = dict.fromkeys(plan.features.names, np.dtype(np.float64))
        types[FRAME_MAP] = np.dtype(np.uint32)
        types["nevents"] = np.dtype(np.int64)
        self._stores_offset = background.has_offset and not background.offset_of_input
        if self._stores_offset:
            types["bg_off"] = np.dtype(np.float64) if background.bg_off is None else background.bg_off.dtype
        if background.index is not None:
            types[BACKGROUND_MAP] = np.dtype(np.int64)
        types |= {name: stack.dtype for name, stack in self._inputs.items()}
        self.kinds = [Kind(name, dtype) for name, dtype in types.items()]

    def values(self, task: FramesTask, reply: FramesReply) -> list[npt.NDArray[Any]]:
        """Return the values of each feature for the events of a batch."""
        events = reply.events
        frames = task.first + events.frame
        origin = frames if self._mapping is None else self._mapping[frames]
        values: list[npt.NDArray[Any]] = [*events.table.T, origin]
        values.append(np.bincount(events.frame, minlength=1)[events.frame])
        if self._stores_offset and reply.bg_off is not None:
            values.append(reply.bg_off[events.frame])
        if task.background_index is not None:
            index = task.background_index[events.frame]
            self.maps_equal = self.maps_equal and np.array_equal(index, origin)
            values.append(index)
        batch = slice(task.first, task.first + task.stop - task.start)
        values += [np.asarray(stack[batch])[events.frame] for stack in self._inputs.values()]
        return values


def input_scalars(plan: Plan, background: PreparedBackground) -> dict[str, ImageStack]:
    """Return the frame-wise scalar features of the input that belong to the result."""
    return frame_scalars(plan.data, frozenset() if background.offset_of_input else frozenset({"bg_off"}))
