"""The look into a file before it becomes a job."""

from __future__ import annotations

import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest

from dcnumd.config import Settings
from dcnumd.daemon.probe import look, read_superblock
from dcnumd.errors import MeasurementError


@pytest.fixture(params=["earliest", "v110", "latest"])
def libver(request):
    """HDF5 writes superblock version 0 or 3, by what it may use."""
    return request.param


def head_of(path):
    return path.read_bytes()[:96]


def writer_that_hangs(path, libver):
    """Start a process that has `path` open for writing, after a flush."""
    script = (
        "import sys, h5py, numpy as np\n"
        "h5 = h5py.File(sys.argv[1], 'w', libver=sys.argv[2])\n"
        "h5['events/image'] = np.ones((5, 4, 6), 'u1')\n"
        "h5.flush()\n"
        "print('open', flush=True)\n"
        "sys.stdin.readline()\n"
        "h5.close()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path), libver], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "open\n"
    return process


def test_superblock_tells_a_closed_file(tmp_path, libver):
    """A file that was closed is not open for writing and is as long as it says."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=libver) as h5:
        h5["x"] = np.zeros(1000)
    superblock = read_superblock(head_of(path))
    assert not superblock.open_for_writing
    assert superblock.end_of_file == path.stat().st_size


def test_superblock_tells_a_writer(tmp_path, libver):
    """A file that somebody writes, or was killed while writing, is marked."""
    path = tmp_path / "a.rtdc"
    with writer_that_hangs(path, libver) as writer:
        assert read_superblock(head_of(path)).open_for_writing
        assert look(Settings().job_for(path, "")).verdict == "open_for_writing"
        writer.send_signal(signal.SIGKILL)
    assert read_superblock(head_of(path)).open_for_writing


def test_looking_does_not_disturb_the_writer(tmp_path, libver):
    """A writer that HDF5 protects by its default lock goes on while its file is looked at."""
    path = tmp_path / "a.rtdc"
    with writer_that_hangs(path, libver) as writer:
        look(Settings().job_for(path, ""))
        writer.stdin.write("\n")
        writer.stdin.flush()
        assert writer.wait(30) == 0


def test_partial_copy_is_truncated(tmp_path, measurement, libver):
    """A copy that is two thirds there is shorter than its superblock says."""
    whole, part = tmp_path / "whole.h5", tmp_path / "part.rtdc"
    with h5py.File(whole, "w", libver=libver) as h5:
        h5["events/image"] = np.ones((50, 40, 60), "u1")
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    assert look(Settings().job_for(part, "")).verdict == "truncated"


def test_complete_measurement_is_known_by_content_and_pipeline(tmp_path, measurement):
    """A sound file has an identity, and a pipeline that follows from the settings."""
    first, second = tmp_path / "a.rtdc", tmp_path / "b.rtdc"
    measurement(first, seed=1)
    measurement(second, seed=2)
    found = [look(Settings().job_for(path, "")) for path in (first, first, second)]
    assert [one.verdict for one in found] == ["complete"] * 3
    assert found[0] == found[1]
    assert found[0].content != found[2].content
    assert found[0].pphash == found[2].pphash
    assert (found[0].frames, found[0].content.size) == (60, first.stat().st_size)


@pytest.mark.parametrize("content", [b"", b"no", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(200), bytes(5000)])
def test_what_is_not_hdf5_is_refused_with_a_reason(tmp_path, content):
    """Garbage, also when it begins like HDF5, ends as a foreseen fault that names the file."""
    path = tmp_path / "a.rtdc"
    path.write_bytes(content)
    with pytest.raises(MeasurementError, match=r"a\.rtdc") as failure:
        look(Settings().job_for(path, ""))
    assert failure.value.reason != "error"


def test_missing_file_has_vanished(tmp_path):
    """A file that is gone is no failure of the file."""
    with pytest.raises(MeasurementError) as failure:
        look(Settings().job_for(tmp_path / "a.rtdc", ""))
    assert failure.value.reason == "vanished"


@pytest.mark.parametrize("length", [0, 8, 11, 23, 40, 95])
def test_short_head_is_no_superblock_or_a_whole_one(tmp_path, length, libver):
    """No cut leads to a wrong reading."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=libver) as h5:
        h5["x"] = np.zeros(10)
    whole = read_superblock(head_of(path))
    assert read_superblock(head_of(path)[:length]) in {None, whole}


def test_unreadable_folder_entry_is_a_foreseen_fault(tmp_path):
    """A pipe or socket under a measurement's name does not block or crash the look."""
    path = tmp_path / "a.rtdc"
    path.mkdir()
    with pytest.raises(MeasurementError):
        look(Settings().job_for(path, ""))
    assert not list(path.iterdir())
