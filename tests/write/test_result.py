"""A result is there completely, or not at all."""

from __future__ import annotations

import errno
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys

import h5py
import numpy as np
import pytest

from dcnumd.errors import JobCancelledError, ResultError
from dcnumd.write import result as result_module
from dcnumd.write.packed import create_packed
from dcnumd.write.result import ResultFile, remove_leftovers
from dcnumd.write.writer import HDF5Writer, dataset_keywords
from tests.support.disks import mounted

MAKER = """
import signal, sys
from dcnumd.write.result import ResultFile
from dcnumd.write.writer import HDF5Writer
with ResultFile(sys.argv[1], job_id="job-7") as result:
    with HDF5Writer(result.temporary, "w") as writer:
        writer.store_feature_chunk("deform", [1.0, 2.0])
    result.scratch.write_bytes(b"intermediate")
    print("there", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def maker(tmp_path):
    """Return a process that has a result under construction in a folder of its own, with a scratch file."""
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", MAKER, tmp_path / "out" / "M001_dcn.rtdc"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "there\n"
        yield process
        process.kill()


def publish(path, during=None, **keywords):
    """Make a result; `during` is called while it is under construction."""
    with ResultFile(path, **keywords) as result:
        result.temporary.write_bytes(b"ours")
        if during is not None:
            during()
        result.commit()


def test_result_appears_on_commit(tmp_path):
    """Until it is committed, only a hidden file exists, in the target folder, which is made if need be."""
    path = tmp_path / "new" / "folder" / "Messung 1 µ_dcn.rtdc"
    with ResultFile(path) as result:
        result.temporary.write_bytes(b"content")
        result.scratch.write_bytes(b"intermediate")
        names = [name.name for name in path.parent.iterdir()]
        assert len(names) == 2
        assert all(name.startswith(".") and name.endswith(".rtdc~") for name in names)
        result.commit()
    assert path.read_bytes() == b"content"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, JobCancelledError, KeyboardInterrupt, SystemExit])
def test_result_leaves_nothing_after_an_error(tmp_path, error):
    """Whatever ends the work, nothing is left behind and the error is passed on."""

    def stop():
        raise error("stop")

    with pytest.raises(error):
        publish(tmp_path / "a.rtdc", stop)
    assert list(tmp_path.iterdir()) == []


def test_result_leaves_nothing_without_commit(tmp_path):
    """A block that ends without commit publishes nothing."""
    with ResultFile(tmp_path / "a.rtdc"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", ["fail", "skip"])
def test_result_never_replaces_uninvited(tmp_path, existing):
    """An existing file is refused at the start, and also when it appears during the work."""
    path = tmp_path / "a.rtdc"
    with pytest.raises(ResultError, match="already exists") as caught:
        publish(path, lambda: path.write_bytes(b"theirs"), existing=existing)
    assert caught.value.reason == "output_exists"
    with pytest.raises(ResultError, match="already exists"):
        publish(path, existing=existing)
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_result_replaces_when_told(tmp_path):
    """The old file is there until the new one is complete."""
    path = tmp_path / "a.rtdc"
    path.write_bytes(b"old")
    with ResultFile(path, existing="replace") as result:
        result.temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        result.commit()
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize(("durable", "synced"), [(True, ["file", "folder"]), (False, [])])
def test_result_waits_for_the_disk_unless_told(durable, synced, tmp_path, monkeypatch):
    """File and folder are flushed, in this order; what can be made again appears without."""
    seen = []

    def note(descriptor):
        seen.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    monkeypatch.setattr(os, "fsync", note)
    publish(tmp_path / "a.rtdc", durable=durable)
    assert seen == synced
    assert (tmp_path / "a.rtdc").read_bytes() == b"ours"
    assert len(list(tmp_path.iterdir())) == 1


def test_result_without_hard_links(tmp_path, monkeypatch):
    """On file systems without hard links the result is renamed, and still replaces nothing."""

    def refuse(*arguments, **keywords):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "a.rtdc"
    publish(path)
    assert list(tmp_path.iterdir()) == [path]
    path.unlink()
    with pytest.raises(ResultError, match="already exists"):
        publish(path, lambda: path.write_bytes(b"theirs"))
    assert path.read_bytes() == b"theirs"


def test_result_folder_that_cannot_be_made(tmp_path):
    """A folder that cannot be made is named."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResultError, match=r"file/a\.rtdc: cannot be written") as caught:
        publish(tmp_path / "file" / "a.rtdc")
    assert caught.value.reason == "output_folder"
    assert not caught.value.transient


def test_result_folder_that_vanishes(tmp_path):
    """A folder that goes away during the work (an unmounted share) may come back."""
    folder = tmp_path / "share"
    with pytest.raises(ResultError, match="No such file") as caught:
        publish(folder / "a.rtdc", lambda: shutil.rmtree(folder))
    assert (caught.value.reason, caught.value.transient) == ("output_unreachable", True)


def test_result_with_a_name_too_long(tmp_path):
    """A name that the file system does not take is the fault of that measurement, not of the folder."""
    with pytest.raises(ResultError, match="name too long") as caught:
        publish(tmp_path / ("x" * 251 + ".rtdc"))
    assert (caught.value.reason, caught.value.transient) == ("output_name", False)
    assert list(tmp_path.iterdir()) == []


def test_result_with_a_long_name(tmp_path):
    """A name as long as file systems allow has room for its temporary companion."""
    path = tmp_path / ("µ" * 122 + "abcdef.rtdc")
    publish(path)
    assert path.read_bytes() == b"ours"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError("Can't write data (file write failed: errno = 28, error message = 'No space left on device')"),
    ],
)
def test_full_disk_is_named(tmp_path, error):
    """A full disk, told by the system or by HDF5, is an error of its own that may pass."""

    def fail():
        raise error

    with pytest.raises(ResultError, match="no space left") as caught:
        publish(tmp_path / "a.rtdc", fail)
    assert (caught.value.reason, caught.value.transient) == ("no_space", True)
    assert list(tmp_path.iterdir()) == []


def fill_by_h5py(writer):
    """Write features through HDF5's filters and caches until the disk is full."""
    generator = np.random.default_rng(1)
    for number in range(1000):
        writer.store_feature_chunk(f"feature{number % 7}", generator.random(20_000))


def fill_by_chunks(writer):
    """Write packed chunks, past the filters, until the disk is full."""
    datasets = create_packed(writer, [(f"feature{number}", np.dtype(float), ()) for number in range(40)])
    for number in range(10_000):
        for dataset in datasets:
            dataset.write_chunk(number, os.urandom(2000))


def fill_at_the_end(writer):
    """Leave everything in HDF5's cache, so that it does not fit when the file is closed."""
    for number in range(20_000):
        writer.h5.create_group(f"groups/{number}")


@pytest.mark.slow
@pytest.mark.parametrize("fill", [fill_by_h5py, fill_by_chunks, fill_at_the_end])
def test_disk_that_fills_up_meanwhile(fill, tmp_path):
    """Wherever HDF5 meets the end of the disk: it is named, nothing is left, and HDF5 goes on working."""
    with mounted(tmp_path / "disk", "size=3m") as disk:
        open_before = h5py.h5f.get_obj_count()
        with (
            pytest.raises(ResultError, match="no space left") as caught,
            ResultFile(disk / "a.rtdc") as result,
            HDF5Writer(result.temporary, "w", ds_kwds=dataset_keywords("none")) as writer,
        ):
            fill(writer)
        assert (caught.value.reason, caught.value.transient) == ("no_space", True)
        assert list(disk.iterdir()) == []
        # the space is free again, which it would not be if somebody still had the file open
        (disk / "large").write_bytes(bytes(2**21))
    del caught, writer
    assert h5py.h5f.get_obj_count() == open_before
    with HDF5Writer(tmp_path / "b.rtdc", "w") as another:
        another.store_feature_chunk("deform", [1.0])


def test_read_only_folder_is_named(tmp_path):
    """A file system that cannot be written is told apart from a full one."""
    with mounted(tmp_path / "disk", "size=3m,ro") as disk:
        for path in (disk / "a.rtdc", disk / "new" / "a.rtdc"):
            with pytest.raises(ResultError, match="Read-only") as caught:
                publish(path)
            assert caught.value.reason == "output_read_only"


def test_leftovers_of_a_killed_process_are_removed(maker, tmp_path):
    """As long as the maker lives its files stay; when it is killed they go, and nothing else."""
    folder = tmp_path / "out"
    others = [folder / name for name in (".M001_dcn_output_host_1.rtdc~", ".hidden.rtdc~", "M001_dcn.rtdc")]
    for path in others:
        path.write_bytes(b"theirs")
    temporaries = sorted(set(folder.iterdir()) - set(others))
    assert len(temporaries) == 2
    assert all("job-7" in path.name for path in temporaries)
    assert remove_leftovers(folder) == []
    assert set(folder.iterdir()) == {*temporaries, *others}
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    assert remove_leftovers(folder) == temporaries
    assert set(folder.iterdir()) == set(others)
    assert remove_leftovers(folder) == []


def test_leftovers_are_kept_while_the_maker_is_stopped(maker, tmp_path):
    """A process that is held is not dead."""
    maker.send_signal(signal.SIGSTOP)
    try:
        assert remove_leftovers(tmp_path / "out") == []
    finally:
        maker.send_signal(signal.SIGCONT)


def test_leftovers_of_this_process_are_not_left(tmp_path):
    """HDF5 opening and closing the file does not free the lock."""
    with ResultFile(tmp_path / "a.rtdc") as result:
        with HDF5Writer(result.temporary, "w") as writer:
            writer.store_feature_chunk("deform", [1.0])
        with h5py.File(result.temporary, "r", locking=False):
            pass
        assert remove_leftovers(tmp_path) == []
        result.commit()
    assert remove_leftovers(tmp_path / "missing") == []


def test_leftovers_that_are_no_files_are_not_touched(tmp_path):
    """A pipe or a link with the name of a temporary file is neither opened nor followed for long."""
    (tmp_path / "target").write_bytes(b"theirs")
    (tmp_path / ".a_dcnumd-1-00000000.rtdc~").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / ".b_dcnumd-1-00000000.rtdc~")
    (tmp_path / ".c_dcnumd-1-00000000.rtdc~").mkdir()
    before = set(tmp_path.iterdir())
    assert remove_leftovers(tmp_path) == []
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("existing", ["fail", "skip", "replace"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "broken link"])
def test_name_that_is_taken_by_something_else(kind, existing, tmp_path):
    """A folder or a pipe is never replaced; a link is, and what it leads to is not touched."""
    path, target = tmp_path / "a.rtdc", tmp_path / "target"
    target.write_bytes(b"theirs")
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(target if kind == "link" else tmp_path / "nowhere")
    if existing == "replace" and "link" in kind:
        publish(path, existing=existing)
        assert path.read_bytes() == b"ours"
        assert not path.is_symlink()
    else:
        with pytest.raises(ResultError) as caught:
            publish(path, existing=existing)
        assert caught.value.reason == "output_exists"
    assert target.read_bytes() == b"theirs"


def test_links_do_not_lead_out_of_the_root(tmp_path):
    """A folder that is a link is taken as long as it stays inside; the way may not lead out of the root."""
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (root / "inside").mkdir(parents=True)
    elsewhere.mkdir()
    (root / "good").symlink_to(root / "inside")
    (root / "bad").symlink_to(elsewhere)
    publish(root / "good" / "new" / "a.rtdc", root=root)
    assert (root / "inside" / "new" / "a.rtdc").read_bytes() == b"ours"
    for path in (root / "bad" / "a.rtdc", root / "bad" / "new" / "a.rtdc"):
        with pytest.raises(ResultError, match="symbolic link leads out") as caught:
            publish(path, root=root)
        assert caught.value.reason == "outside"
    assert list(elsewhere.iterdir()) == []
    (tmp_path / "root link").symlink_to(root)
    publish(tmp_path / "root link" / "b.rtdc", root=tmp_path / "root link")


@pytest.mark.parametrize("flag", [result_module.RENAME_NOREPLACE, 1 << 20], ids=["rename once", "neither"])
@pytest.mark.parametrize("existing", ["fail", "skip"])
def test_without_hard_links_nothing_is_replaced(existing, flag, tmp_path, monkeypatch):
    """Where the file system has no hard links, and perhaps no other way, what came between stays."""

    def refuse(*_arguments, **_keywords):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(result_module, "RENAME_NOREPLACE", flag)
    path = tmp_path / "M_dcn.rtdc"
    publish(path, existing=existing)
    assert path.read_bytes() == b"ours"
    assert stat.S_IMODE(path.stat().st_mode) & 0o444
    path.unlink()
    with pytest.raises(ResultError) as caught:
        publish(path, lambda: path.write_bytes(b"theirs"), existing=existing)
    assert caught.value.reason == "output_exists"
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_new_folders_are_on_the_disk(tmp_path, monkeypatch):
    """Each folder whose list of names has changed is flushed, from the first new one on."""
    flushed = []
    fsync = os.fsync

    def note(descriptor):
        flushed.append(os.fspath(pathlib.Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    publish(tmp_path / "new" / "folder" / "M_dcn.rtdc")
    assert flushed[:2] == [os.fspath(tmp_path), os.fspath(tmp_path / "new")]
    assert flushed[-1] == os.fspath(tmp_path / "new" / "folder")
    flushed.clear()
    publish(tmp_path / "new" / "folder" / "N_dcn.rtdc")
    assert os.fspath(tmp_path) not in flushed
