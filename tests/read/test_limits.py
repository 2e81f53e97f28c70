"""What is too large is refused before memory is taken for it."""

from __future__ import annotations

import pathlib
import re
import struct
import zlib

import h5py
import numpy as np
import pytest

from dcnumd.errors import MAX_MESSAGE, MeasurementError
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.process import process_measurement
from dcnumd.read import limits, metadata
from dcnumd.read.frame_reader import FrameReader, FrameSource
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.write.log_lines import unfold

MEMORY_MB = 200
"""Far more than what reading the rest of these small files takes."""


def reset_peak():
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def memory_mb(which):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{which}:\s+(\d+)", status)[1]) / 1024


def refusal(path, **settings):
    """Return the error with which a measurement ends, after making sure that it took no memory."""
    before = memory_mb("VmRSS")
    reset_peak()
    with pytest.raises(MeasurementError) as caught:
        process_measurement(Job(path, path.with_name("out.rtdc"), PipelineSettings(**settings), num_workers=1))
    assert memory_mb("VmHWM") < before + MEMORY_MB
    assert not caught.value.transient
    return caught.value


def told(path):
    """Process a measurement without much memory, and return what the run's log warns of."""
    before = memory_mb("VmRSS")
    reset_peak()
    result = process_measurement(Job(path, path.with_name("out.rtdc"), num_workers=1, existing="replace"))
    assert memory_mb("VmHWM") < before + MEMORY_MB
    with HDF5Data(result.path_out) as data:
        (log,) = (lines for name, lines in data.logs.items() if name.startswith("dcnumd-log-"))
    return [line for line in unfold(log) if "WARNING" in line]


@pytest.fixture
def add(write_measurement, frames):
    """Return a function that writes a sound measurement and adds a dataset of a shape, without its values."""

    def write(name, shape, dtype="u1", **layout):
        path = write_measurement(None if name == "events/image" else frames)
        with h5py.File(path, "a") as h5:
            h5.create_dataset(name, shape, dtype, **layout)
        return path

    return write


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "chunks", "text"),
    [
        ("events/image", (2**40, 80, 320), "u1", (10, 80, 320), "frames"),
        ("events/image", (2**26, 80, 320), "u1", (1000, 80, 320), "only"),
        ("events/image", (2**16, 1, 1), "u1", (1, 1, 1), "chunks"),
        ("events/image", (1, 2**14, 2**14), "u1", (1, 2**10, 2**10), "pixels"),
        ("events/image", (10000, 320, 1000), "u1", (2000, 320, 1000), "a chunk of"),
        ("events/time", (2**40,), "f8", (1000,), "time"),
        ("basins/long", (2**30,), "S100", (1000,), "basins"),
    ],
)
def test_absurd_shapes(add, name, shape, dtype, chunks, text):
    """Shapes that a file of some kilobytes claims are not believed."""
    error = refusal(add(name, shape, dtype, chunks=chunks))
    assert error.reason == "too_large"
    assert text in error.message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "dtype", "chunks"),
    [
        ("logs/long", (2**30,), "S100", (1000,)),
        ("logs/wide", (1,), "S2000000000", None),
        ("tables/long", (2**30,), "i4,f8", (1000,)),
    ],
)
def test_absurd_logs_and_tables_cost_no_measurement(add, name, shape, dtype, chunks):
    """They are cut or left out, which the run's log tells, and take no memory."""
    path = add(name, shape, dtype, chunks=chunks)
    warnings = told(path)
    assert any(name.partition("/")[2] in line for line in warnings), warnings


def test_huge_contiguous_frames_are_damage(add):
    """Frames that would end far beyond the end of the file cannot be there."""
    error = refusal(add("events/image", (10**6, 80, 320)))
    assert error.reason in {"too_large", "damaged"}


def test_large_attributes(write_measurement, frames):
    """An attribute of many megabytes, and one of many texts, is left out."""
    for values in (np.zeros(2**18), np.array(["x"] * 5000, dtype=h5py.string_dtype())):
        path = write_measurement(frames)
        with h5py.File(path, "w", libver="latest") as h5:
            h5["events/image"] = frames
            h5.attrs["setup:large"] = values
            h5.attrs["imaging:pixel size"] = 0.34
        assert any("setup:large" in line for line in told(path))


def test_many_attributes_and_members(write_measurement, frames, monkeypatch):
    """Numbers of things are limited, too."""
    path = write_measurement(frames, attributes={f"a:{number}": 1 for number in range(30)})
    with h5py.File(path, "a") as h5:
        for number in range(15):
            h5[f"logs/{number}"] = np.array([b"x"])
    monkeypatch.setattr(limits, "MAX_MEMBERS", 14)
    assert any("15 members" in line for line in told(path))
    monkeypatch.setattr(limits, "MAX_MEMBERS", 15)
    monkeypatch.setattr(metadata, "MAX_ATTRIBUTES", 30)
    assert "33 attributes" in refusal(path).message


def test_one_long_line_among_many(write_measurement, frames):
    """Lines of a result have one length, that of the longest; so the long one is broken, and nothing is lost."""
    path = write_measurement(frames)
    lines = ["x" * 30_000] + ["y"] * 10_000
    with h5py.File(path, "a") as h5:
        h5.create_dataset("logs/one", data=lines, dtype=h5py.string_dtype())
    assert any("logs/one" in line for line in told(path))
    with HDF5Data(path.with_name("out.rtdc")) as data:
        log = data.logs["one"]
    assert "".join(lines) in "".join(log)
    assert max(map(len, log)) <= 100


def test_one_text_many_times(write_measurement, frames, tmp_path):
    """Many texts may be one and the same in the file; they are counted while they are read."""
    path = write_measurement(frames)
    count = 20_000
    with h5py.File(path, "a") as h5:
        log = h5.create_dataset("logs/one", data=["x" * 100_000, "y"], dtype=h5py.string_dtype(), maxshape=(count,))
        place, size = log.id.get_chunk_info(0).byte_offset, log.id.get_chunk_info(0).size
        log.resize(count, axis=0)
    pointer = path.read_bytes()[place : place + 16]
    with h5py.File(path, "a") as h5:
        log = h5["logs/one"]
        chunk = log.chunks[0]
        for start in range(0, count, chunk):
            log.id.write_direct_chunk((start,), pointer * chunk)
    assert size == 16 * chunk
    reset_peak()
    with HDF5Data(path) as data, pytest.raises(MeasurementError, match=r"logs/one has 2\d+ bytes, more than"):
        data.logs  # noqa: B018 -- reading is what is tested
    # as much as all logs together may have
    assert memory_mb("VmHWM") < memory_mb("VmRSS") + MEMORY_MB + limits.MAX_COPIED_BYTES / 2**20


@pytest.mark.slow
def test_chunk_that_unpacks_to_more_than_it_should(tmp_path, write_measurement, frames):
    """A packed chunk is unpacked to its size and one byte, whatever more there is in it."""
    path = write_measurement(frames[:10], chunks=(10, 80, 250), compression="gzip")
    with h5py.File(path, "a") as h5:
        h5["events/image"].id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(3 * 10**8)))
    with HDF5Data(path) as data:
        source = FrameSource.of(data.check_frames())
    reset_peak()
    before = memory_mb("VmRSS")
    with FrameReader(source) as reader, pytest.raises(MeasurementError) as caught:
        reader.read_into(0, 10, np.empty((10, 80, 250), np.uint8))
    assert caught.value.reason == "damaged"
    assert memory_mb("VmHWM") < before + 50


def test_chunk_sizes_are_checked(write_measurement, frames):
    """A stored size that cannot be is found before a buffer of that size is made."""
    path = write_measurement(frames[:10], chunks=(10, 80, 250), compression="gzip")
    with h5py.File(path) as h5:
        chunk = h5["events/image"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    # the key of a version 1 B-tree begins with the size of the chunk
    place = content.index(struct.pack("<II", chunk.size, 0))
    content[place : place + 4] = struct.pack("<I", 2**31)
    path.write_bytes(content)
    error = refusal(path)
    assert error.reason == "damaged"
    assert "chunks do not fit" in error.message


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e300, 1e12])
def test_absurd_times(write_measurement, frames, value):
    """Background images for a million years are not made."""
    times = np.arange(43.0)
    times[-1] = value
    path = write_measurement(frames, features={"time": times})
    assert refusal(path).reason in {"too_large", "damaged"}
    assert refusal(path, background_kwargs={"split_time": 0.5}).reason in {"too_large", "damaged"}


@pytest.mark.parametrize("kind", ["u8", "u4"])
def test_times_without_a_sign_that_fall(write_measurement, frames, kind):
    """Their difference would be a huge number: what is wrong is told, and no memory is asked for."""
    path = write_measurement(frames, features={"time": np.arange(43, 0, -1).astype(kind)})
    error = refusal(path, background_kwargs={"split_time": 0.01})
    assert error.reason == "input"
    assert "events/time falls from 43 to 1, expected times that rise" in error.message


def test_names_cannot_break_a_line(write_measurement, frames):
    """Names and values in a file are escaped where they are told, and do not grow without end."""
    path = write_measurement(frames)
    for name in ("a\nb\x1b[31mc\u202e", "x" * 50_000):
        with h5py.File(path, "a") as h5:
            h5.create_dataset(f"basins/{name}", (2**40,), "S10", chunks=(10,))
        error = refusal(path)
        assert error.message.isprintable()
        assert len(error.message) <= MAX_MESSAGE + 2
        with h5py.File(path, "a") as h5:
            del h5["basins"]
