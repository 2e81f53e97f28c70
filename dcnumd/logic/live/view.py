"""What people see of a recording while it grows: its newest events, and their course."""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dcnumd.feat.feat_background.time_axis import Times
from dcnumd.logic.tasks import FramesReply

MOST_EVENTS = 10_000
"""Number of events that are kept."""
BRIGHTNESS = "bg_med"
"""Feature from which the brightness of the background is computed."""

Numbers = npt.NDArray[np.float64]


class LiveView:
    """Collects the events of a growing recording.

    Parameters
    ----------
    names
        Features of the events.
    frame_shape
        Height and width of a frame [px].
    """

    def __init__(self, names: Sequence[str], frame_shape: tuple[int, int]) -> None:
        self.names = tuple(names)
        """Features, in the order of the columns of `table`."""
        self.masks_dropped = 0
        """Number of masks without a two-dimensional contour."""
        self.border_events = 0
        """Number of events at the edge of their frame."""
        self._frame_shape = frame_shape
        self._newest: collections.deque[tuple[int, Numbers, Numbers]] = collections.deque()
        self._kept = 0
        self._recorded = np.zeros(0, np.int64)
        self._sums = np.zeros((0, 4))

    def add(self, unit: int, reply: FramesReply, time: Numbers) -> None:
        """Add the events of a unit.

        Parameters
        ----------
        unit
            Its number, which determines the order of events.
        reply
            Its events.
        time
            Recording time of its frames [s].
        """
        events = reply.events
        self.masks_dropped += events.invalid
        height, width = self._frame_shape
        at_edge = (events.box == np.array([0, height, 0, width])).any(axis=1)
        self.border_events += int(np.count_nonzero(at_edge))
        moments = time[events.frame]
        self._newest.append((unit, events.table, moments))
        self._kept += len(moments)
        while self._kept - len(self._newest[0][1]) >= MOST_EVENTS:
            self._kept -= len(self._newest.popleft()[1])
        self._count(time, moments, events.table)

    def _count(self, time: Numbers, moments: Numbers, table: Numbers) -> None:
        seconds = int(time.max()) + 1
        if seconds > len(self._sums):
            self._sums = np.concatenate([self._sums, np.zeros((seconds - len(self._sums) + 60, 4))])
        np.add.at(self._sums[:, 0], time.astype(np.int64), 1)
        np.add.at(self._sums[:, 1], moments.astype(np.int64), 1)
        if BRIGHTNESS in self.names:
            values = table[:, self.names.index(BRIGHTNESS)]
            np.add.at(self._sums[:, 2], moments.astype(np.int64), values)
            np.add.at(self._sums[:, 3], moments.astype(np.int64), 1)

    def note_time(self, time: Times) -> None:
        """Note the times of all recorded frames since the first one [s]."""
        whole = int(time[-1])
        self._recorded = np.diff(np.searchsorted(time, np.arange(whole + 1)))

    @property
    def table(self) -> Numbers:
        """Features of the newest events in the order of their frames, float64 (event, feature)."""
        parts = [table for _, table, _ in sorted(self._newest, key=lambda part: part[0])]
        return np.concatenate(parts)[-MOST_EVENTS:] if parts else np.empty((0, len(self.names)))

    @property
    def time(self) -> Numbers:
        """Recording time of each of these events [s], float64 (event,)."""
        parts = [moments for _, _, moments in sorted(self._newest, key=lambda part: part[0])]
        return np.concatenate(parts)[-MOST_EVENTS:] if parts else np.empty(0)

    @property
    def frames_per_second(self) -> Numbers:
        """Number of recorded frames in each full second of recording time, float64 (second,)."""
        return self._recorded.astype(np.float64)

    @property
    def events_per_second(self) -> Numbers:
        """Number of events in each full second, estimated where only some frames are processed yet; NaN for none."""
        done, events = self._per_second(0), self._per_second(1)
        return _ratio(events * self._recorded, done)

    @property
    def brightness(self) -> Numbers:
        """Mean brightness of the background in each full second [grey levels]; NaN where there are no events."""
        return _ratio(self._per_second(2), self._per_second(3))

    def _per_second(self, column: int) -> Numbers:
        values = np.zeros(len(self._recorded))
        known = self._sums[: len(values), column]
        values[: len(known)] = known
        return values


def _ratio(values: Numbers, counts: Numbers) -> Numbers:
    """Return values divided by counts; NaN where the count is 0."""
    ratio: Numbers = np.full(len(counts), np.nan)
    np.divide(values, counts, out=ratio, where=counts > 0)
    return ratio
