"""Black frames of a recording whose light went off are told from those that a broken copy never wrote."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from dcnumd.read.blank import is_blank
from dcnumd.read.hdf5_data import HDF5Data

SHAPE = (200, 40, 80)
STORAGES = {
    "contiguous": {},
    "chunks": {"chunks": (10, 40, 80)},
    "checksums": {"chunks": (10, 40, 80), "fletcher32": True},
    "gzip": {"chunks": (10, 40, 80), "compression": "gzip"},
}


def record(path, storage, *, black, last="image"):
    """Write a recording whose frames are black from some frame on; what is stored last lies behind all else."""
    images = np.random.default_rng(1).integers(100, 200, SHAPE, dtype=np.uint8)
    images[black:] = 0
    with h5py.File(path, "w") as h5:
        for name in ("time", "image") if last == "image" else ("image", "time"):
            if name == "image":
                h5.create_dataset("events/image", data=images, **storage)
            else:
                h5["events/time"] = np.arange(len(images)) / 2000.0
                h5["events/frame"] = np.arange(1, len(images) + 1)
    return path


def found_blank(path):
    with HDF5Data(path) as data:
        return is_blank(data)


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
@pytest.mark.parametrize("black", [190, 150, 20])
def test_recording_in_the_dark_is_sound(storage, black, tmp_path):
    """The light went off, and everything else went on."""
    assert not found_blank(record(tmp_path / "M.rtdc", storage, black=black, last="time"))


@pytest.mark.parametrize("storage", [STORAGES["contiguous"], STORAGES["chunks"]], ids=["contiguous", "chunks"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_copy_that_broke_off_is_blank(storage, share, tmp_path):
    """It took its whole size first; from some place on there is nothing."""
    path = record(tmp_path / "M.rtdc", storage, black=SHAPE[0])
    content = path.read_bytes()
    cut = int(len(content) * share)
    path.write_bytes(content[:cut] + bytes(len(content) - cut))
    with h5py.File(path) as h5:
        assert not h5["events/image"][-2:].any(), "the copy broke off within the frames"
    assert found_blank(path)


def test_all_black_is_blank(tmp_path):
    """Without a single frame that can be seen, nothing tells a recording from an empty copy."""
    assert found_blank(record(tmp_path / "M.rtdc", STORAGES["contiguous"], black=0, last="time"))


def test_hole_among_the_frames_is_blank(tmp_path):
    """The light does not go on again."""
    path = record(tmp_path / "M.rtdc", STORAGES["contiguous"], black=SHAPE[0], last="time")
    with h5py.File(path, "r+") as h5:
        h5["events/image"][60:140] = 0
    assert found_blank(path)
