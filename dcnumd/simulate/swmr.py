"""Recording a simulated measurement in SWMR mode, in which other programs can read the file while it grows.

SWMR is HDF5's "single writer, multiple readers".
"""

from __future__ import annotations

import math
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType

import h5py
import numpy as np

from dcnumd.simulate.content import (
    LOG_NAME,
    LOG_WIDTH,
    MONITOR_DTYPE,
    MONITOR_NAME,
    append,
    create_events,
    first_log_lines,
    initial_metadata,
    last_log_lines,
    monitor_rows,
    scalar_features,
)
from dcnumd.simulate.measurement import REALTIME_BLOCK_SECONDS, Recording, new_file, size_of
from dcnumd.simulate.scene import FrameStack, Scene
from dcnumd.simulate.spec import MeasurementSpec
from dcnumd.simulate.truth import write_truth

HDF5_VERSION = "v110"
"""Oldest version of HDF5 that can read the file, the first one with SWMR."""
LOG_CHUNK = 100
MONITOR_CHUNK = 1000
EVENT_COUNT = "experiment:event count"


class SwmrRecorder:
    """Writes a measurement in SWMR mode, as far and in the order that the caller chooses.

    HDF5 allows no new datasets or attributes in SWMR mode. Therefore all datasets are created empty, and the number of
    events is 0 until `finish`. A normal end clears the flags in the superblock that say that the file is being written;
    a copy of the file that is made before looks like the file of a recorder that has crashed.

    Parameters
    ----------
    path
        The file to write; an existing one is replaced.
    spec
        The content of the measurement.
    """

    def __init__(self, path: str | os.PathLike[str], spec: MeasurementSpec) -> None:
        self.spec = spec
        self._scene = Scene(spec)
        self._rendered = (0, self._scene.render(0, 0))
        self.h5 = h5py.File(path, "w", libver=(HDF5_VERSION, HDF5_VERSION))
        self.h5.attrs.update({**initial_metadata(spec), EVENT_COUNT: 0})
        self.datasets = create_events(self.h5, spec)
        log = first_log_lines(spec)
        self._log = self.h5.create_dataset(
            LOG_NAME, data=log, maxshape=(None,), chunks=(LOG_CHUNK,), dtype=f"S{LOG_WIDTH}", fletcher32=True
        )
        self._monitor = self.h5.create_dataset(
            MONITOR_NAME, shape=(0,), maxshape=(None,), chunks=(MONITOR_CHUNK,), dtype=MONITOR_DTYPE, fletcher32=True
        )
        self.h5.swmr_mode = True

    def __enter__(self) -> SwmrRecorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        self.close()

    @property
    def features(self) -> tuple[str, ...]:
        """The names of all features, in the order in which they are written: first the scalar ones, then ``image``."""
        return tuple(sorted(self.datasets, key=lambda name: (name == "image", name)))

    @property
    def lengths(self) -> dict[str, int]:
        """The number of frames that each feature has."""
        return {name: len(self.datasets[name]) for name in self.features}

    def render(self, stop: int) -> None:
        """Prepare the images up to frame `stop`, so that `append` takes less time."""
        self._rendered = (len(self.datasets["image"]), self._frames(stop))

    def append(self, stop: int, *names: str) -> None:
        """Append the frames up to `stop` to some features, which flushes nothing.

        Parameters
        ----------
        stop
            The number of frames that the features have afterwards.
        names
            The features; all if there are none.
        """
        for name in names or self.features:
            dataset = self.datasets[name]
            start = len(dataset)
            if name != "image":
                append(dataset, scalar_features(self.spec, start, stop)[name])
                continue
            frames = self._frames(stop)
            append(dataset, frames)
            append(self._monitor, monitor_rows(self.spec, start, frames))

    def flush(self, *names: str) -> None:
        """Write to the file what was appended, one feature after the other; all features if there are no `names`.

        Readers may find features of different lengths meanwhile.
        """
        for name in names or self.features:
            self.datasets[name].flush()
        if not names:
            self._monitor.flush()

    def finish(self) -> None:
        """Write what is known only at the end of the recording."""
        append(self._log, last_log_lines(self.spec))
        # `h5.attrs[…] = …` would create a new attribute
        self.h5.attrs.modify(EVENT_COUNT, np.int64(len(self.datasets["image"])))

    def close(self) -> None:
        """Close the file."""
        self.h5.close()

    def _frames(self, stop: int) -> FrameStack:
        """Return the images after those that are written, up to `stop`."""
        first, frames = self._rendered
        start = len(self.datasets["image"])
        if first <= start and first + len(frames) >= stop:
            return frames[start - first : stop - first]
        return self._scene.render(start, stop)


def record_in_swmr_mode(
    path: str | os.PathLike[str],
    spec: MeasurementSpec,
    *,
    flush_seconds: float,
    truth: pathlib.Path | None = None,
    on_progress: Callable[[int], None] | None = None,
    crash_after: float = math.inf,
    before_crash: Callable[[Recording], None] | None = None,
) -> Recording:
    """Record a measurement in real time and in SWMR mode.

    Parameters
    ----------
    path
        The file to write; its folder must exist.
    spec
        The content of the measurement.
    flush_seconds
        Seconds between two flushes. The features are flushed one after the other, so that their lengths disagree for a
        moment.
    truth
        Path of a JSON file with all cells; None for no such file.
    on_progress
        Called after each block with the number of frames written so far.
    crash_after
        Seconds after which this process kills itself with SIGKILL, when the scalar features are flushed and the images
        are not. A shorter measurement ends normally.
    before_crash
        Called before that, with what has been written by then.

    Raises
    ------
    ResultError
        `path` already exists, cannot be written, or is moved or removed meanwhile.
    """
    path = pathlib.Path(path)
    started = time.monotonic()
    scene = Scene(spec)
    crash_frame = crash_after * spec.rate
    crashes = crash_frame < spec.frames
    frames = int(crash_frame) if crashes else spec.frames
    with new_file(path), SwmrRecorder(path, spec) as recorder:
        flushes, late = _record_in_real_time(recorder, frames, flush_seconds, on_progress)
        cells = scene.cells(0, frames)
        if truth is not None:
            write_truth(truth, spec, cells)
        if crashes:
            recorder.flush(*recorder.features[:-1])
            if before_crash is not None:
                before_crash(Recording(path, frames, len(cells), time.monotonic() - started, size_of(path)))
            os.kill(os.getpid(), signal.SIGKILL)
        recorder.flush()
    seconds = time.monotonic() - started
    return Recording(path, frames, len(cells), seconds, size_of(path), flush_seconds=flushes, late_seconds=late)


def _record_in_real_time(
    recorder: SwmrRecorder, frames: int, flush_seconds: float, on_progress: Callable[[int], None] | None
) -> tuple[tuple[float, ...], float]:
    """Append frames at the rate of the camera; flush at the interval, except at the end.

    Returns
    -------
    flushes
        Duration of each flush [s].
    late
        Largest time from the moment at which the camera had delivered frames to that at which they were appended [s].
    """
    rate = recorder.spec.rate
    blocks_per_flush = math.ceil(flush_seconds / REALTIME_BLOCK_SECONDS)
    block_seconds = flush_seconds / blocks_per_flush
    deadline = threading.Event()  # never set; waiting for it with a timeout is a sleep
    flushes: list[float] = []
    late = 0.0
    started = time.monotonic()
    for block in range(1, math.ceil(frames / rate / block_seconds) + 1):
        stop = min(frames, int(block * block_seconds * rate))
        recorder.render(stop)
        delivered = started + stop / rate
        deadline.wait(max(0.0, delivered - time.monotonic()))
        recorder.append(stop)
        appended = time.monotonic()
        late = max(late, appended - delivered)
        if not block % blocks_per_flush and stop < frames:
            recorder.flush()
            flushes.append(time.monotonic() - appended)
        if on_progress is not None:
            on_progress(stop)
    return tuple(flushes), late
