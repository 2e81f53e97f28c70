"""What a simulated measurement contains: datasets, scalar features, metadata, logs and the table of the monitor."""

from __future__ import annotations

import datetime as dt
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt

from dcnumd.simulate.scene import FrameStack
from dcnumd.simulate.spec import MeasurementSpec

SCALAR_CHUNK = 1000
LOG_NAME = "logs/cytoshot-acquisition"
LOG_WIDTH = 100
"""Length of log lines, which have a fixed size in the file [bytes]."""

MONITOR_NAME = "tables/cytoshot_monitor"
MONITOR_SECONDS = 0.1
"""Seconds between two rows in the table of the monitor."""
MONITOR_DTYPE = np.dtype([("time", float), ("brightness", float), ("imaging_rate", float)])


def create_events(h5: h5py.File, spec: MeasurementSpec) -> dict[str, h5py.Dataset]:
    """Create the empty datasets of ``events``; return each by its name."""
    filters: dict[str, Any] = {"fletcher32": spec.fletcher32}
    if spec.compression == "gzip":
        filters["compression"] = "gzip"
    elif spec.compression != "none":
        filters.update(hdf5plugin.Zstd(clevel=int(spec.compression.removeprefix("zstd-"))))
    events = h5.create_group("events")
    datasets = {
        "image": events.create_dataset(
            "image",
            shape=(0, *spec.size),
            maxshape=(None, *spec.size),
            chunks=(spec.chunk_frames, *spec.size),
            dtype=np.uint8,
            **filters,
        )
    }
    for name, text in (("CLASS", "IMAGE"), ("IMAGE_VERSION", "1.2"), ("IMAGE_SUBCLASS", "IMAGE_GRAYSCALE")):
        datasets["image"].attrs.create(name, np.bytes_(text))
    for name, values in scalar_features(spec, 0, 0).items():
        datasets[name] = events.create_dataset(
            name, shape=(0,), maxshape=(None,), chunks=(SCALAR_CHUNK,), dtype=values.dtype, **filters
        )
    return datasets


def append(dataset: h5py.Dataset, values: npt.NDArray[Any]) -> None:
    """Append `values` to a dataset."""
    start = len(dataset)
    dataset.resize(start + len(values), axis=0)
    dataset[start:] = values


def scalar_features(spec: MeasurementSpec, start: int, stop: int) -> dict[str, npt.NDArray[Any]]:
    """Return the scalar features of frames, each of shape (stop - start,)."""
    frame = np.arange(start, stop)
    seconds = frame / spec.rate
    return {
        "frame": frame.astype(np.int64),
        "time": seconds,
        "temp": 23.4 + 0.05 * np.sin(2 * np.pi * seconds / 60),
        "pressure": 712.0 + 1.5 * np.sin(2 * np.pi * seconds / 11),
    }


def monitor_rows(spec: MeasurementSpec, start: int, frames: FrameStack) -> npt.NDArray[np.void]:
    """Return the rows of the monitor's table for a block."""
    interval = max(1, round(MONITOR_SECONDS * spec.rate))
    index = np.arange(-(-start // interval) * interval, start + len(frames), interval)
    rows = np.zeros(len(index), MONITOR_DTYPE)
    rows["time"] = index / spec.rate
    rows["brightness"] = frames[index - start].mean(axis=(1, 2)) if len(index) else 0.0
    rows["imaging_rate"] = spec.rate
    return rows


def initial_metadata(spec: MeasurementSpec) -> dict[str, object]:
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


def first_log_lines(spec: MeasurementSpec) -> npt.NDArray[np.bytes_]:
    """Return the lines that the recording software logs at the start, of `LOG_WIDTH` bytes each."""
    height, width = spec.size
    texts = [
        f"Simulated recording {spec.run_index} of sample {spec.sample}",
        "Device name: Naiad 1.0",
        f"Setup: {spec.identifier}",
        f"Region of interest: {height} rows, {width} columns",
        f"Frame rate: {spec.rate:.3f} Hz, pixel size: {spec.pixel_size} um",
        f"Compression: {spec.compression}, {spec.chunk_frames} frames per chunk",
        f"Random seed: {spec.seed}, cells per frame: {spec.density}",
        f"Kinds of cells: {', '.join(spec.kinds)}, flicker: {spec.flicker} grey levels",
    ]
    return _lines(spec.started, texts)


def last_log_lines(spec: MeasurementSpec) -> npt.NDArray[np.bytes_]:
    """Return the lines that the recording software logs at the end, of `LOG_WIDTH` bytes each."""
    return _lines(spec.started + dt.timedelta(seconds=spec.duration), [f"Recorded {spec.frames} frames, lost 0"])


def _lines(moment: dt.datetime, texts: list[str]) -> npt.NDArray[np.bytes_]:
    encoded = [f"{moment:%H:%M:%S} INFO {text}".encode()[:LOG_WIDTH] for text in texts]
    return np.array(encoded, f"S{LOG_WIDTH}")
