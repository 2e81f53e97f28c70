"""One watcher for all folders: it is handed over, shared, and gone at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading

import pytest
from watchfiles import Change

from dcnumd.daemon.folders import events, hang_guard, watcher
from dcnumd.daemon.folders.events import FileEvents, followable
from dcnumd.daemon.folders.watcher import Watcher
from tests.support.loop import in_real_time


class Listener:
    """Follows some folders, and keeps what it hears."""

    def __init__(self, *folders):
        self.folder = os.fspath(folders[0])
        self.followed = {os.fspath(folder): (0, 0) for folder in folders}
        self.heard: set[tuple[Change, str]] = set()
        self.scans = 0
        self._news = asyncio.Event()

    def concerns(self, _, path):
        return path.rpartition("/")[0] in self.followed

    def take(self, changes):
        self.heard |= changes
        self._news.set()

    def request_scan(self):
        self.scans += 1
        self._news.set()

    async def until(self, condition):
        async with asyncio.timeout(60):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def until_heard(self, *paths):
        await self.until(lambda: {str(path) for path in paths} <= {path for _, path in self.heard})


def watchers():
    return [thread for thread in threading.enumerate() if thread.name == "file events"]


@contextlib.asynccontextmanager
async def following(*listeners):
    """Have listeners hear of their folders; at the end nothing may be left of it."""
    shared = FileEvents()
    for listener in listeners:
        shared.join(listener)
    await shared.renew()
    try:
        yield shared
    finally:
        for listener in listeners:
            await shared.leave(listener)
    for thread in watchers():
        thread.join(10)
    assert not watchers()


@in_real_time
async def test_all_folders_share_one_thread(tmp_path):
    """An idle watcher takes the same share of the processor for one folder and for many."""
    folders = [tmp_path / f"{number}" for number in range(10)]
    for folder in folders:
        folder.mkdir()
    listeners = [Listener(folder) for folder in folders]
    async with following(*listeners):
        assert len(watchers()) == 1
        for folder in folders:
            (folder / "M.rtdc").touch()
        for listener, folder in zip(listeners, folders, strict=True):
            await listener.until_heard(folder / "M.rtdc")
            assert {path.rpartition("/")[0] for _, path in listener.heard} == {str(folder)}


@pytest.mark.slow
@in_real_time
async def test_nothing_is_lost_when_another_watcher_takes_over(tmp_path, monkeypatch):
    """What the one before has heard and not handed over yet comes, too."""
    # else a busy computer may have everything scanned
    monkeypatch.setattr(watcher, "LATE_SECONDS", 1e9)
    folders = [tmp_path / f"{number}" for number in range(20)]
    for folder in folders:
        folder.mkdir()
    files = []
    listener = Listener(tmp_path)
    async with following(listener) as shared:
        for folder in folders:
            files.append(tmp_path / f"{folder.name}.rtdc")
            files[-1].touch()
            listener.followed[str(folder)] = (0, 0)
            await shared.renew()
            files.append(folder / "M.rtdc")
            files[-1].touch()
        await listener.until_heard(*files)
        assert not shared.problem
        assert not listener.scans


@in_real_time
async def test_folder_that_has_vanished_keeps_no_other_from_being_followed(tmp_path, monkeypatch):
    """Also if it vanishes at the last moment."""
    monkeypatch.setattr(events, "_readable", lambda folders: folders)
    listener = Listener(tmp_path, tmp_path / "missing")
    async with following(listener) as shared:
        (tmp_path / "M.rtdc").touch()
        await listener.until_heard(tmp_path / "M.rtdc")
        assert not shared.problem


@in_real_time
async def test_disk_that_does_not_answer_keeps_no_other_from_being_followed(tmp_path, monkeypatch):
    """It is asked again, and followed as soon as it answers."""
    monkeypatch.setattr(hang_guard, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(events, "PAUSE_SECONDS", 0.1)
    answers = threading.Event()
    silent, good = tmp_path / "silent", tmp_path / "good"

    def readable(folders):
        if str(silent) in folders:
            answers.wait()
        return folders

    monkeypatch.setattr(events, "_readable", readable)
    for folder in (silent, good):
        folder.mkdir()
    listeners = Listener(silent), Listener(good)
    async with following(*listeners):
        (good / "M.rtdc").touch()
        await listeners[1].until_heard(good / "M.rtdc")
        answers.set()
        async with asyncio.timeout(60):
            number = 0
            while not listeners[0].heard:
                (silent / f"{number}.rtdc").touch()
                number += 1
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("sign", ["late", "many"])
@in_real_time
async def test_events_that_the_kernel_may_have_dropped_are_suspected(tmp_path, sign):
    """Watchfiles does not tell; a process that was stopped, or very many names at once, do."""
    lost = asyncio.Event()
    asked = Watcher([tmp_path], [], 50, lost.set, lambda *_: None)
    assert not asked.is_set()
    assert not asked.is_set()
    if sign == "late":
        asked._last_turn -= 10
    for number in range(asked._most_names + 1 if sign == "many" else 1):
        asked._sort_in(Change.added, f"{number}")
    assert not lost.is_set()
    asked.is_set()
    async with asyncio.timeout(10):
        await lost.wait()


def test_folders_around_odd_names_are_left_out():
    """Merely listing a folder whose name is not UTF-8 would stop the events of the folder around it."""
    odd = os.fsdecode(b"/in/day/caf\xe9")
    assert followable(["/in", "/in/day", "/in/night", odd, f"{odd}/deep"]) == {"/in", "/in/night"}
