"""The look into a file that another program has open."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys

import h5py
import pytest

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.measurements.probe import inspect_file, is_locked_for_writing
from dcnumd.read.open_file import open_measurement
from dcnumd.read.superblock import HEAD_BYTES, read_superblock
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement
from tests.support.disks import mounted

WRITERS = """
import json, os, sys, h5py, numpy as np

def write(path, libver, locking, flush, swmr):
    h5 = h5py.File(path, "w", libver=libver, **({} if locking else {"locking": False}))
    image = h5.create_dataset("events/image", data=np.ones((5, 4, 6), "u1"), maxshape=(None, 4, 6), chunks=(5, 4, 6))
    h5.attrs["imaging:pixel size"] = 0.34
    if flush:
        h5.flush()
    if swmr:
        h5.swmr_mode = True
    print(os.getpid(), flush=True)
    sys.stdin.readline()
    image.resize(10, axis=0)
    image[5:] = 7
    h5.close()

def read(path):
    h5 = h5py.File(path)
    print(os.getpid(), flush=True)
    sys.stdin.readline()

for line in sys.stdin:
    if not (child := os.fork()):
        name, *arguments = json.loads(line)
        {"write": write, "read": read}[name](*arguments)
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Writers:
    """Other programs that have a file open, one at a time; they are forked, because importing HDF5 takes long."""

    def __init__(self, process):
        self._process = process

    def tell(self, line=""):
        """Write a line to the other program, and return what it answers."""
        print(line, file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    @contextlib.contextmanager
    def holding(self, *arguments, kill=False):
        """Have a file open in this block; at its end the other program closes the file or is killed."""
        pid = self.tell(json.dumps(arguments))
        try:
            yield
        finally:
            if kill:
                os.kill(pid, signal.SIGKILL)
            ended = int(self._process.stdout.readline()) if kill else self.tell()
        assert ended == (signal.SIGKILL if kill else 0)

    def writing(self, path, libver, *, locking=True, flush=True, swmr=False, kill=True):
        """Have a new file open for writing in this block; then more is appended, or the writer is killed."""
        return self.holding("write", str(path), libver, locking, flush, swmr, kill=kill)


@pytest.fixture(scope="module")
def writers():
    command = [sys.executable, "-c", WRITERS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Writers(process)
        process.stdin.close()
        assert process.wait(30) == 0


def verdict(path):
    return inspect_file(routing.job_for(Settings(), path, "")).verdict


def clear_flags(path):
    """Make a superblock of version 0 as older libraries leave it: nothing tells of a writer."""
    with path.open("r+b") as stream:
        stream.seek(20)
        stream.write(bytes(4))


@pytest.mark.parametrize("locking", [True, False])
@pytest.mark.parametrize("flush", [True, False])
@pytest.mark.parametrize("libver", ["earliest", "v110", "latest"])
def test_writer_is_seen_in_every_state(tmp_path, writers, libver, locking, flush):
    """Whatever locks it takes and however little is on disk yet; the flag stays when it is killed."""
    path = tmp_path / "a.rtdc"
    with writers.writing(path, libver, locking=locking, flush=flush):
        found = verdict(path)
    # without lock and flush, the file only shows that it is too short
    assert found == "open_for_writing" or (found == "truncated" and not locking and not flush)
    # what was not flushed is missing
    assert verdict(path) in ({"open_for_writing"} if flush else {"open_for_writing", "truncated"})
    assert not flush or read_superblock(path.read_bytes()[:HEAD_BYTES]).open_for_writing


@pytest.mark.parametrize("libver", ["v110", "latest"])
def test_swmr_writer_is_seen(tmp_path, writers, libver):
    """A writer that lets others read holds no lock; the flag is set while it lives, and after it was killed."""
    path = tmp_path / "a.rtdc"
    with writers.writing(path, libver, swmr=True):
        assert verdict(path) == "open_for_writing"
    assert verdict(path) == "open_for_writing"


def test_writer_without_a_flag_is_seen_by_its_lock(tmp_path, writers):
    """Older libraries set no flag; their lock is read from the system's table, not tried."""
    path = tmp_path / "a.rtdc"
    with writers.writing(path, "earliest"):
        clear_flags(path)
        assert verdict(path) == "open_for_writing"
    assert verdict(path) != "open_for_writing"


def test_readers_are_no_writers(tmp_path, writers, measurement):
    """Other programs may read a measurement, with HDF5's default lock, while it is looked at."""
    path = tmp_path / "a.rtdc"
    measurement(path)
    with writers.holding("read", str(path)):
        assert verdict(path) == "complete"


def test_table_of_locks_is_read_line_by_line(tmp_path):
    """Only a lock for writing on this very file counts, and no one that waits for it."""
    status = tmp_path.stat()
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"

    def locked(line):
        return is_locked_for_writing(line, status, status.st_dev)

    assert locked(f"1: FLOCK  ADVISORY  WRITE 4711 {place} 0 EOF\n")
    assert locked(f"1: OFDLCK ADVISORY  WRITE -1 {place} 0 EOF\n")
    assert not locked(f"1: -> FLOCK  ADVISORY  WRITE 4711 {place} 0 EOF\n")
    assert not locked(f"1: FLOCK  ADVISORY  READ 4711 {place} 0 EOF\n")
    assert not locked(f"1: FLOCK  ADVISORY  WRITE 4711 {place}1 0 EOF\n")
    assert not locked("")


def test_locks_of_a_file_system_with_several_numbers(tmp_path):
    """As on btrfs: the table has the number of the file system, files have that of their subvolume."""
    (tmp_path / "ours").touch()
    (tmp_path / "other").touch()
    status, device = (tmp_path / "ours").stat(), os.makedev(0, 0x1F)
    line = f"3: FLOCK  ADVISORY  WRITE {{}} 00:1f:{status.st_ino} 0 EOF\n"
    with (tmp_path / "other").open():
        assert not is_locked_for_writing(line.format(os.getpid()), status, device)
        assert not is_locked_for_writing(line.format(os.getpid()), status, os.makedev(0, 0x20))
    with (tmp_path / "ours").open():
        assert is_locked_for_writing(line.format(os.getpid()), status, device)
    # nobody can say what these have open
    assert is_locked_for_writing(line.format(-1), status, device)
    assert is_locked_for_writing(line.format(2**22 + 1), status, device)


@pytest.mark.parametrize("layer", ["upper", "lower"])
def test_writer_is_seen_on_an_overlay(layer, tmp_path):
    """As in a container: files say another number than the table of locks, and two layers have the same inodes."""
    folders = [tmp_path / name for name in ("first", "second")]
    with mounted(folders[0], "size=3m") as lower, mounted(folders[1], "size=3m") as upper:
        for folder in (lower / "files", lower / "work", upper / "files", upper / "work"):
            folder.mkdir()
        names = {"lower": lower / "files" / "a.rtdc", "upper": upper / "files" / "b.rtdc"}
        for path in names.values():
            write_measurement(path, MeasurementSpec(size=(40, 80), frames=60))
        assert len({path.stat().st_ino for path in names.values()}) == 1, "both are the first file of their disk"
        options = f"lowerdir={lower / 'files'},upperdir={upper / 'files'},workdir={upper / 'work'}"
        with mounted(tmp_path / "merged", options, "overlay") as merged:
            paths = {name: merged / path.name for name, path in names.items()}
            assert {verdict(path) for path in paths.values()} == {"complete"}
            script = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(); input()"
            command = [sys.executable, "-c", script, str(paths[layer])]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
                assert writer.stdout.readline() == "\n"
                found = {name: verdict(path) for name, path in paths.items()}
                writer.communicate("\n")
            assert found.pop(layer) == "open_for_writing"
            assert list(found.values()) == ["complete"]


@pytest.mark.parametrize("locking", [True, False])
@pytest.mark.parametrize(
    # SWMR needs a newer superblock
    ("libver", "swmr"),
    [("earliest", False), ("v110", False), ("v110", True), ("latest", False), ("latest", True)],
)
def test_looking_does_not_disturb_the_writer(tmp_path, writers, libver, locking, swmr):
    """A writer that HDF5 protects by its default lock goes on while its file is looked at."""
    path = tmp_path / "a.rtdc"
    with writers.writing(path, libver, locking=locking, swmr=swmr, kill=False):
        verdict(path)
    with h5py.File(path) as h5:
        assert h5["events/image"].shape == (10, 4, 6)


def test_looking_takes_no_lock(tmp_path, measurement):
    """While a measurement is open here, the system's table of locks has nothing of it."""
    path = tmp_path / "a.rtdc"
    measurement(path)
    with open_measurement(path):
        place = f":{path.stat().st_ino} "
        assert place not in pathlib.Path("/proc/locks").read_text()
