"""What belongs to the daemon that owns a ledger, and to nobody else."""

from __future__ import annotations

import os
import pathlib
import stat
import tempfile

import pytest

from dcnumd.daemon.ownership import temporary_folder


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """Return a folder for temporary files in which everybody may write."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", os.fspath(folder))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_temporary_files_have_a_folder_of_their_own(shared, tmp_path):
    """It is for nobody else, and gone afterwards; what an earlier daemon has left goes at the start."""
    with temporary_folder(tmp_path / "state"):
        mine = pathlib.Path(tempfile.gettempdir())
        assert mine.parent == shared
        assert stat.S_IMODE(mine.stat().st_mode) == 0o700
        left = mine.with_name(f"{mine.name[:-8]}leftover")
    assert list(shared.iterdir()) == []
    left.mkdir()
    (left / "file").touch()
    with temporary_folder(tmp_path / "state"):
        assert not left.exists()
    assert tempfile.gettempdir() == os.fspath(shared)


def test_nobody_else_can_take_the_folder_first(shared, tmp_path):
    """A folder of such a name that is not ours is neither used nor removed."""
    with temporary_folder(tmp_path / "state"):
        mine = pathlib.Path(tempfile.gettempdir())
    taken = [mine, mine.with_name(mine.name.rpartition("-")[0])]
    for folder in taken:
        folder.mkdir()
        (folder / "theirs").touch()
        if os.getuid() == 0:
            os.chown(folder, 12345, 12345)
    with temporary_folder(tmp_path / "state"):
        assert pathlib.Path(tempfile.gettempdir()) not in taken
    if os.getuid() == 0:
        assert all((folder / "theirs").exists() for folder in taken)
