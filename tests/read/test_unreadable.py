"""Faults of the way to a file, as opposed to those of the file."""

from __future__ import annotations

import errno
import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence

import h5py
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
CODE = """
import json, os, pathlib, sys
import numpy as np
from dcnumd.daemon.measurements.probe import load, inspect_file
from dcnumd.errors import DcnumdError
from dcnumd.logic.job import Job
from dcnumd.read.frame_reader import FrameReader
from dcnumd.read.frame_reader import FrameSource
from dcnumd.read.hdf5_data import HDF5Data
from tests.support.faulty_reads import fail_reads

path = pathlib.Path(sys.argv[1])

def scalars(*fault):
    fail_reads(*fault)
    with HDF5Data(path) as data:
        data.check_frames(), data["time"], data.logs, data.tables

def frames(*fault):
    with HDF5Data(path) as data:
        source = FrameSource.of(data.check_frames())
    with FrameReader(source) as reader:
        fail_reads(*fault)
        reader.read_into(0, source.frame_count, np.empty((source.frame_count, *source.frame_shape), np.uint8))

def look_inside(*fault):
    fail_reads(*fault)
    inspect_file(Job(path, path.with_name("result.rtdc")))

def outcome(steps, *fault):
    try:
        globals()[steps](*fault)
    except DcnumdError as error:
        return error.reason, error.transient, str(error)
    return "", False, ""

load()
for case in json.loads(sys.argv[2]):
    if (child := os.fork()) == 0:
        print(json.dumps(outcome(*case)), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
NEVER = 2**31


def outcomes(path: pathlib.Path, cases: Sequence[tuple[str, int, int]]) -> list[tuple[str, bool, str]]:
    """Return reason, transience and message of what is done in processes whose reads fail from a byte on.

    Each case says what is done (`scalars`, `frames` or `look_inside`), the byte, and the number of the error.
    """
    command = [sys.executable, "-c", CODE, str(path), json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)
    found = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    assert (done.returncode, len(found)) == (0, len(cases)), done.stderr
    return found


@pytest.fixture
def path(write_measurement, frames):
    """Return a measurement in which metadata, frames and times come one after the other."""
    path = write_measurement(frames, compression="lzf", chunks=(5, 80, 250))
    with h5py.File(path, "a") as h5:
        h5.create_dataset("logs/one", data=np.array([b"x" * 5000]))
        h5["events/time"] = np.arange(43.0)
    return path


def test_reads_that_fail_are_tried_again(path):
    """Whichever part of a file cannot be read just now, the file is not called damaged; else nothing is amiss."""
    usual = [("scalars", number) for number in (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT)]
    failing = [*usual, ("frames", errno.EIO), ("look_inside", errno.ESTALE)]
    cases = [(steps, first_byte, number) for steps, number in failing for first_byte in (0, 600, 20000)]
    sound = [(steps, NEVER, errno.EIO) for steps in ("scalars", "frames", "look_inside")]
    found = outcomes(path, [*cases, *sound])
    for case, (reason, transient, message) in zip(cases, found[: len(cases)], strict=True):
        assert (reason, transient) == ("unreadable", True), (case, message)
        assert str(path) in message
    assert found[len(cases) :] == [("", False, "")] * len(sound), "the filter of these tests does nothing else"


def test_damage_is_not_tried_again(path):
    """What the system reads, and HDF5 cannot make sense of, stays as it is."""
    with h5py.File(path) as h5:
        place = h5["events/image"].id.get_chunk_info(3).byte_offset
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(b"\xff" * 500)
    ((reason, transient, _),) = outcomes(path, [("frames", NEVER, errno.EIO)])
    assert (reason, transient) == ("damaged", False)
