"""The loop that drives the workers through units of a growing recording."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from dcnumd.logic.background import PreparedBackground
from dcnumd.logic.file_run import file_program
from dcnumd.logic.pipeline import Engagement
from dcnumd.logic.plan import Plan
from dcnumd.logic.slot_tasks import Piece, SlotTasks
from dcnumd.logic.tasks import FramesReply, FramesTask

Units = npt.NDArray[np.int64]


class UnitRun:
    """Processes units of frames in any order; their slots are free as soon as their events are received.

    Parameters
    ----------
    plan, background
        The recording and its background.
    engaged
        The pipeline that is set up for it.
    unit
        Number of frames in a unit.
    """

    def __init__(self, plan: Plan, background: PreparedBackground, engaged: Engagement, unit: int) -> None:
        self._plan = plan
        self._background = background
        self._engaged = engaged
        self._unit = unit
        self._slots = engaged.pipeline.prepare_slots(plan, background, engaged.layout)

    def execute(
        self,
        units: Units,
        on_reply: Callable[[int, FramesReply], object],
        stop: Callable[[], bool],
    ) -> None:
        """Process units.

        Parameters
        ----------
        units
            Their numbers, in the order in which they are begun.
        on_reply
            Called with the number of each unit and its events.
        stop
            Called before each task but the first; once it returns True, no further tasks are begun.

        Raises
        ------
        DcnumdError
            The first error of a worker; or two workers died during the same task.
        """
        pieces, is_exclusive = list(self._pieces(units)), self._engaged.segmenter.is_exclusive
        workers = self._engaged.pipeline.num_workers
        tasks = SlotTasks(self._slots, pieces, self._unit, workers, is_exclusive=is_exclusive)
        begun = False

        def next_task(worker: int) -> FramesTask | None:
            nonlocal begun
            # with too little time for anything, there is some progress nevertheless
            reserved = None if begun and stop() else tasks.next_for(worker)
            if reserved is None:
                return None
            begun = True
            return tasks.task_of(reserved, self._background)

        with self._engaged.running(file_program(self._plan, self._background), self._slots) as pool:
            for reply in pool.work(next_task, tasks.take_back):
                tasks.finish(reply.task)
                slot = self._slots[reply.task.slot_index]
                if slot.state == "w":
                    slot.state = "d"
                if isinstance(reply.value, FramesReply):
                    on_reply(reply.task.first // self._unit, reply.value)

    def _pieces(self, units: Units) -> Iterable[Piece]:
        """Yield pieces of consecutive units that fit a slot."""
        most = self._slots[0].shape[0] // self._unit
        for run in np.split(units, np.flatnonzero(np.diff(units) != 1) + 1):
            for start in range(0, len(run), most):
                part: Sequence[int] = run[start : start + most].tolist()
                yield Piece(part[0] * self._unit, (part[-1] + 1) * self._unit)
