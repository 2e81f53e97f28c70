"""A result is there completely, or not at all."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from dcnumd.errors import JobCancelledError, ResultError
from dcnumd.write.result import ResultFile


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
    assert (caught.value.reason, caught.value.transient) == ("output_folder", True)


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
