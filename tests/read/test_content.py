"""The digest of a measurement sees every change of what gets into a result, and nothing else."""

from __future__ import annotations

import json
import shutil

import h5py
import hdf5plugin
import numpy as np
import pytest

from dcnumd.read.content import content_digest, files_of
from dcnumd.read.hdf5_data import HDF5Data

STORAGES = {
    "contiguous": {},
    "chunks": {"chunks": (4, 10, 20)},
    "split chunks": {"chunks": (3, 5, 7)},
    "fletcher32 alone": {"chunks": (4, 10, 20), "fletcher32": True},
    "shuffle, fletcher32": {"chunks": (4, 10, 20), "shuffle": True, "fletcher32": True},
    "gzip": {"chunks": (4, 10, 20), "compression": "gzip"},
    "gzip without effect": {"chunks": (4, 10, 20), "compression": "gzip", "compression_opts": 0},
    "gzip, fletcher32": {"chunks": (4, 10, 20), "compression": "gzip", "fletcher32": True},
    "zstd": {"chunks": (4, 10, 20), **hdf5plugin.Zstd()},
    "zstd, fletcher32": {"chunks": (4, 10, 20), **hdf5plugin.Zstd(), "fletcher32": True},
    "lzf": {"chunks": (4, 10, 20), "compression": "lzf"},
    "lzf, fletcher32": {"chunks": (4, 10, 20), "compression": "lzf", "fletcher32": True},
}


def make(path, storage=None, libver="earliest"):
    """Write a small measurement with logs, tables and attributes of all kinds."""
    images = np.random.default_rng(1).integers(0, 256, (10, 10, 20), dtype=np.uint8)
    with h5py.File(path, "w", libver=libver) as h5:
        h5.attrs.update({"experiment:sample": "beads", "imaging:pixel size": 0.34})
        h5.create_dataset("events/image", data=images, **(storage or {}))
        h5["events/time"] = np.arange(10) / 2000
        h5["events/userdef0"] = np.arange(10)
        h5["logs/fixed"] = np.array([b"one", b"two"])
        h5.create_dataset("logs/varying", data=["eins", "zwei"] * 300, dtype=h5py.string_dtype())
        h5["tables/run"] = np.ones(3, [("a", "f8"), ("b", "i4")])
        h5["tables/run"].attrs["unit"] = "s"
    return path


def digest_of(path):
    with HDF5Data(path) as data:
        return content_digest(data)


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_change_of_any_frame_is_seen(storage, tmp_path):
    """One pixel of any frame, also where the size of everything stays."""
    path = make(tmp_path / "m.rtdc", storage)
    found = {digest_of(path)}
    for frame in range(10):
        with h5py.File(path, "r+") as h5:
            h5["events/image"][frame, 5, 5] ^= 1
        found.add(digest_of(path))
    assert len(found) == 11
    # what a simple checksum takes for the same
    for value in (0, 255):
        with h5py.File(path, "r+") as h5:
            h5["events/image"][3:8] = value
        found.add(digest_of(path))
    assert len(found) == 13


BLIND_SPOTS = {
    "white for black": lambda images: np.where(images == 0, 255, images),
    "frames in another order": lambda images: images[[1, 0, *range(2, 10)]],
}


@pytest.mark.parametrize("change", BLIND_SPOTS.values(), ids=BLIND_SPOTS)
@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_change_that_a_checksum_misses_is_seen(storage, change, tmp_path):
    """Fletcher's takes two white pixels for two black ones, Adler's knows no order of frames with the same sum."""
    path = make(tmp_path / "m.rtdc", storage)
    images = np.zeros((10, 10, 20), np.uint8)
    images[:, :, 10:] = (
        np.random.default_rng(0).permuted(np.tile(np.arange(1, 101), (10, 1)), axis=1).reshape(10, 10, 10)
    )
    digests = set()
    for written in (images, change(images)):
        with h5py.File(path, "r+") as h5:
            h5["events/image"][...] = written
        digests.add(digest_of(path))
    assert len(digests) == 2


CHANGES = {
    "sample": lambda h5: h5.attrs.__setitem__("experiment:sample", "cells"),
    "number": lambda h5: h5.attrs.__setitem__("imaging:pixel size", np.nextafter(0.34, 1)),
    "type of a number": lambda h5: h5.attrs.__setitem__("imaging:pixel size", np.float32(0.34)),
    "new attribute": lambda h5: h5.attrs.__setitem__("user:more", [1, 2]),
    "time": lambda h5: h5["events/time"].__setitem__(9, 1.0),
    "other feature": lambda h5: h5["events"].__setitem__("frame", np.arange(10)),
    "fixed line": lambda h5: h5["logs/fixed"].__setitem__(1, b"six"),
    "varying line": lambda h5: h5["logs/varying"].__setitem__(599, "acht"),
    "table": lambda h5: h5["tables/run"].__setitem__(2, (1.0, 2)),
    "attribute of a table": lambda h5: h5["tables/run"].attrs.__setitem__("unit", "h"),
    "name": lambda h5: h5.move("logs/fixed", "logs/other"),
    "length": lambda h5: h5["events"].__setitem__("userdef1", np.arange(3)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_change_of_anything_that_gets_into_a_result_is_seen(change, tmp_path):
    """Metadata that were corrected are another content, as other frames are."""
    path = make(tmp_path / "m.rtdc")
    before = digest_of(path)
    with h5py.File(path, "r+") as h5:
        change(h5)
    assert digest_of(path) != before


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_same_data_in_another_place_are_the_same(storage, tmp_path):
    """A copy under another name and date, and one in which objects were written in another order."""
    path = make(tmp_path / "m.rtdc", storage)
    shutil.copyfile(path, tmp_path / "copy.rtdc")
    assert digest_of(tmp_path / "copy.rtdc") == digest_of(path)
    with h5py.File(path) as old, h5py.File(tmp_path / "moved.rtdc", "w") as new:
        for name in sorted(old, reverse=True):
            old.copy(name, new)
        new.attrs.update(dict(sorted(old.attrs.items(), reverse=True)))
    assert digest_of(tmp_path / "moved.rtdc") == digest_of(path)


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_value_of_frames_that_were_never_written_counts(storage, tmp_path):
    """It is what is read of them."""
    digests = set()
    for value in (140, 150):
        path = make(tmp_path / f"{value}.rtdc")
        with h5py.File(path, "r+") as h5:
            h5.create_dataset("events/image_bg", (10, 10, 20), np.uint8, fillvalue=value, **storage)
            if storage:
                h5["events/image_bg"][: storage["chunks"][0]] = 130
        digests.add(digest_of(path))
    assert len(digests) == 2


@pytest.mark.parametrize("storage", ["gzip", "gzip, fletcher32", "zstd, fletcher32"])
def test_compressed_frames_are_not_read_again(storage, tmp_path):
    """Of compressed chunks that have a checksum, only their end is read."""
    path = make(tmp_path / "m.rtdc")
    images = np.random.default_rng(3).integers(0, 16, (10, 10, 200), dtype=np.uint8)
    with h5py.File(path, "r+") as h5:
        del h5["events/image"]
        h5.create_dataset("events/image", data=images, **STORAGES[storage] | {"chunks": (4, 10, 200)})
    whole = digest_of(path)
    with h5py.File(path) as h5:
        first = h5["events/image"].id.get_chunk_info(0)
    with path.open("r+b") as file:
        file.seek(first.byte_offset)
        file.write(bytes(first.size - 256))
    assert digest_of(path) == whole


def test_damaged_parts_have_a_digest(tmp_path):
    """A log that cannot be read prevents nothing, and another damage is another content."""
    path = make(tmp_path / "m.rtdc")
    with h5py.File(path) as h5:
        offset = h5["logs/varying"].id.get_offset()
    whole = digest_of(path)
    data = bytearray(path.read_bytes())
    # of the first line: where it lies, not how long it is, which would have HDF5 ask for 4 GB of memory
    data[offset + 4 : offset + 16] = b"\xff" * 12
    path.write_bytes(data)
    assert digest_of(path) != whole


def refer(path, **definition):
    """Add the definition of a basin to a file, which is made if there is none."""
    with h5py.File(path, "a") as h5:
        h5.attrs["experiment:event count"] = 10
        h5["basins/b"] = [line.encode() for line in json.dumps({"name": "b", **definition}, indent=1).splitlines()]


@pytest.mark.parametrize("group", ["basin_events", "other", "other/inner", "/", ""])
def test_data_in_an_internal_basin_count(group, tmp_path):
    """Whatever the group is called that the basin names."""
    path = make(tmp_path / "m.rtdc")
    refer(path, type="internal", paths=[group], features=["image_bg"])
    with h5py.File(path, "r+") as h5:
        background = h5.require_group(group or "/").create_dataset("image_bg", data=np.ones((10, 10, 20), np.uint8))
        name = background.name
    before = digest_of(path)
    with HDF5Data(path) as data:
        assert data.image_bg is not None
    with h5py.File(path, "r+") as h5:
        h5[name][9] = 2
    assert digest_of(path) != before


def test_frames_in_a_basin_count(tmp_path):
    """Where the frames are in another file, a change there is a change of the measurement."""
    make(tmp_path / "frames.rtdc")
    path = tmp_path / "refers.rtdc"
    refer(path, type="file", paths=["frames.rtdc"], features=["image", "time"])
    with h5py.File(path, "r+") as h5:
        h5["events/userdef0"] = np.arange(10)
    before = digest_of(path)
    with HDF5Data(path) as data:
        assert files_of(data) == (tmp_path / "frames.rtdc",)
    with h5py.File(tmp_path / "frames.rtdc", "r+") as h5:
        h5["events/image"][0, 0, 0] ^= 1
    assert digest_of(path) != before


def test_mapping_on_the_way_to_a_basin_counts(tmp_path):
    """A basin of a basin: which of its events are meant says the file between, too, whatever the index mapping."""
    make(tmp_path / "frames.rtdc")
    features = ["image", "time", "userdef0"]
    for name, target in (("middle.rtdc", "frames.rtdc"), ("refers.rtdc", "middle.rtdc")):
        refer(tmp_path / name, type="file", paths=[target], features=features, mapping="basinmap0")
        with h5py.File(tmp_path / name, "r+") as h5:
            h5["events/basinmap0"] = np.arange(10)
    before = digest_of(tmp_path / "refers.rtdc")
    with HDF5Data(tmp_path / "refers.rtdc", index_mapping=3) as data:
        assert content_digest(data) == before
        assert files_of(data) == (tmp_path / "frames.rtdc", tmp_path / "middle.rtdc")
    with h5py.File(tmp_path / "middle.rtdc", "r+") as h5:
        h5["events/basinmap0"][8:] = [9, 8]
    assert digest_of(tmp_path / "refers.rtdc") != before
