"""Measurements that the same process has open already, as notebooks have."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from dcnumd.errors import MeasurementError
from dcnumd.logic.job import Job
from dcnumd.logic.process import engine, process_measurement
from dcnumd.read.hdf5_data import HDF5Data


@pytest.fixture(params=["earliest", "latest"])
def path(request, write_measurement, frames, tmp_path):
    """Return a measurement in an old and in a new format of HDF5."""
    path = tmp_path / "open.rtdc"
    with h5py.File(write_measurement(frames)) as old, h5py.File(path, "w", libver=request.param) as new:
        new.attrs.update(old.attrs)
        old.copy("events", new)
    return path


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"locking": True},
        {"locking": False},
        {"locking": "best-effort"},
        {"swmr": True, "libver": "latest"},
        {"swmr": True, "libver": "latest", "locking": False},
    ],
)
def test_open_for_reading_is_no_obstacle(path, frames, how):
    """However a file is open for reading in this process, it can be read once more, and stays open."""
    with h5py.File(path, "r", **how) as theirs:
        with HDF5Data(path) as data:
            assert np.array_equal(data.check_frames()[:], frames)
        assert np.array_equal(theirs["events/image"][:], frames)


def test_measurement_that_a_notebook_has_open_is_processed(path):
    """A whole job, with workers that read the file themselves."""
    try:
        with h5py.File(path):
            result = process_measurement(Job(path, path.with_name("result.rtdc"), num_workers=1))
        assert result.outcome == "done"
    finally:
        engine.close()


@pytest.mark.parametrize(("mode", "locking"), [("r+", "best-effort"), ("a", True)])
def test_open_for_writing_is_named(path, mode, locking):
    """What this process writes is not called damaged, and may be processed when it is closed."""
    with h5py.File(path, mode, locking=locking), pytest.raises(MeasurementError, match="in this process") as caught:
        HDF5Data(path)
    assert (caught.value.reason, caught.value.transient) == ("being_written", True)
    with HDF5Data(path) as data:
        data.check_frames()


@pytest.mark.parametrize("path", ["latest"], indirect=True)
def test_writer_that_lets_others_read_is_named(path):
    """So is one in SWMR mode, which needs the new format."""
    with h5py.File(path, "r+", libver="latest") as theirs:
        theirs.swmr_mode = True
        with pytest.raises(MeasurementError, match="open for writing in this process") as caught:
            HDF5Data(path)
    assert caught.value.reason == "being_written"
