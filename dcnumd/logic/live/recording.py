"""The units of a growing recording: which are processed, with which background, and which are processed next."""

from __future__ import annotations

import dataclasses
import time as clock
from typing import Any

import numpy as np
import numpy.typing as npt

from dcnumd.logic.background import Medians, PreparedBackground
from dcnumd.logic.job_line import JobLine
from dcnumd.logic.live.choice import Choice, RecordingTime, chooser_for
from dcnumd.logic.live.messages import LiveProgress
from dcnumd.logic.live.unit_run import UnitRun, Units
from dcnumd.logic.live.view import LiveView
from dcnumd.logic.memory import BATCH_FRAMES, UNITS_PER_SLOT, aligned
from dcnumd.logic.pipeline import Engagement
from dcnumd.logic.plan import Plan
from dcnumd.logic.process import engine
from dcnumd.logic.recipe import recipe_of
from dcnumd.logic.spool import SpoolWriter
from dcnumd.logic.tasks import FramesReply
from dcnumd.logic.timing import StageTimes
from dcnumd.read.growing import GrowingFile, GrowingStack, GrowingValues, unsuited

LOOK_SECONDS = 10.0
"""Recording time after which frames whose background has changed are found, to be processed again [s]."""
MOST_AGAIN = 0.2
"""Largest number of frames that are processed again while the recording grows, relative to those that are processed."""
CHOICE_SHARE = 0.1
"""Largest part of the time that the choice of the background takes."""
FIRST_SPEED = 2000.0
"""Assumed speed before the first frames are processed [frames/s]."""
SPEED_WEIGHT = 0.3
"""Weight of the latest step in the mean speed."""
MOST_SECONDS = 7 * 86400.0
"""Longest recording that is processed while it grows [s]; larger times show that they are wrong."""
NO_IMAGE = -2
"""Number of the background image of a frame that is not processed."""


def unit_frames(stack: GrowingStack) -> int:
    """Return the number of frames in a unit, which is processed as a whole."""
    return aligned(BATCH_FRAMES, stack.frames_per_chunk)


class Recording:
    """Processes the units of a growing recording.

    Parameters
    ----------
    plan
        The resolved settings.
    file, stack
        The recording and its frames.
    spool
        Receives the events.
    view_seconds
        Largest delay with which frames are shown [s].
    """

    def __init__(
        self, plan: Plan, file: GrowingFile, stack: GrowingStack, spool: SpoolWriter, view_seconds: float
    ) -> None:
        self._plan, self._stack, self._spool = plan, stack, spool
        self._view_seconds = view_seconds
        self._unit = unit_frames(stack)
        self._recording_time = RecordingTime(plan, file)
        self._time = np.zeros(1)
        self._chooser = chooser_for(plan, file, stack, self._recording_time)
        offset = None if plan.background_kwargs.get("offset_correction") else file.numbers("bg_off")
        self._offset = None if offset is None else GrowingValues(offset, file.path)
        self.view = LiveView(plan.features.names, plan.frame_shape)
        self._done = np.zeros(0, np.bool_)
        self._events = np.zeros(0, np.int64)
        self._images = np.zeros((0, self._unit), np.int64)
        self._choice: Choice | None = None
        self._chosen_for = 0
        self._choose_at = self._looked_at = 0.0
        self._stale: Units = np.zeros(0, np.int64)
        self._again = self._newest = 0
        self._speed = FIRST_SPEED
        self._lagging = False

    def extend(self, frames: int) -> None:
        """Take in the frames that were recorded meanwhile, `frames` in total."""
        self._stack.extend(frames)
        if frames > len(self._time):
            self._time = np.asarray(self._recording_time.first(frames))
            if not 0 <= self._time.min() <= self._time.max() <= MOST_SECONDS:
                raise unsuited(self._plan.data.path, "its frames have times that cannot be those of a recording")
            self.view.note_time(self._time)
        units = self._stack.frames // self._unit
        if units > len(self._done):
            more = units - len(self._done)
            self._done = np.concatenate([self._done, np.zeros(more, np.bool_)])
            self._events = np.concatenate([self._events, np.zeros(more, np.int64)])
            self._images = np.concatenate([self._images, np.full((more, self._unit), NO_IMAGE)])

    def process(self, until: float) -> None:
        """Process units until a time on the monotonic clock [s].

        Raises
        ------
        DcnumdError
            The first error of a worker, or of the background.
        """
        begin = clock.monotonic()
        plan = dataclasses.replace(self._plan, frames=self._stack.source())
        if plan.count != self._chosen_for and begin >= self._choose_at:
            # that of this process, without the workers that compute medians
            worked = clock.process_time()
            self._choose(plan)
            self._chosen_for = plan.count
            self._choose_at = begin + (clock.process_time() - worked) / CHOICE_SHARE
        if self._choice is None:
            return
        fresh = self._fresh(self._choice, max(until - clock.monotonic(), 0.0))
        units = fresh if len(fresh) else self._stale
        if not len(units):
            return
        before = self._frames_processed
        started = clock.monotonic()
        engaged = self._engage(plan)
        run = UnitRun(plan, self._with_offset(self._choice.background), engaged, self._unit)
        run.execute(units, self._receive, lambda: clock.monotonic() >= until)
        self._stale = self._stale[~np.isin(self._stale, units) | self._is_stale(self._stale)]
        speed = (self._frames_processed - before) / max(clock.monotonic() - started, 1e-6)
        self._speed += SPEED_WEIGHT * (speed - self._speed)

    def progress(self, frames: int, *, ended: bool) -> LiveProgress:
        """Return the state; `frames` were recorded so far, and the recorder may have `ended`."""
        newest = min(self._newest, len(self._time)) - 1
        return LiveProgress(
            frames=frames,
            frames_done=int(np.count_nonzero(self._done)) * self._unit,
            frames_again=self._again * self._unit,
            events=int(self._events.sum()),
            seconds=float(self._time[-1]),
            # times need not rise
            lag_seconds=max(0.0, float(self._time[-1] - (self._time[newest] if newest >= 0 else 0.0))),
            lagging=self._lagging,
            spool_bytes=self._spool.size,
            spool_full=self._spool.full,
            ended=ended,
        )

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what the index of the spool contains besides its records."""
        frames = len(self._done) * self._unit
        empty = np.zeros(0, np.int64)
        offset = np.zeros(0) if self._offset is None else self._offset.first(frames)
        return {
            "recipe": np.frombuffer(recipe_of(self._plan).encode(), np.uint8),
            "unit": np.array(self._unit),
            "image_keys": self._stack.keys,
            "image_of_frame": self._images.reshape(-1),
            "given_offset": np.ascontiguousarray(offset, np.float64),
            "median_starts": empty,
            "median_images": empty,
            "kernel_size": np.array(0),
        } | self._chooser.arrays()

    @property
    def _frames_processed(self) -> int:
        return (int(np.count_nonzero(self._done)) + self._again) * self._unit

    def _engage(self, plan: Plan) -> Engagement:
        """Set up the pipeline; slots need not be large, since they are free as soon as their events are received."""
        engaged = engine.pipeline(plan.job.num_workers).engage(plan)
        frames = min(engaged.layout.slot_frames, UNITS_PER_SLOT * self._unit)
        if frames < self._unit:
            raise unsuited(plan.data.path, f"{self._unit} frames at once do not fit in the memory that is allowed")
        return dataclasses.replace(engaged, layout=dataclasses.replace(engaged.layout, slot_frames=frames))

    def _choose(self, plan: Plan) -> None:
        """Choose the background as it would be if the recording ended now, and find units with another one."""
        medians = Medians(plan.frames, self._engage(plan).segmenter, StageTimes(), JobLine(plan.job.job_id))
        choice = self._chooser.choose(plan.count, medians)
        self._choice = self._choice if choice is None else choice
        if self._time[-1] - self._looked_at >= LOOK_SECONDS:
            self._looked_at = float(self._time[-1])
            units = np.flatnonzero(self._done)
            self._stale = units[self._is_stale(units)]
            most = int(MOST_AGAIN * len(units)) - self._again
            self._stale = self._stale[: max(most, 0)]

    def _is_stale(self, units: Units) -> npt.NDArray[np.bool_]:
        """Return which units were processed with another background than the present choice."""
        if self._choice is None or self._choice.numbers is None:
            return np.zeros(len(units), np.bool_)
        frames = units[:, np.newaxis] * self._unit + np.arange(self._unit)
        differs: npt.NDArray[np.bool_] = (self._images[units] != self._choice.numbers[frames]).any(axis=1)
        return differs

    def _fresh(self, choice: Choice, seconds: float) -> Units:
        """Return units that are not processed yet, as many as can be processed in a time [s]."""
        last = len(self._time) - 1
        # frames that have waited for half of the delay do not wait for a settled background
        waited = int(np.searchsorted(self._time, self._time[last] - self._view_seconds / 2))
        ready = min(max(choice.settled, waited), choice.frames) // self._unit
        units = np.flatnonzero(~self._done[:ready])
        room = max(round(self._speed * seconds / self._unit), 1)
        self._lagging = len(units) > room and self._lag(units) > self._view_seconds
        if len(units) <= room:
            return units
        if not self._lagging:
            return units[:room]
        # Some of the newest units, at regular intervals, are shown at once; the others are processed in their order.
        rate = last / max(float(self._time[last]), 1e-6)
        newest = units[-max(round(self._view_seconds * rate / self._unit), 1) :][::-1]
        shown = newest[:: -(-len(newest) // max(room // 2, 1))]
        others = units[~np.isin(units, shown)]
        return np.concatenate([shown, others[: room - len(shown)]])

    def _lag(self, units: Units) -> float:
        """Return the recording time since the oldest of these units [s]."""
        return float(self._time[-1] - self._time[units[0] * self._unit])

    def _with_offset(self, background: PreparedBackground) -> PreparedBackground:
        """Return the background with the offset of the recording, if it has none itself; see `prepare_background`."""
        if background.has_offset or self._offset is None:
            return background
        return dataclasses.replace(background, bg_off=self._offset.first(self._stack.frames))

    def _receive(self, unit: int, reply: FramesReply) -> None:
        """Take the events of a unit."""
        frames = slice(unit * self._unit, (unit + 1) * self._unit)
        self._spool.add(unit, reply, self._unit)
        self._events[unit] = len(reply.events.frame)
        if self._choice is not None and self._choice.numbers is not None:
            self._images[unit] = self._choice.numbers[frames]
        if self._done[unit]:
            self._again += 1
            return
        self._done[unit] = True
        self._newest = max(self._newest, frames.stop)
        self.view.add(unit, reply, self._time[frames])
