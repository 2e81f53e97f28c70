"""Folders that take no results: their measurements wait, and say so to everybody who asks the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib

import pytest
import structlog

from dcnumd.config.values import OutputSettings, ResourceSettings, Settings, WatchSettings
from dcnumd.daemon.folders.availability import Availability
from dcnumd.daemon.ledger.records import Content, State
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.measurements import parking
from dcnumd.daemon.measurements.parking import OutputFolders, blocked_folders
from dcnumd.daemon.measurements.queue import JobQueue
from dcnumd.errors import ResultError
from dcnumd.logic.stamp import Stamp
from tests.support.loop import in_loop, in_real_time, until

MANY = 300


class Rows:
    """A ledger with measurements in the queue, and the folders that their results go to."""

    def __init__(self, folder: pathlib.Path) -> None:
        watch = WatchSettings(folders=(folder / "in",))
        self.settings = Settings(watch=watch, resources=ResourceSettings(min_free_gb=0.001))
        self.ledger = Ledger.open(folder)
        self.queue = JobQueue("oldest")
        availability = Availability(self.settings, self.ledger)
        self.folders = OutputFolders(self.settings, self.ledger, availability, self.queue)
        self.writes = 0
        self.ledger._connection.set_trace_callback(self._count)

    def _count(self, statement):
        self.writes += statement == "COMMIT"

    def add(self, number):
        """Queue so many measurements."""
        with self.ledger.transaction():
            for _ in range(number):
                name = f"M{len(self.queue):04}.rtdc"
                entry = self.ledger.add(str(self.settings.watch.folders[0] / name), Stamp(1000, 2, 3, 4), name)
                entry = self.ledger.identify(entry, Content(1000, "0" * 32, name), "13|ppid", "hash")
                self.queue.put(self.ledger.move(entry.id, State.QUEUED), 0)

    async def park(self, number):
        """Look at the folder for each of so many measurements, which all have to wait."""
        for _ in range(number):
            waiting = self.queue.take()
            error = await self.folders.check(waiting.entry)
            assert error is not None
            self.folders.park(waiting, error)

    def reasons(self):
        """Return the reasons and errors that the ledger has."""
        return {(entry.reason, entry.error) for entry in self.ledger.entries(State.QUEUED)}


@contextlib.asynccontextmanager
async def looking(rows):
    """Have the folders looked at."""
    task = asyncio.create_task(rows.folders.keep_checking())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "in").mkdir()
    made = Rows(tmp_path)
    yield made
    made.ledger.close()


@in_real_time
async def test_what_waits_for_a_folder_says_so_in_the_ledger(rows, full, monkeypatch):
    """Reason and error are in the row as long as the folder takes nothing, and no longer."""
    monkeypatch.setattr(parking, "CHECK_SECONDS", 0.02)
    folder = str(rows.settings.watch.folders[0])
    rows.add(2)
    async with looking(rows):
        await rows.park(2)
        await until(lambda: {reason for reason, _ in rows.reasons()} == {"no_space"})
        ((_, error),) = rows.reasons()
        assert error.startswith(f"{folder}: 0.0 GB are free")
        (blocked,) = rows.folders.blocked()
        assert (blocked.folder, blocked.problem, blocked.reason) == (folder, "disk.low", "no_space")
        assert (blocked.error, blocked.waiting) == (error, 2)
        assert blocked_folders(rows.settings, rows.ledger) == (blocked,)
        full.clear()
        await until(lambda: rows.reasons() == {("", "")})
        assert rows.folders.blocked() == blocked_folders(rows.settings, rows.ledger) == ()


@in_real_time
async def test_hundreds_that_wait_are_noted_at_once(rows, full, monkeypatch):
    """The first one is told immediately, all others together a moment later, and all are released together."""
    monkeypatch.setattr(parking, "NOTE_SECONDS", 3600.0)
    monkeypatch.setattr(parking, "CHECK_SECONDS", 3600.0)
    rows.add(MANY)
    async with looking(rows):
        await rows.park(1)
        await until(lambda: len(rows.ledger.obstacles()) == 1)
        before = rows.writes
        await rows.park(MANY - 1)
        assert rows.writes == before
        rows.folders._note_at = 0.0
        rows.folders._parked.set()
        await until(lambda: len(rows.ledger.obstacles()) == MANY)
        (root,) = rows.folders._obstacles
        full.clear()
        await rows.folders._check_again(root, rows.folders._obstacles[root])
        assert rows.reasons() == {("", "")}
        assert rows.writes == before + 2


@pytest.mark.slow
@in_real_time
async def test_folder_may_be_full_for_days(rows, full, monkeypatch):
    """However often it was looked at in vain, it is looked at again."""
    monkeypatch.setattr(parking, "CHECK_SECONDS", 0.0)
    rows.add(1)
    await rows.park(1)
    (root,) = rows.folders._obstacles
    for _ in range(1100):
        await rows.folders._check_again(root, rows.folders._obstacles[root])
    assert rows.folders.blocked()
    full.clear()
    await rows.folders._check_again(root, rows.folders._obstacles[root])
    assert not rows.folders.blocked()


@in_loop
async def test_row_that_left_the_queue_is_not_noted(rows):
    """What was given up meanwhile keeps its own reason."""
    rows.add(1)
    (entry,) = rows.ledger.entries()
    rows.ledger.move(entry.id, State.SKIPPED, "vanished")
    rows.ledger.note_obstacles([(entry.id, "no_space", "full"), (entry.id + 1, "no_space", "full")])
    assert rows.ledger.get(entry.id).reason == "vanished"
    assert rows.ledger.obstacles() == []


@in_loop
async def test_next_start_finds_out_anew_what_is_in_the_way(rows):
    """What was noted before counts as long as no daemon looks."""
    rows.add(3)
    first, second, _ = rows.ledger.entries()
    rows.ledger.note_obstacles([(first.id, "output_read_only", "read-only \udcff")])
    rows.ledger.move(second.id, State.QUEUED, "worker_killed", "killed")
    assert [blocked.error for blocked in blocked_folders(rows.settings, rows.ledger)] == ["read-only \udcff"]
    rows.ledger.recover()
    assert blocked_folders(rows.settings, rows.ledger) == ()
    assert rows.reasons() == {("", ""), ("worker_killed", "killed")}


def test_room_of_each_folder_is_measured(tmp_path, full, monkeypatch):
    """Each folder of results is named, also one that is not there yet; where nothing is known nothing is told."""
    monkeypatch.setattr(parking, "MEASURE_SECONDS", 0.0)
    full.clear()
    groups = [
        Settings(watch=WatchSettings(folders=(tmp_path / "a", tmp_path / "b"))),
        Settings(watch=WatchSettings(folders=(tmp_path / "c",)), output=OutputSettings(folder=tmp_path / "new" / "d")),
    ]
    settings = Settings(several=tuple(groups))
    with Ledger.open(tmp_path) as ledger:
        folders = OutputFolders(settings, ledger, Availability(settings, ledger), JobQueue("oldest"))
        assert {output.free_bytes for output in folders.free()} == {None}

        async def run():
            task = asyncio.create_task(folders.keep_measuring())
            await until(lambda: all(output.free_bytes == 10**12 for output in folders.free()))
            task.cancel()

        asyncio.run(run())
        assert [pathlib.Path(output.path).name for output in folders.free()] == ["a", "b", "d"]


@in_loop
async def test_each_problem_that_begins_is_told_of_and_ends(rows):
    """A folder that is full after it was read-only has one problem at a time, and no other one ends than began."""
    rows.add(1)
    waiting = rows.queue.take()
    with structlog.testing.capture_logs() as heard:
        for reason in ("output_read_only", "no_space", "no_space"):
            rows.folders.park(waiting, ResultError("no place", reason), failed=True)
        rows.queue.remove(waiting.entry)
        rows.folders.succeeded(waiting.entry)
    assert [event["event"] for event in heard] == ["output.blocked", "output.recovered", "disk.low", "disk.ok"]
