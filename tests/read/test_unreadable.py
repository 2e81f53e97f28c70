"""Faults of the way to a file, as opposed to those of the file."""

from __future__ import annotations

import errno
import json
import pathlib
import subprocess
import sys

import h5py
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
PRELUDE = """
import json, pathlib, sys
import numpy as np
from dcnumd.daemon.measurements.probe import load, look
from dcnumd.errors import DcnumdError
from dcnumd.logic.job import Job
from dcnumd.read.frame_reader import FrameReader
from dcnumd.read.frame_reader import FrameSource
from dcnumd.read.hdf5_data import HDF5Data
from tests.support.faulty_reads import fail_reads
load()
path, first_byte, number = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
try:
"""
END = """
    print(json.dumps(["", False, ""]))
except DcnumdError as error:
    print(json.dumps([error.reason, error.transient, str(error)]))
"""
SCALARS = """
    fail_reads(first_byte, number)
    with HDF5Data(path) as data:
        data.check_frames(), data["time"], data.logs, data.tables
"""
FRAMES = """
    with HDF5Data(path) as data:
        source = FrameSource.of(data.check_frames())
    with FrameReader(source) as reader:
        fail_reads(first_byte, number)
        reader.read_into(0, source.frame_count, np.empty((source.frame_count, *source.frame_shape), np.uint8))
"""
LOOK = """
    fail_reads(first_byte, number)
    look(Job(path, path.with_name("result.rtdc")))
"""


def outcome(steps, path, first_byte, number):
    """Return reason, transience and message of what is done in a process whose reads fail from a byte on."""
    command = [sys.executable, "-c", PRELUDE + steps + END, str(path), str(first_byte), str(number)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def path(write_measurement, frames):
    """Return a measurement in which metadata, frames and times come one after the other."""
    path = write_measurement(frames, compression="lzf", chunks=(5, 80, 250))
    with h5py.File(path, "a") as h5:
        h5.create_dataset("logs/one", data=np.array([b"x" * 5000]))
        h5["events/time"] = np.arange(43.0)
    return path


@pytest.mark.parametrize(
    ("steps", "number"),
    [
        (SCALARS, errno.EIO),
        (SCALARS, errno.ESTALE),
        (SCALARS, errno.ENOTCONN),
        (SCALARS, errno.ETIMEDOUT),
        (FRAMES, errno.EIO),
        (LOOK, errno.ESTALE),
    ],
)
@pytest.mark.parametrize("first_byte", [0, 600, 20000])
def test_reads_that_fail_are_tried_again(path, number, steps, first_byte):
    """Whichever part of a file cannot be read just now, the file is not called damaged."""
    reason, transient, message = outcome(steps, path, first_byte, number)
    assert (reason, transient) == ("unreadable", True), message
    assert str(path) in message


def test_reads_that_do_not_fail_are_fine(path):
    """The filter of these tests does nothing else."""
    for steps in (SCALARS, FRAMES, LOOK):
        assert outcome(steps, path, 2**31, errno.EIO)[0] == ""


def test_damage_is_not_tried_again(path):
    """What the system reads, and HDF5 cannot make sense of, stays as it is."""
    with h5py.File(path) as h5:
        place = h5["events/image"].id.get_chunk_info(3).byte_offset
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(b"\xff" * 500)
    reason, transient, _ = outcome(FRAMES, path, 2**31, errno.EIO)
    assert (reason, transient) == ("damaged", False)
