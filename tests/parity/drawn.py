"""Small measurements drawn at random, with settings to process them: equal seeds give equal files.

Drawn are the frames, what is stored of them, in which kinds of numbers and in which layout, and everything that can be
set for the pipeline. What dcnum cannot process is left out as far as it is known; it is the subject of other tests.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt

from tests.parity.drawn_frames import Frames, draw_count, draw_frames, draw_shape
from tests.parity.stored_kinds import FLOATS, TEXTS, WHOLE, draw_kind, store_number, store_text

Rng = np.random.Generator


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A measurement with settings to process it."""

    path: pathlib.Path
    settings: Mapping[str, Any]
    """For `PipelineSettings`, with the strategy for basins and the compression."""
    told: str
    """What it is, on one line."""


def draw(folder: pathlib.Path, seed: int) -> Drawn:
    """Write a measurement (and what it refers to) into an empty folder; return it with settings."""
    rng = np.random.default_rng(seed)
    shape = draw_shape(rng)
    frames = draw_frames(rng, shape, draw_count(rng, shape))
    path = folder / "M001_data.rtdc"
    with h5py.File(path, "w") as h5:
        _store_attributes(rng, h5, len(frames))
        seconds = _store_scalars(rng, h5, len(frames))
        image_where = _store_images(rng, h5, folder, frames)
        background_where = _store_background(rng, h5, frames) if image_where != "mapped" else "none"
        _store_logs_and_tables(rng, h5)
    settings = {
        **_draw_pipeline(rng, len(frames), seconds, background_where),
        "basin_strategy": str(rng.choice(["tap", "drain"])),
        "compression": str(rng.choice(["none", "zstd-1", "zstd-5"])),
    }
    told = f"{frames.shape}, image {image_where}, image_bg {background_where}, {json.dumps(settings, default=str)}"
    return Drawn(path, settings, told)


def _store_attributes(rng: Rng, h5: h5py.File, count: int) -> None:
    """Store what the pipeline computes with, and some of what it does not look at."""
    attributes = h5.attrs
    numbers = {
        "imaging:pixel size": rng.choice([0.34, 0.2645, 0.3400000035762787, 0.25, 1.0, 0.123456789]),
        "setup:channel width": 20.0,
        "imaging:roi size x": 100,
    }
    if rng.random() < 0.8:
        numbers["imaging:frame rate"] = rng.choice([100, 2000, 3600, 3450.5, 1000 / 3])
    if rng.random() < 0.5:
        numbers["online_contour:bin area min"] = rng.choice([0, 5, 20, 20.5, 60])
        for feature, lower, upper in (("area_um", 2, 25), ("deform", 0.005, 0.3), ("size_x", 1, 9), ("aspect", 0.5, 2)):
            if rng.random() < 0.5:
                numbers[f"online_filter:{feature} min"] = lower
            if rng.random() < 0.5:
                numbers[f"online_filter:{feature} max"] = upper
            if rng.random() < 0.8:
                numbers[f"online_filter:{feature} soft limit"] = int(rng.random() < 0.3)
    for key, value in numbers.items():
        # dcnum cannot write its log when the pixel size is a float of another size
        floats = ("f8", ">f8") if key == "imaging:pixel size" else FLOATS
        kind = draw_kind(rng, value, floats if value % 1 else (*floats, *WHOLE))
        store_number(attributes, key, value, "bool" if key.endswith("limit") and rng.random() < 0.5 else kind)
    store_number(attributes, "experiment:event count", count, draw_kind(rng, count, WHOLE))
    texts = {
        "experiment:date": "2025-01-15",
        "experiment:time": "10:00:00",
        "setup:identifier": "ZMDD-AcC-8ecba5-cd57e2",
        "experiment:sample": "Blut µ",
    }
    if rng.random() < 0.4:
        # dcnum cannot write a basin when it is stored in another way
        attributes["experiment:run identifier"] = "M001-2025"
    # all in one kind, as one program writes them
    kind = str(rng.choice(TEXTS, p=[0.8, 0.2]))
    for key, text in texts.items():
        if rng.random() < 0.9:
            store_text(attributes, key, text, kind)


def _store_scalars(rng: Rng, h5: h5py.File, count: int) -> float:
    """Store frame-wise scalars, any of which may be missing, and one of an event; return the duration [s]."""
    frame = np.arange(count) * 1.0
    jumps = np.cumsum(rng.integers(0, 4, count) * (rng.random(count) < 0.3))
    columns = {
        "time": _draw_times(rng, (frame + jumps) / rng.choice([100, 2000, 3600]) + rng.choice([0, 3.25])),
        "frame": rng.choice([0, 1, 5000]) + frame + jumps * rng.integers(2),
        "temp": 23 + rng.normal(0, 0.1, count),
        "pressure": rng.integers(0, 100, count),
        "flow_rate": np.full(count, 0.06),
        "userdef3": rng.integers(-100, 100, count),
        "area_um": rng.random(count),
    }
    for name, values in columns.items():
        if rng.random() < (0.5 if name == "time" else 0.6):
            # the differences of unsigned numbers are never negative, and dcnum then runs out of memory
            falling = bool(np.any(np.diff(values) < 0))
            kind = draw_kind(rng, values, FLOATS if falling or np.ptp(values) < 5 else (*FLOATS, *WHOLE))
            dataset = h5.create_dataset(f"events/{name}", data=values.astype(kind), chunks=_draw_length(rng, count))
            if rng.random() < 0.2:
                dataset.attrs["note"] = "calibrated"
    return _duration(h5, count)


def _draw_times(rng: Rng, times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return times, now and then in whole units, with frames at the same time, or in disorder."""
    if rng.random() < 0.2:
        times = np.round(times * 1e4)
    if rng.random() < 0.1:
        times[1:-1] = np.sort(rng.choice(times, len(times) - 2))
    if rng.random() < 0.1:
        times[1:-1] = rng.permutation(times[1:-1])
    return times


def _duration(h5: h5py.File, count: int) -> float:
    """Return how long the measurement takes, from which steps in time are drawn [s]."""
    rate = float(h5.attrs.get("imaging:frame rate", 3600))
    for name, scale in (("time", 1.0), ("frame", rate)):
        if name in h5.get("events", ()) and (name == "time" or "imaging:frame rate" in h5.attrs):
            return float(h5["events"][name][-1] / scale) - float(h5["events"][name][0] / scale)
    return 1.5 * count / rate


def _draw_length(rng: Rng, count: int) -> tuple[int] | None:
    return None if rng.random() < 0.3 else (int(rng.integers(1, count + 1)),)


def _draw_layout(rng: Rng, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return how to store frames of a shape (frame, y, x): in which chunks, and packed how."""
    if rng.random() < 0.15:
        return {}
    count, height, width = shape
    frames = int(rng.choice([1, 2, 7, 10, 100, count]))
    chunks = (min(frames, count), height, width)
    if rng.random() < 0.15:
        chunks = (min(frames, count), height // 2 + 1, width // 3 + 1)
    filters = (
        {},
        {"compression": "gzip", "compression_opts": 1},
        {"compression": "gzip", "shuffle": True},
        {"compression": "lzf"},
        dict(hdf5plugin.Zstd(clevel=1)),
        dict(hdf5plugin.Zstd(clevel=5)),
    )
    return {"chunks": chunks, "fletcher32": bool(rng.random() < 0.5), **filters[rng.integers(len(filters))]}


def _store_images(rng: Rng, h5: h5py.File, folder: pathlib.Path, frames: Frames) -> str:
    """Store the frames, sometimes in another file; return where: in ``events``, a ``file``, or a ``mapped`` one."""
    layout = _draw_layout(rng, frames.shape)
    if rng.random() < 0.9:
        h5.create_dataset("events/image", data=frames, **layout)
        return "events"
    other = folder / "frames.rtdc"
    mapped = rng.random() < 0.5
    order = rng.permutation(len(frames)) if mapped else np.arange(len(frames))
    identifier = h5.attrs.get("experiment:run identifier")
    if identifier is not None and mapped:
        # dclab wants the name of what some frames were taken from to begin alike
        identifier = identifier.partition("-")[0]
    with h5py.File(other, "w") as basin:
        basin.create_dataset("events/image", data=frames[order], **layout)
        basin.attrs["experiment:event count"] = len(frames)
        if identifier is not None:
            basin.attrs["experiment:run identifier"] = identifier
    definition = {
        "name": "frames",
        "description": "where the frames are",
        "type": "file",
        "format": "hdf5",
        "paths": [str(other), other.name] if rng.random() < 0.5 else [other.name],
        "features": ["image"],
    }
    if identifier is not None:
        definition["identifier"] = identifier
    if mapped:
        h5["events/basinmap0"] = np.argsort(order).astype(rng.choice(["u4", "i8", "u8"]))
        definition["mapping"] = "basinmap0"
    _store_basin(h5, "frames", definition)
    return "mapped" if mapped else "file"


def _store_basin(h5: h5py.File, key: str, definition: Mapping[str, Any]) -> None:
    lines = json.dumps(definition, indent=2).split("\n")
    h5[f"basins/{key}"] = np.array(lines, f"S{max(map(len, lines))}")


def _store_background(rng: Rng, h5: h5py.File, frames: Frames) -> str:
    """Store a background that the measurement came with; return where: in ``events``, ``internal``, or ``none``."""
    where = str(rng.choice(["none", "events", "internal"], p=[0.6, 0.2, 0.2]))
    parts = np.array_split(frames, min(4, len(frames)))
    images = np.array([np.median(part, axis=0) for part in parts]).astype(np.uint8)
    index = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    if where == "events":
        h5.create_dataset("events/image_bg", data=images[index], **_draw_layout(rng, frames.shape))
    elif where == "internal":
        h5["basin_events/image_bg"] = images
        h5["events/basinmap1"] = index.astype(rng.choice(["u4", "i8", "u8"]))
        definition = {"name": "light", "description": "of parts", "type": "internal", "format": "h5dataset"}
        paths = {"paths": ["basin_events"], "features": ["image_bg"], "mapping": "basinmap1"}
        _store_basin(h5, "light", definition | paths)
    if rng.random() < (0.2 if where == "none" else 0.7):
        offsets = rng.normal(0, 2, len(frames))
        h5["events/bg_off"] = offsets.astype(draw_kind(rng, offsets, FLOATS))
        if rng.random() < 0.5:
            h5["events/bg_off"].attrs["dcnum ppid background"] = "sparsemed:k=200^s=1^t=0^f=0.8^o=1"
    return where


def _store_logs_and_tables(rng: Rng, h5: h5py.File) -> None:
    """Store logs in fixed and variable length, and tables; with attributes, and empty ones among them."""
    lines = ["10:00:00 INFO begin", "", "10:00:01 INFO 20 µm", "10:00:02 INFO end"][: rng.integers(5)]
    if rng.random() < 0.6:
        h5["logs/fixed"] = np.array([line.encode() for line in lines], "S40")
    if rng.random() < 0.4:
        h5.create_dataset("logs/variable", data=lines, dtype=h5py.string_dtype())
        h5["logs/variable"].attrs["software"] = "Shape-In 2.5"
    if rng.random() < 0.4:
        rows = np.zeros(rng.integers(4), [("time", "f8"), ("brightness", "f4"), ("count", "u2")])
        rows["time"] = rng.random(len(rows))
        h5["tables/monitor"] = rows
        h5["tables/monitor"].attrs["COLOR_time"] = "#aa0000"
        store_number(h5["tables/monitor"].attrs, "rate", 10, draw_kind(rng, 10))
    if rng.random() < 0.2:
        h5["tables/picture"] = rng.integers(0, 255, (5, 7), np.uint8)


def _draw_pipeline(rng: Rng, count: int, seconds: float, background_where: str) -> dict[str, Any]:
    """Return the settings of the pipeline, as for `PipelineSettings`."""
    settings: dict[str, Any] = _draw_background(rng, count, seconds, background_where)
    settings["segmenter_kwargs"] = {"thresh": rng.choice([-6, -6, -3, -1, -2.5, -10.5, -30]).item()}
    settings["mask_kwargs"] = _some(
        rng,
        clear_border=bool(rng.random() < 0.5),
        fill_holes=bool(rng.random() < 0.5),
        closing_disk=int(rng.integers(0, 8)),
    )
    settings["feature_kwargs"] = _some(rng, 0.2, brightness=False, haralick=False, volume=False)
    settings["gate_kwargs"] = _some(
        rng,
        online_gates=bool(rng.random() < 0.7),
        size_thresh_mask=rng.choice([0, 1, 5, 10, 33, 150]).item() if rng.random() < 0.8 else None,
    )
    if rng.random() < 0.2:
        settings["pixel_size"] = rng.choice([0.34, 0.2645, 0.123456789]).item()
    if rng.random() < 0.25:
        settings["index_mapping"] = _draw_mapping(rng, count)
    return settings


def _some(rng: Rng, share: float = 0.5, **keywords: Any) -> dict[str, Any]:
    """Return some of the keywords."""
    return {key: value for key, value in keywords.items() if rng.random() < share}


def _draw_background(rng: Rng, count: int, seconds: float, where: str) -> dict[str, Any]:
    codes = ["sparsemed", "rollmed", "copy"]
    code = str(rng.choice(codes, p=[0.7, 0.3, 0.0] if where == "none" else [0.35, 0.15, 0.5]))
    if count < 5:
        code = "copy" if where != "none" else "sparsemed"
    if code == "sparsemed":
        kwargs = _some(
            rng,
            0.7,
            kernel_size=int(rng.integers(1, count + 10)),
            split_time=float(np.round(seconds / rng.uniform(0.8, 30), int(rng.integers(3, 8))) or seconds / 2),
            thresh_cleansing=rng.choice([0, 0, 0.5, 10, 1000]).item(),
            frac_cleansing=float(np.round(rng.uniform(0.05, 1), int(rng.integers(1, 4))) or 1),
            offset_correction=bool(rng.random() < 0.5),
        )
    elif code == "rollmed":
        # dcnum needs more frames than the kernel has
        kernel = min(2 * int(rng.integers(1, max(2, count // 3))), max(2, (count - 1) // 2 * 2))
        kwargs = {"kernel_size": kernel, "batch_size": kernel + int(rng.integers(1, count))}
    else:
        kwargs = {}
    return {"background_code": code, "background_kwargs": kwargs}


def _draw_mapping(rng: Rng, count: int) -> int | slice | tuple[int, ...]:
    kind = rng.integers(3)
    if kind == 0:
        return int(rng.integers(1, count + 1))
    start = int(rng.integers(0, count))
    if kind == 1:
        return slice(start, int(rng.integers(start, count)) + 1, int(rng.integers(1, 4)))
    chosen: npt.NDArray[np.int64] = np.sort(rng.choice(count, rng.integers(1, count + 1), replace=False))
    return tuple(chosen.tolist())
