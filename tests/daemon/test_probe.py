"""The look into a file before it becomes a job."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import struct
import subprocess
import sys

import h5py
import hdf5plugin
import numpy as np
import pytest

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.daemon.measurements.probe import is_locked_for_writing, look
from dcnumd.errors import MeasurementError
from dcnumd.read.open_file import open_measurement
from dcnumd.read.superblock import HEAD_BYTES, read_superblock
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement
from tests.support.disks import mounted


@pytest.fixture(params=["earliest", "v110", "latest"])
def libver(request):
    """HDF5 writes superblock version 0 or 3, by what it may use."""
    return request.param


WRITER = """
import sys, h5py, numpy as np
path, libver, locking, flush, swmr = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
h5 = h5py.File(path, "w", libver=libver, **({} if locking else {"locking": False}))
image = h5.create_dataset("events/image", data=np.ones((5, 4, 6), "u1"), maxshape=(None, 4, 6), chunks=(5, 4, 6))
h5.attrs["imaging:pixel size"] = 0.34
if flush:
    h5.flush()
if swmr:
    h5.swmr_mode = True
print("open", flush=True)
sys.stdin.readline()
image.resize(10, axis=0)
image[5:] = 7
h5.close()
"""


def writer_that_hangs(path, libver, *, locking=True, flush=True, swmr=False):
    """Start a process that has `path` open for writing; a line makes it append and close."""
    options = [str(path), libver, *(str(int(option)) for option in (locking, flush, swmr))]
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "open\n"
    return process


def verdict(path):
    return look(routing.job_for(Settings(), path, "")).verdict


def clear_flags(path):
    """Make a superblock of version 0 as older libraries leave it: nothing tells of a writer."""
    with path.open("r+b") as stream:
        stream.seek(20)
        stream.write(bytes(4))


@pytest.mark.parametrize("locking", [True, False])
@pytest.mark.parametrize("flush", [True, False])
def test_writer_is_seen_in_every_state(tmp_path, libver, locking, flush):
    """A file that somebody writes is not complete, whatever locks are taken and however little is on disk yet."""
    path = tmp_path / "a.rtdc"
    with writer_that_hangs(path, libver, locking=locking, flush=flush) as writer:
        found = verdict(path)
        writer.send_signal(signal.SIGKILL)
    # without lock and flush, the file only shows that it is too short
    assert found == "open_for_writing" or (found == "truncated" and not locking and not flush)


@pytest.mark.parametrize("flush", [True, False])
def test_file_of_a_killed_writer_is_not_complete(tmp_path, libver, flush):
    """The flag stays when a recording was cut off; what was not flushed is missing."""
    path = tmp_path / "a.rtdc"
    with writer_that_hangs(path, libver, flush=flush) as writer:
        writer.send_signal(signal.SIGKILL)
    assert verdict(path) in ({"open_for_writing"} if flush else {"open_for_writing", "truncated"})
    assert not flush or read_superblock(path.read_bytes()[:HEAD_BYTES]).open_for_writing


@pytest.mark.parametrize("libver", ["v110", "latest"])
def test_swmr_writer_is_seen(tmp_path, libver):
    """A writer that lets others read holds no lock; the flag is set while it lives, and after it was killed."""
    path = tmp_path / "a.rtdc"
    with writer_that_hangs(path, libver, swmr=True) as writer:
        assert verdict(path) == "open_for_writing"
        writer.send_signal(signal.SIGKILL)
    assert verdict(path) == "open_for_writing"


def test_writer_without_a_flag_is_seen_by_its_lock(tmp_path):
    """Older libraries set no flag; their lock is read from the system's table, not tried."""
    path = tmp_path / "a.rtdc"
    with writer_that_hangs(path, "earliest") as writer:
        clear_flags(path)
        assert verdict(path) == "open_for_writing"
        writer.send_signal(signal.SIGKILL)
    assert verdict(path) != "open_for_writing"


def test_readers_are_no_writers(tmp_path, measurement):
    """Other programs may read a measurement, with HDF5's default lock, while it is looked at."""
    path = tmp_path / "a.rtdc"
    measurement(path)
    script = "import sys, h5py; h5 = h5py.File(sys.argv[1]); print('open', flush=True); sys.stdin.readline()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout.readline() == "open\n"
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
@pytest.mark.parametrize("swmr", [True, False])
def test_looking_does_not_disturb_the_writer(tmp_path, libver, locking, swmr):
    """A writer that HDF5 protects by its default lock goes on while its file is looked at."""
    if swmr and libver == "earliest":
        pytest.skip("SWMR needs a newer superblock")
    path = tmp_path / "a.rtdc"
    with writer_that_hangs(path, libver, locking=locking, swmr=swmr) as writer:
        verdict(path)
        writer.stdin.write("\n")
        writer.stdin.flush()
        assert writer.wait(30) == 0
    with h5py.File(path) as h5:
        assert h5["events/image"].shape == (10, 4, 6)


def test_looking_takes_no_lock(tmp_path, measurement):
    """While a measurement is open here, the system's table of locks has nothing of it."""
    path = tmp_path / "a.rtdc"
    measurement(path)
    with open_measurement(path):
        place = f":{path.stat().st_ino} "
        assert place not in pathlib.Path("/proc/locks").read_text()


LAYOUTS = {
    "contiguous": {},
    "chunked": {"chunks": (8, 48, 96)},
    "gzip": {"chunks": (8, 48, 96), "compression": "gzip"},
    "zstd": {"chunks": (8, 48, 96), **hdf5plugin.Zstd()},
    "checksum": {"chunks": (8, 48, 96), "fletcher32": True},
    "zstd and checksum": {"chunks": (8, 48, 96), "fletcher32": True, **hdf5plugin.Zstd()},
    "small chunks": {"chunks": (1, 48, 96), "compression": "gzip", "shuffle": True},
}


@pytest.fixture(params=LAYOUTS)
def whole(request, tmp_path, measurement, libver):
    """Return a sound measurement with the frames in some layout, written last."""
    source, path = tmp_path / "source.h5", tmp_path / "whole.h5"
    measurement(source)
    with h5py.File(source) as old, h5py.File(path, "w", libver=libver) as new:
        new.attrs.update(old.attrs)
        for name in ("time", "frame"):
            new[f"events/{name}"] = old[f"events/{name}"][:]
        new.create_dataset("events/image", data=old["events/image"][:], **LAYOUTS[request.param])
    return path


def test_copy_that_took_its_space_first_is_blank(whole, tmp_path):
    """As long as the end of a copy is zeros it waits, although it has its size; with the last byte it is complete."""
    content = whole.read_bytes()
    path = tmp_path / "copy.rtdc"
    found = []
    for part in (0, 0.1, 0.3, 0.5, 0.7, 0.85):
        kept = int(len(content) * part)
        path.write_bytes(content[:kept] + bytes(len(content) - kept))
        found.append(verdict(path))
    assert set(found) == {"blank"}
    path.write_bytes(content)
    assert verdict(path) == "complete"


def test_hole_in_the_middle_is_blank(whole, tmp_path):
    """Tools that copy with several hands leave large holes anywhere."""
    content = bytearray(whole.read_bytes())
    with h5py.File(whole) as h5:
        image = h5["events/image"].id
        first = image.get_offset() if h5["events/image"].chunks is None else image.get_chunk_info(0).byte_offset
    hole = slice(first + (len(content) - first) // 3, first + (len(content) - first) * 2 // 3)
    content[hole] = bytes(hole.stop - hole.start)
    path = tmp_path / "copy.rtdc"
    path.write_bytes(content)
    with contextlib.suppress(MeasurementError):
        assert verdict(path) == "blank"


def test_dark_frames_are_not_blank(tmp_path, measurement):
    """Lost frames that a camera gives as zeros, and dark parts of frames, are no reason to wait."""
    path = tmp_path / "a.rtdc"
    for layout in LAYOUTS.values():
        measurement(path)
        with h5py.File(path, "a") as h5:
            images = h5["events/image"][:]
            images[[0, 20, 40, 59]] = 0
            images[:, :20] = 0
            del h5["events/image"]
            h5.create_dataset("events/image", data=images, **layout)
        assert verdict(path) == "complete"


def test_frames_that_were_never_written_are_blank(tmp_path, measurement):
    """HDF5 gives zeros for chunks that do not exist."""
    path = tmp_path / "a.rtdc"
    measurement(path)
    with h5py.File(path, "a") as h5:
        images = h5["events/image"][:]
        del h5["events/image"]
        image = h5.create_dataset("events/image", images.shape, "u1", chunks=(8, 48, 96))
        image[:50] = images[:50]
    assert verdict(path) == "blank"


@pytest.mark.parametrize(
    "name",
    [
        "fmt-hdf5_cytoshot_full-features_2023",
        "fmt-hdf5_cytoshot_full-features_2024",
        "fmt-hdf5_shapein_raw-with-variable-length-logs",
    ],
)
def test_real_measurements_are_complete(shared_data, name):
    """What instruments have recorded does not look as if it was cut off."""
    assert verdict(shared_data(name)) == "complete"


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd-5"])
@pytest.mark.parametrize("chunk", [0, 1, 7])
def test_simulated_measurements_are_complete(tmp_path, compression, chunk):
    """Nor do simulated ones."""
    path = tmp_path / "a.rtdc"
    spec = MeasurementSpec(frames=60, size=(48, 96), compression=compression, chunk=chunk)
    write_measurement(path, spec)
    assert verdict(path) == "complete"


def test_empty_file_is_waited_for(tmp_path):
    """A file without a byte is the beginning of one."""
    path = tmp_path / "a.rtdc"
    path.touch()
    assert verdict(path) == "truncated"


def test_pipe_is_refused(tmp_path):
    """A pipe under a measurement's name, which nobody writes to, is not waited for."""
    path = tmp_path / "a.rtdc"
    os.mkfifo(path)
    with pytest.raises(MeasurementError) as failure:
        verdict(path)
    assert (failure.value.reason, failure.value.transient) == ("unreadable", False)


def test_absurd_length_of_a_text_takes_no_memory(tmp_path, measurement):
    """HDF5 makes room for a text before it looks whether there is one of that length; the look does not let it."""
    path = tmp_path / "a.rtdc"
    measurement(path)
    with h5py.File(path, "a") as h5:
        h5.attrs["setup:text"] = "x" * 1234
        h5["events/deform"] = np.ones(60)
    content = bytearray(path.read_bytes())
    # the last heap of texts is the one that this text is in
    place = content.index(struct.pack("<IQ", 1234, content.rindex(b"GCOL")))
    content[place : place + 4] = struct.pack("<I", 2**31 - 1)
    path.write_bytes(content)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    # nothing is computed with it, so it is left out
    assert verdict(path) == "complete"
    status = pathlib.Path("/proc/self/status").read_text()
    assert int(status.partition("VmHWM:")[2].split()[0]) < 1_000_000


def test_endless_loop_in_hdf5_ends_the_process(tmp_path, measurement):
    """A heap of texts that was zeroed lets HDF5 turn in circles; the look ends itself, so that others go on."""
    path = tmp_path / "a.rtdc"
    measurement(path)
    with h5py.File(path, "a") as h5:
        h5.attrs["setup:text"] = "some text of variable length"
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    content[heap + 16 : heap + 4096] = bytes(4080)
    path.write_bytes(content)
    script = (
        "import pathlib, sys\n"
        "from dcnumd.daemon.measurements import probe\n"
        "from dcnumd.logic.job import Job\n"
        "probe.load()\n"
        "probe.CPU_SECONDS = 0.5\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "probe.look(Job(path, path.with_name('out.rtdc')))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], timeout=60, check=False)
    assert done.returncode == -signal.SIGVTALRM


def test_partial_copy_is_truncated(tmp_path, measurement, libver):
    """A copy that is two thirds there is shorter than its superblock says."""
    whole, part = tmp_path / "whole.h5", tmp_path / "part.rtdc"
    with h5py.File(whole, "w", libver=libver) as h5:
        h5["events/image"] = np.ones((50, 40, 60), "u1")
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    assert look(routing.job_for(Settings(), part, "")).verdict == "truncated"


def test_complete_measurement_is_known_by_content_and_pipeline(tmp_path, measurement):
    """A sound file has an identity, and a pipeline that follows from the settings."""
    first, second = tmp_path / "a.rtdc", tmp_path / "b.rtdc"
    measurement(first, seed=1)
    measurement(second, seed=2)
    found = [look(routing.job_for(Settings(), path, "")) for path in (first, first, second)]
    assert [one.verdict for one in found] == ["complete"] * 3
    assert found[0] == found[1]
    assert found[0].content != found[2].content
    assert found[0].pphash == found[2].pphash
    assert (found[0].frames, found[0].content.size) == (60, first.stat().st_size)


@pytest.mark.parametrize("content", [b"no", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(200), b"x" * 5000])
def test_what_is_not_hdf5_is_refused_with_a_reason(tmp_path, content):
    """Garbage, also when it begins like HDF5, ends as a foreseen fault that names the file."""
    path = tmp_path / "a.rtdc"
    path.write_bytes(content)
    with pytest.raises(MeasurementError, match=r"a\.rtdc") as failure:
        look(routing.job_for(Settings(), path, ""))
    assert failure.value.reason != "error"


def test_missing_file_has_vanished(tmp_path):
    """A file that is gone is no failure of the file."""
    with pytest.raises(MeasurementError) as failure:
        look(routing.job_for(Settings(), tmp_path / "a.rtdc", ""))
    assert failure.value.reason == "vanished"


def test_unreadable_folder_entry_is_a_foreseen_fault(tmp_path):
    """A pipe or socket under a measurement's name does not block or crash the look."""
    path = tmp_path / "a.rtdc"
    path.mkdir()
    with pytest.raises(MeasurementError):
        look(routing.job_for(Settings(), path, ""))
    assert not list(path.iterdir())
