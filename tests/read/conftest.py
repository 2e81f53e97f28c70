"""Measurements made with bare h5py."""

from __future__ import annotations

import contextlib
import shutil

import h5py
import numpy as np
import pytest
from dcnum import read as dcnum_read


@pytest.fixture(scope="session")
def frames():
    """Return 43 compressible frames of 250 by 80 pixels, which nobody changes."""
    rng = np.random.default_rng(4)
    drawn = (rng.integers(0, 12, (43, 80, 250)) + np.arange(250) // 4).astype(np.uint8)
    drawn.flags.writeable = False
    return drawn


@pytest.fixture
def write_measurement(tmp_path):
    """Return a function that writes a measurement; keywords go to the creation of events/image."""

    def write(frames, name="measurement.rtdc", attributes=None, features=None, **layout):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        with h5py.File(path, "w") as h5:
            if frames is not None:
                h5.create_dataset("events/image", data=frames, **layout)
                h5.attrs["experiment:event count"] = len(frames)
            h5.attrs["imaging:pixel size"] = 0.34
            h5.attrs["experiment:run identifier"] = "test-run"
            for key, value in (attributes or {}).items():
                h5.attrs[key] = value
            for key, value in (features or {}).items():
                h5[f"events/{key}"] = value
        return path

    return write


@pytest.fixture
def open_in_dcnum(tmp_path_factory):
    """Return a function that opens a copy of a measurement in dcnum.

    HDF5 refuses to open one file with two kinds of locking in a process. Neighbours are copied, too: basins.
    """
    with contextlib.ExitStack() as stack:

        def open_copy(path, **kwargs):
            folder = tmp_path_factory.mktemp("dcnum")
            shutil.copytree(path.parent, folder, dirs_exist_ok=True)
            return stack.enter_context(dcnum_read.HDF5Data(folder / path.name, **kwargs))

        yield open_copy
