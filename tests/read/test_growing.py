"""A file that grows is read by itself: a reader in SWMR mode follows nothing that leads to another file."""

from __future__ import annotations

import contextlib
import shutil

import h5py
import numpy as np
import pytest

from dcnumd.errors import MeasurementError
from dcnumd.read.growing import GrowingFile
from tests.support.observed import Observed

FRAMES = np.zeros((40, 20, 30), np.uint8)


def growing(path, fill):
    """Write a file as it is while an instrument records; `fill` gets the file and writes its content."""
    whole = path.with_name(f".{path.name}.whole")
    with h5py.File(whole, "w", libver=("v110", "v110")) as h5:
        fill(h5)
        h5.swmr_mode = True
        h5.flush()
        shutil.copy(whole, path)
    whole.unlink()
    return path


def record_frames(h5):
    h5.create_dataset("events/image", data=FRAMES, chunks=(10, 20, 30), maxshape=(None, 20, 30))


@pytest.fixture
def outside(tmp_path):
    """Return a complete measurement in a folder of its own, and what tells whether anybody opens a file there."""
    (tmp_path / "outside").mkdir()
    path = tmp_path / "outside" / "base.rtdc"
    with h5py.File(path, "w") as h5:
        h5["events/image"], h5["events/time"] = FRAMES, np.arange(40.0)
    with contextlib.closing(Observed(path.parent)) as observed:
        yield path, observed


@pytest.mark.parametrize("place", ["events", "events/image"])
def test_links_to_frames_in_other_files_are_not_followed(place, tmp_path, outside):
    """Whoever can write into a watched folder could otherwise have any file opened."""
    path, observed = outside

    def fill(h5):
        h5[place] = h5py.ExternalLink(str(path), place)

    with pytest.raises(MeasurementError) as error:
        GrowingFile(growing(tmp_path / "M1.rtdc", fill))
    assert error.value.reason == "no_images"
    assert observed.names() == []


@pytest.mark.parametrize("how", ["link", "storage", "virtual dataset"])
def test_features_in_other_files_do_not_count(how, tmp_path, outside):
    """They are neither read nor used: the job after the end decides whether they may be."""
    path, observed = outside

    def fill(h5):
        record_frames(h5)
        if how == "link":
            h5["events/time"] = h5py.ExternalLink(str(path), "events/time")
        elif how == "storage":
            h5.create_dataset("events/time", (20,), np.float64, external=[(str(path), 0, 160)])
        else:
            layout = h5py.VirtualLayout((20,), np.float64)
            layout[:] = h5py.VirtualSource(str(path), "events/time", (40,))[:20]
            h5.create_virtual_dataset("events/time", layout)

    recording = growing(tmp_path / "M1.rtdc", fill)
    observed.names()
    with GrowingFile(recording) as file:
        assert file.refresh() == 40
        assert file.numbers("time") is None
    assert observed.names() == []
