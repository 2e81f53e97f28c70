"""Writing a simulated measurement like recording software does."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator

import h5py
import numpy as np

from dcnumd.errors import ResultError
from dcnumd.simulate.content import (
    LOG_NAME,
    MONITOR_NAME,
    append,
    create_events,
    first_log_lines,
    initial_metadata,
    last_log_lines,
    monitor_rows,
    scalar_features,
)
from dcnumd.simulate.flow import Cell
from dcnumd.simulate.scene import Scene
from dcnumd.simulate.spec import MeasurementSpec
from dcnumd.simulate.truth import write_truth

__all__ = ["MeasurementSpec", "Recording", "write_measurement"]

REALTIME_BLOCK_SECONDS = 0.25
"""Seconds between two writes of a recording in real time."""

BLOCK_BYTES = 2**25
BLOCK_LIMIT = 2048
"""Largest number of bytes and of frames that are rendered at once, unless in real time."""


@dataclasses.dataclass(frozen=True, slots=True)
class Recording:
    """A measurement that was written."""

    path: pathlib.Path
    frames: int
    cells: int
    """Number of drawn cells, counted once per frame."""
    seconds: float
    """Duration of writing, including preparations [s]."""
    size_bytes: int
    flush_seconds: tuple[float, ...] = ()
    """Duration of each flush of a recording in SWMR mode [s]."""
    late_seconds: float = 0.0
    """Largest delay after which frames of a recording in SWMR mode were written [s]."""


def write_measurement(
    path: str | os.PathLike[str],
    spec: MeasurementSpec,
    *,
    truth: pathlib.Path | None = None,
    realtime: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> Recording:
    """Write a measurement.

    Parameters
    ----------
    path
        The file to write, usually ``M001_data.rtdc``; its folder must exist.
    spec
        The content of the measurement.
    truth
        Path of a JSON file with all cells; None for no such file.
    realtime
        Whether the file grows at the frame rate of the camera, under its own name. Otherwise it is written as fast as
        possible under a hidden name, and renamed at the end.
    on_progress
        Called after each block with the number of frames written so far.

    Raises
    ------
    ResultError
        `path` already exists, cannot be written, or is moved or removed meanwhile.
    """
    path = pathlib.Path(path)
    started = time.monotonic()
    scene = Scene(spec)
    partial = path if realtime else path.with_name(f".{path.name}.part")
    with new_file(path):
        with _removed_on_error(partial), h5py.File(partial, "w") as h5:
            cells = _record(h5, scene, realtime=realtime, on_progress=on_progress)
        if partial != path:
            partial.replace(path)
    seconds = time.monotonic() - started
    if truth is not None:
        write_truth(truth, spec, cells)
    return Recording(path, spec.frames, len(cells), seconds, size_of(path))


@contextlib.contextmanager
def new_file(path: pathlib.Path) -> Iterator[None]:
    """Write a file in the block.

    Raises
    ------
    ResultError
        The file exists already, or the operating system cannot write it.
    """
    if path.exists():
        raise ResultError(f"{path}: a file of that name exists already; choose another name", "output_exists")
    try:
        yield
    except OSError as error:
        raise ResultError(f"{path}: cannot be written: {error.strerror or error}", "output_not_writable") from error


def size_of(path: pathlib.Path) -> int:
    """Return the size of a file that was written under its own name [bytes].

    Raises
    ------
    ResultError
        Somebody has moved or removed it meanwhile.
    """
    try:
        return path.stat().st_size
    except OSError as error:
        message = f"{path}: was moved or removed while it was written ({error.strerror})"
        raise ResultError(message, "output_not_writable") from error


@contextlib.contextmanager
def _removed_on_error(path: pathlib.Path) -> Iterator[None]:
    """Remove the hidden file of an interrupted recording."""
    try:
        yield
    except BaseException:
        if path.name.startswith("."):
            path.unlink(missing_ok=True)
        raise


def _record(h5: h5py.File, scene: Scene, *, realtime: bool, on_progress: Callable[[int], None] | None) -> list[Cell]:
    """Fill an open file block by block; return its cells."""
    spec = scene.spec
    h5.attrs.update(initial_metadata(spec))
    datasets = create_events(h5, spec)
    cells: list[Cell] = []
    monitor = []
    deadline = threading.Event()  # never set; waiting for it with a timeout is a sleep
    started = time.monotonic()
    for start, stop in _blocks(spec, realtime=realtime):
        frames = scene.render(start, stop)
        cells.extend(scene.cells(start, stop))
        if realtime:
            deadline.wait(max(0.0, started + stop / spec.rate - time.monotonic()))
        append(datasets["image"], frames)
        for name, values in scalar_features(spec, start, stop).items():
            append(datasets[name], values)
        monitor.append(monitor_rows(spec, start, frames))
        if realtime:
            h5.flush()
        if on_progress is not None:
            on_progress(stop)
    h5.create_dataset(LOG_NAME, data=np.concatenate([first_log_lines(spec), last_log_lines(spec)]), fletcher32=True)
    if monitor:
        h5.create_dataset(MONITOR_NAME, data=np.concatenate(monitor), fletcher32=True)
    h5.attrs["experiment:event count"] = spec.frames
    return cells


def _blocks(spec: MeasurementSpec, *, realtime: bool) -> Iterator[tuple[int, int]]:
    """Yield ranges of frames that consist of whole HDF5 chunks, so that no chunk is compressed twice."""
    height, width = spec.size
    frames = REALTIME_BLOCK_SECONDS * spec.rate if realtime else min(BLOCK_LIMIT, BLOCK_BYTES / (height * width))
    step = max(1, int(frames / spec.chunk_frames)) * spec.chunk_frames
    for start in range(0, spec.frames, step):
        yield start, min(start + step, spec.frames)
