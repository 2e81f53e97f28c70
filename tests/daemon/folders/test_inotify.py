"""File events of the kernel."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib

import pytest

from dcnumd.daemon.folders.inotify import FolderEvents


@pytest.fixture
def events():
    with contextlib.closing(FolderEvents()) as opened:
        yield opened


def test_changes_are_named_whatever_the_name_is(events, tmp_path):
    """What is written, renamed into place or touched is named, once, under its path."""
    strange = os.fsdecode(b"caf\xe9.rtdc")
    (tmp_path / "old").write_bytes(b"1")
    events.follow(str(tmp_path))
    (tmp_path / strange).write_bytes(b"12")
    (tmp_path / "old").rename(tmp_path / "Größe 1.rtdc")
    os.utime(tmp_path / "Größe 1.rtdc")
    assert events.changed() == ({f"{tmp_path}/{strange}", f"{tmp_path}/Größe 1.rtdc"}, False)
    assert events.changed() == (set(), False)


def test_waiting_ends_with_the_first_change(events, tmp_path):
    """Nothing is asked for in between: the event loop waits for the kernel."""
    events.follow(str(tmp_path))

    async def body():
        waiting = asyncio.create_task(events.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        (tmp_path / "a").touch()
        await asyncio.wait_for(waiting, 10)

    asyncio.run(body())
    assert events.changed()[0] == {f"{tmp_path}/a"}


def test_folder_that_was_left_is_silent(events, tmp_path):
    """Leaving a folder leaves those inside, too, and no other whose name begins alike."""
    for name in ("in", "in/deep", "in2"):
        (tmp_path / name).mkdir()
        events.follow(str(tmp_path / name))
    events.leave(str(tmp_path / "in"))
    for name in ("in/a", "in/deep/b", "in2/c"):
        (tmp_path / name).touch()
    assert events.changed() == ({f"{tmp_path}/in2/c"}, False)


def test_folder_that_moved_away_is_left(events, tmp_path):
    """What happens in it afterwards is not reported under its old name."""
    (tmp_path / "in" / "day").mkdir(parents=True)
    for name in ("in", "in/day"):
        events.follow(str(tmp_path / name))
    (tmp_path / "in" / "day").rename(tmp_path / "elsewhere")
    assert events.changed() == (set(), False)
    (tmp_path / "elsewhere" / "a").touch()
    assert events.changed() == (set(), False)


def test_overflow_is_told(events, tmp_path):
    """When more happened than the kernel keeps, the folder has to be listed."""
    events.follow(str(tmp_path))
    limit = int(pathlib.Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    names = [tmp_path / "a", tmp_path / "b"]
    names[0].touch()
    for _ in range(limit // 2 + 1):
        names[0].rename(names[1])
        names.reverse()
    lost = False
    while (found := events.changed())[0]:
        lost |= found[1]
    assert lost or found[1]


def test_missing_folder_is_an_error(events, tmp_path):
    """A folder that is not there, or is a file, cannot be followed."""
    with pytest.raises(FileNotFoundError):
        events.follow(str(tmp_path / "missing"))
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        events.follow(str(tmp_path / "file"))
