"""Writing a simulated measurement like recording software does."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt

from dcnumd.errors import ResultError
from dcnumd.simulate.flow import Cell
from dcnumd.simulate.scene import FrameStack, Scene
from dcnumd.simulate.spec import MeasurementSpec
from dcnumd.simulate.truth import write_truth

__all__ = ["MeasurementSpec", "Recording", "write_measurement"]

REALTIME_BLOCK_SECONDS = 0.25
"""Seconds between two writes of a recording in real time."""

BLOCK_BYTES = 2**25
BLOCK_LIMIT = 2048
"""Largest number of bytes and of frames that are rendered at once, unless in real time."""

SCALAR_CHUNK = 1000
LOG_WIDTH = 100
"""Length of log lines, which have a fixed size in the file [bytes]."""

MONITOR_SECONDS = 0.1
"""Seconds between two rows in the table of the monitor."""


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
        `path` already exists or cannot be written.
    """
    path = pathlib.Path(path)
    if path.exists():
        raise ResultError(f"{path}: a file of that name exists already; choose another name", "output_exists")
    started = time.monotonic()
    scene = Scene(spec)
    partial = path if realtime else path.with_name(f".{path.name}.part")
    try:
        with _removed_on_error(partial), h5py.File(partial, "w") as h5:
            cells = _record(h5, scene, realtime=realtime, on_progress=on_progress)
        if partial != path:
            partial.replace(path)
    except OSError as error:
        raise ResultError(f"{path}: cannot be written: {error.strerror or error}", "output_not_writable") from error
    seconds = time.monotonic() - started
    if truth is not None:
        write_truth(truth, spec, cells)
    return Recording(path, spec.frames, len(cells), seconds, path.stat().st_size)


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
    h5.attrs.update(_metadata(spec))
    image, scalars = _create_events(h5, spec)
    cells: list[Cell] = []
    monitor = []
    deadline = threading.Event()  # never set; waiting for it with a timeout is a sleep
    started = time.monotonic()
    for start, stop in _blocks(spec, realtime=realtime):
        frames = scene.render(start, stop)
        cells.extend(scene.cells(start, stop))
        if realtime:
            deadline.wait(max(0.0, started + stop / spec.rate - time.monotonic()))
        _append(image, frames)
        for name, values in _scalars(spec, start, stop).items():
            _append(scalars[name], values)
        monitor.append(_monitor_rows(spec, start, frames))
        if realtime:
            h5.flush()
        if on_progress is not None:
            on_progress(stop)
    _write_logs(h5, spec)
    if monitor:
        h5.create_dataset("tables/cytoshot_monitor", data=np.concatenate(monitor), fletcher32=True)
    h5.attrs["experiment:event count"] = spec.frames
    return cells


def _blocks(spec: MeasurementSpec, *, realtime: bool) -> Iterator[tuple[int, int]]:
    """Yield ranges of frames that consist of whole HDF5 chunks, so that no chunk is compressed twice."""
    height, width = spec.size
    frames = REALTIME_BLOCK_SECONDS * spec.rate if realtime else min(BLOCK_LIMIT, BLOCK_BYTES / (height * width))
    step = max(1, int(frames / spec.chunk_frames)) * spec.chunk_frames
    for start in range(0, spec.frames, step):
        yield start, min(start + step, spec.frames)


def _create_events(h5: h5py.File, spec: MeasurementSpec) -> tuple[h5py.Dataset, dict[str, h5py.Dataset]]:
    """Create the empty datasets of ``events``."""
    filters: dict[str, Any] = {"fletcher32": spec.fletcher32}
    if spec.compression == "gzip":
        filters["compression"] = "gzip"
    elif spec.compression != "none":
        filters.update(hdf5plugin.Zstd(clevel=int(spec.compression.removeprefix("zstd-"))))
    events = h5.create_group("events")
    image = events.create_dataset(
        "image",
        shape=(0, *spec.size),
        maxshape=(None, *spec.size),
        chunks=(spec.chunk_frames, *spec.size),
        dtype=np.uint8,
        **filters,
    )
    for name, text in (("CLASS", "IMAGE"), ("IMAGE_VERSION", "1.2"), ("IMAGE_SUBCLASS", "IMAGE_GRAYSCALE")):
        image.attrs.create(name, np.bytes_(text))
    scalars = {
        name: events.create_dataset(
            name, shape=(0,), maxshape=(None,), chunks=(SCALAR_CHUNK,), dtype=values.dtype, **filters
        )
        for name, values in _scalars(spec, 0, 0).items()
    }
    return image, scalars


def _append(dataset: h5py.Dataset, values: FrameStack | npt.NDArray[Any]) -> None:
    """Append `values` to a dataset."""
    start = len(dataset)
    dataset.resize(start + len(values), axis=0)
    dataset[start:] = values


def _scalars(spec: MeasurementSpec, start: int, stop: int) -> dict[str, npt.NDArray[Any]]:
    """Return the scalar features of frames, each of shape (stop - start,)."""
    frame = np.arange(start, stop)
    seconds = frame / spec.rate
    return {
        "frame": frame.astype(np.int64),
        "time": seconds,
        "temp": 23.4 + 0.05 * np.sin(2 * np.pi * seconds / 60),
        "pressure": 712.0 + 1.5 * np.sin(2 * np.pi * seconds / 11),
    }


def _monitor_rows(spec: MeasurementSpec, start: int, frames: FrameStack) -> npt.NDArray[np.void]:
    """Return the rows of the monitor's table for a block."""
    interval = max(1, round(MONITOR_SECONDS * spec.rate))
    index = np.arange(-(-start // interval) * interval, start + len(frames), interval)
    rows = np.zeros(len(index), [("time", float), ("brightness", float), ("imaging_rate", float)])
    rows["time"] = index / spec.rate
    rows["brightness"] = frames[index - start].mean(axis=(1, 2)) if len(index) else 0.0
    rows["imaging_rate"] = spec.rate
    return rows


def _metadata(spec: MeasurementSpec) -> dict[str, object]:
    """Return the root attributes that are known at the start of a recording."""
    height, width = spec.size
    metadata: dict[str, object] = {
        "experiment:date": spec.started.strftime("%Y-%m-%d"),
        "experiment:time": spec.started.strftime("%H:%M:%S"),
        "experiment:run index": spec.run_index,
        "experiment:sample": spec.sample,
        "imaging:flash device": "LED (simulated)",
        "imaging:flash duration": 2.0,
        "imaging:frame rate": float(spec.rate),
        "imaging:pixel size": float(spec.pixel_size),
        "imaging:roi position x": 0,
        "imaging:roi position y": 0,
        "imaging:roi size x": width,
        "imaging:roi size y": height,
        "setup:channel width": 20.0,
        "setup:chip region": "channel",
        "setup:flow rate": 0.06,
        "setup:flow rate sample": 0.015,
        "setup:flow rate sheath": 0.045,
        "setup:identifier": spec.identifier,
        "setup:medium": "CellCarrierB",
        "setup:module composition": "Naiad",
        "setup:software version": "dcnumd simulate",
        "setup:temperature": 23.4,
    }
    if spec.run_identifier is not None:
        metadata["experiment:run identifier"] = spec.run_identifier
    return metadata


def _write_logs(h5: h5py.File, spec: MeasurementSpec) -> None:
    """Write the logs of the recording software."""
    height, width = spec.size
    ended = spec.started + dt.timedelta(seconds=spec.duration)
    lines = [
        (spec.started, f"Simulated recording {spec.run_index} of sample {spec.sample}"),
        (spec.started, "Device name: Naiad 1.0"),
        (spec.started, f"Setup: {spec.identifier}"),
        (spec.started, f"Region of interest: {height} rows, {width} columns"),
        (spec.started, f"Frame rate: {spec.rate:.3f} Hz, pixel size: {spec.pixel_size} um"),
        (spec.started, f"Compression: {spec.compression}, {spec.chunk_frames} frames per chunk"),
        (spec.started, f"Random seed: {spec.seed}, cells per frame: {spec.density}"),
        (spec.started, f"Kinds of cells: {', '.join(spec.kinds)}, flicker: {spec.flicker} grey levels"),
        (ended, f"Recorded {spec.frames} frames, lost 0"),
    ]
    encoded = [f"{moment:%H:%M:%S} INFO {text}".encode()[:LOG_WIDTH] for moment, text in lines]
    h5.create_dataset("logs/cytoshot-acquisition", data=np.array(encoded, f"S{LOG_WIDTH}"), fletcher32=True)
