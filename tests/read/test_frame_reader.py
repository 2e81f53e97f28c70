"""Frames read without HDF5 are those that HDF5 reads."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import h5py
import hdf5plugin
import numpy as np
import pytest
import zstandard

from dcnumd.errors import MeasurementError
from dcnumd.read.frame_reader import FrameReader, FrameSource
from dcnumd.read.hdf5_data import HDF5Data

ZSTD = dict(hdf5plugin.Zstd(clevel=5))
LAYOUTS = {
    "contiguous": {},
    "chunks-of-1": {"chunks": (1, 80, 250)},
    "chunks-of-7": {"chunks": (7, 80, 250)},
    "one-large-chunk": {"chunks": (1000, 80, 250), "maxshape": (None, 80, 250), **ZSTD},
    "plain-fletcher32": {"chunks": (10, 80, 250), "fletcher32": True},
    "gzip": {"chunks": (10, 80, 250), "compression": "gzip"},
    "gzip-shuffle-fletcher32": {"chunks": (10, 80, 250), "compression": "gzip", "shuffle": True, "fletcher32": True},
    "zstd": {"chunks": (10, 80, 250), **ZSTD},
    "zstd-fletcher32": {"chunks": (10, 80, 250), "fletcher32": True, **ZSTD},
    "split": {"chunks": (5, 20, 125), **ZSTD},
    "split-uneven": {"chunks": (4, 33, 77), "fletcher32": True, **ZSTD},
    "chunk-larger-than-frame": {"chunks": (50, 90, 260), "maxshape": (None, None, None)},
    "growing": {"chunks": (10, 80, 250), "maxshape": (None, 80, 250), "fletcher32": True, **ZSTD},
}
BY_HDF5 = {
    "lzf": {"chunks": (10, 80, 250), "compression": "lzf"},
    "lz4": {"chunks": (10, 80, 250), **hdf5plugin.LZ4()},
}
if h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP):
    BY_HDF5["szip"] = {"chunks": (10, 80, 250), "compression": "szip"}


def source_of(path, **kwargs):
    with HDF5Data(path, **kwargs) as data:
        return pickle.loads(pickle.dumps(FrameSource.of(data.check_frames())))  # noqa: S301 -- what we just made


def read(source, start, stop):
    out = np.full((stop - start, *source.frame_shape), 77, np.uint8)
    with FrameReader(source) as reader:
        reader.read_into(start, stop, out)
    return out


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reader_equals_hdf5_without_hdf5(write_measurement, frames, layout):
    """Every layout of the field is read directly, in one piece and in batches of any size."""
    source = source_of(write_measurement(frames, **LAYOUTS[layout]))
    assert source.table is not None
    assert np.array_equal(read(source, 0, 43), frames)
    with FrameReader(source) as reader:
        for batch in (1, 7, 10, 16):
            for start in range(0, 43, batch):
                stop = min(start + batch, 43)
                out = np.empty((stop - start, 80, 250), np.uint8)
                reader.read_into(start, stop, out)
                assert np.array_equal(out, frames[start:stop])


@pytest.mark.parametrize("layout", BY_HDF5)
def test_reader_leaves_other_filters_to_hdf5(write_measurement, frames, layout):
    """Filters that are not undone here are read through HDF5 with equal result."""
    source = source_of(write_measurement(frames, **BY_HDF5[layout]))
    assert source.table is None
    assert np.array_equal(read(source, 3, 31), frames[3:31])


def test_reader_handles_missing_chunks(tmp_path):
    """A chunk that was never written reads as the fill value."""
    path = tmp_path / "sparse.rtdc"
    with h5py.File(path, "w") as h5:
        dataset = h5.create_dataset("events/image", (20, 8, 10), np.uint8, chunks=(5, 8, 10), fillvalue=9)
        dataset[5:10] = 3
    source = source_of(path)
    assert read(source, 0, 20)[:, 0, 0].tolist() == [9] * 5 + [3] * 5 + [9] * 10


def test_reader_handles_unfiltered_chunks(tmp_path, frames):
    """A chunk whose filters were left out when it was written (filter mask) is read as it is."""
    path = tmp_path / "masked.rtdc"
    with h5py.File(path, "w") as h5:
        dataset = h5.create_dataset(
            "events/image", (20, 80, 250), chunks=(10, 80, 250), dtype="u1", fletcher32=True, **ZSTD
        )
        dataset[10:] = frames[10:20]
        dataset.id.write_direct_chunk((0, 0, 0), frames[:10].tobytes(), filter_mask=0b11)
    source = source_of(path)
    assert source.table is not None
    assert np.array_equal(read(source, 0, 20), frames[:20])


def test_reader_handles_frames_without_content_size(tmp_path, frames):
    """Zstandard frames written as a stream, which HDF5's own filter refuses, are read."""
    path = tmp_path / "stream.rtdc"
    with h5py.File(path, "w") as h5:
        dataset = h5.create_dataset("events/image", (10, 80, 250), chunks=(10, 80, 250), dtype="u1", **ZSTD)
        packed = zstandard.ZstdCompressor(write_content_size=False).compress(frames[:10].tobytes())
        dataset.id.write_direct_chunk((0, 0, 0), packed)
    assert np.array_equal(read(source_of(path), 0, 10), frames[:10])


@pytest.mark.parametrize("mapping", [11, slice(5, 40, 3), [40, 3, 4, 5, 3, 42, 0]])
@pytest.mark.parametrize("layout", ["contiguous", "zstd-fletcher32", "split"])
def test_reader_follows_index_mapping(write_measurement, frames, layout, mapping):
    """Frames are seen through the index mapping."""
    path = write_measurement(frames, **LAYOUTS[layout])
    source = source_of(path, index_mapping=mapping)
    with HDF5Data(path, index_mapping=mapping) as data:
        expected = data.image[:]
    assert np.array_equal(expected, frames[:mapping] if isinstance(mapping, int) else frames[mapping])
    assert np.array_equal(read(source, 0, source.frame_count), expected)
    assert np.array_equal(read(source, 2, 5), expected[2:5])


def test_reader_refuses_frames_past_the_end(write_measurement, frames):
    """Asking for more frames than there are is an error, not padding."""
    source = source_of(write_measurement(frames, **LAYOUTS["zstd"]))
    with FrameReader(source) as reader, pytest.raises(IndexError, match="43"):
        reader.read_into(40, 44, np.empty((4, 80, 250), np.uint8))


def test_reader_refuses_wrong_buffer(write_measurement, frames):
    """A buffer of the wrong shape is refused before anything is read."""
    source = source_of(write_measurement(frames))
    with FrameReader(source) as reader, pytest.raises(ValueError, match="C-contiguous uint8"):
        reader.read_into(0, 4, np.empty((3, 80, 250), np.uint8))


def test_reader_refuses_use_after_close(write_measurement, frames):
    """A closed reader says that it is closed."""
    reader = FrameReader(source_of(write_measurement(frames)))
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read_into(0, 1, np.empty((1, 80, 250), np.uint8))


def flip_byte(path, source, number):
    offset = int(source.table.offsets[number, 0, 0]) + 500
    with path.open("r+b") as stream:
        stream.seek(offset)
        value = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes([value ^ 4]))


@pytest.mark.parametrize(
    ("layout", "reason"), [("plain-fletcher32", "checksum"), ("zstd-fletcher32", "checksum"), ("gzip", "damaged")]
)
def test_reader_notices_damage(write_measurement, frames, layout, reason):
    """A flipped bit is an error that names the file, the dataset and the chunk; other chunks stay readable."""
    path = write_measurement(frames, **LAYOUTS[layout])
    source = source_of(path)
    flip_byte(path, source, 2)
    assert np.array_equal(read(source, 0, 20), frames[:20])
    with pytest.raises(MeasurementError, match=r"measurement.rtdc: /events/image .* \(2, 0, 0\)") as caught:
        read(source, 20, 30)
    assert caught.value.reason == reason


@pytest.mark.parametrize("layout", ["contiguous", "zstd-fletcher32"])
def test_reader_notices_truncation(write_measurement, frames, layout):
    """A file that became shorter is reported as truncated."""
    path = write_measurement(frames, **LAYOUTS[layout])
    source = source_of(path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(MeasurementError, match="truncated") as caught:
        read(source, 0, 43)
    assert caught.value.reason == "truncated"


def test_reader_names_a_missing_file(write_measurement, frames):
    """A file that went away is unreadable, which may pass."""
    path = write_measurement(frames)
    source = source_of(path)
    path.unlink()
    with pytest.raises(MeasurementError, match="No such file") as caught:
        FrameReader(source)
    assert caught.value.reason == "unreadable"
    assert caught.value.transient


def test_reader_reads_real_measurement(shared_data):
    """The split chunks of a real measurement come out as from HDF5."""
    path = shared_data("fmt-hdf5_shapein_raw-with-variable-length-logs")
    source = source_of(path)
    with h5py.File(path, locking=False) as h5:
        assert np.array_equal(read(source, 0, source.frame_count), h5["events/image"][:])


def test_reader_needs_no_hdf5(write_measurement, frames):
    """A worker that reads and packs chunks never loads HDF5."""
    source = source_of(write_measurement(frames, **LAYOUTS["zstd-fletcher32"]))
    script = (
        "import pickle, sys, numpy as np\n"
        "from dcnumd.write.pack import pack_chunk\n"
        "from dcnumd.read.frame_reader import FrameReader\n"
        "source = pickle.loads(sys.stdin.buffer.read())\n"
        "out = np.empty((10, *source.frame_shape), np.uint8)\n"
        "FrameReader(source).read_into(0, 10, out)\n"
        "assert pack_chunk(out, 5)\n"
        "assert 'h5py' not in sys.modules, 'h5py'\n"
    )
    subprocess.run([sys.executable, "-c", script], input=pickle.dumps(source), check=True, timeout=100)
