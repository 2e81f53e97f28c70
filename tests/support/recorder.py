"""An instrument in a process of its own that records in SWMR mode, step by step as a test asks it to."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import signal
from collections.abc import Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

import h5py
import numpy as np
import numpy.typing as npt

from dcnumd.simulate.content import append, create_events, initial_metadata, scalar_features
from dcnumd.simulate.scene import Scene
from dcnumd.simulate.spec import MeasurementSpec
from dcnumd.simulate.swmr import EVENT_COUNT

WAIT_SECONDS = 120.0
"""Time after which a step counts as hanging [s]."""
JUMP = 12
"""By how much the light becomes brighter at a jump [grey levels]."""


@dataclasses.dataclass(frozen=True, slots=True)
class Peculiarities:
    """What a recording has besides the content of a simulated measurement."""

    repeated: tuple[int, ...] = ()
    """Frames that repeat the frame before them, but not the first one of a step."""
    background: bool = False
    """Whether the file also has a background image for each frame."""
    offset: float | None = None
    """Background offset that the instrument records with each frame [grey levels]."""
    last_time: float | None = None
    """Time of the last frame of each step [s]; None for the true one."""
    jump_at: int | None = None
    """Frame from which on the light is brighter."""
    attributes: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Further attributes of the file."""


NOTHING_ELSE = Peculiarities()


class RecorderProcess:
    """Records a simulated measurement in another process; HDF5 shares open files inside a process.

    Parameters
    ----------
    path
        The file to write.
    spec
        Its content.
    peculiar
        What else it has.
    """

    def __init__(self, path: pathlib.Path, spec: MeasurementSpec, peculiar: Peculiarities = NOTHING_ELSE) -> None:
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_record, args=(theirs, path, spec, peculiar), daemon=True)
        self._process.start()
        theirs.close()
        self._wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.crash()

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.is_alive()

    def record(self, stop: int) -> None:
        """Append and flush the frames up to `stop`."""
        self._line.send(stop)
        self._wait()

    def finish(self) -> None:
        """Close the file as at the end of a measurement."""
        self._line.send(None)
        self._wait()
        self._process.join(WAIT_SECONDS)

    def crash(self) -> None:
        """Kill the process."""
        if self._process.pid is not None and self._process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
        self._process.join(WAIT_SECONDS)

    def _wait(self) -> None:
        assert self._line.poll(WAIT_SECONDS), "the recorder hangs"
        self._line.recv()


def _record(line: Connection, path: pathlib.Path, spec: MeasurementSpec, peculiar: Peculiarities) -> None:
    with h5py.File(path, "w", libver=("v110", "v110")) as h5:
        # the number of events is written at the end, and attributes cannot be created in SWMR mode
        h5.attrs.update({**initial_metadata(spec), **peculiar.attributes, EVENT_COUNT: 0})
        datasets = create_events(h5, spec)
        if peculiar.background:
            shape = {"shape": (0, *spec.size), "maxshape": (None, *spec.size), "chunks": (7, *spec.size)}
            datasets["image_bg"] = h5.create_dataset("events/image_bg", dtype=np.uint8, fletcher32=True, **shape)
        if peculiar.offset is not None:
            datasets["bg_off"] = h5.create_dataset("events/bg_off", (0,), np.float64, maxshape=(None,), chunks=(100,))
        h5.swmr_mode = True
        line.send("begun")
        scene = Scene(spec)
        while (stop := line.recv()) is not None:
            start = len(datasets["image"])
            values = {"image": _frames(scene, start, stop, peculiar), **scalar_features(spec, start, stop)}
            if peculiar.background:
                image = np.median(values["image"], axis=0).astype(np.uint8)
                values["image_bg"] = np.broadcast_to(image, values["image"].shape)
            if peculiar.offset is not None:
                values["bg_off"] = np.full(stop - start, peculiar.offset)
            if peculiar.last_time is not None:
                values["time"][-1] = peculiar.last_time
            for name, dataset in datasets.items():
                append(dataset, values[name])
                dataset.flush()
            line.send("flushed")
        h5.attrs.modify(EVENT_COUNT, np.int64(len(datasets["image"])))
    line.send("closed")


def _frames(scene: Scene, start: int, stop: int, peculiar: Peculiarities) -> npt.NDArray[np.uint8]:
    frames = np.array(scene.render(start, stop))
    if peculiar.jump_at is not None:
        bright = frames[max(peculiar.jump_at - start, 0) :]
        bright[...] = np.minimum(bright, 255 - JUMP) + JUMP
    for number in peculiar.repeated:
        if start < number < stop:
            frames[number - start] = frames[number - start - 1]
    return frames
