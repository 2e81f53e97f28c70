"""Settling, queue and jobs together: real files, ledger and child processes, in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import functools
import math
import os
import shutil
import sqlite3

import h5py
import pytest
import structlog

from dcnumd.config.values import LogSettings, ResourceSettings, RetrySettings, Settings, WatchSettings
from dcnumd.daemon.ledger.records import State
from dcnumd.daemon.ledger.store import Ledger, ledger_path
from dcnumd.daemon.measurements import parking
from dcnumd.daemon.measurements.deadline import Deadline
from dcnumd.daemon.measurements.running_job import RunningJob
from dcnumd.logic.job import Job, Progress
from dcnumd.logic.stamp import Stamp
from tests.soak.growth import append, frames_made_of
from tests.support.works import in_works, with_works

pytestmark = pytest.mark.timeout(300)

SETTINGS = Settings(
    watch=WatchSettings(settle_seconds=0.1, rescan_seconds=0.5),
    retry=RetrySettings(attempts=2, backoff_seconds=0.05),
    resources=ResourceSettings(num_workers=1, min_free_gb=0.01),
    log=LogSettings(level="critical"),
)


FULL = dataclasses.replace(SETTINGS, resources=ResourceSettings(min_free_gb=1e9))
COURTEOUS = dataclasses.replace(SETTINGS, resources=dataclasses.replace(SETTINGS.resources, pause_while_acquiring=True))
PATIENT = dataclasses.replace(SETTINGS, retry=RetrySettings(attempts=3, backoff_seconds=3600.0))
with_jobs = functools.partial(with_works, settings=SETTINGS, with_jobs=True)
processing = functools.partial(in_works, settings=SETTINGS, with_jobs=True)


@pytest.mark.slow
@processing()
async def test_replaced_while_waiting_for_room(works, path, measurement, full, monkeypatch):
    """The head of the queue is recorded again while the disk is full: only its successor is processed."""
    monkeypatch.setattr(parking, "CHECK_SECONDS", 0.05)
    await works.offer(path)
    await works.until(lambda: works.states() == [State.QUEUED])
    measurement(path, seed=2, frames=50)
    await works.offer(path)
    await works.until(lambda: sorted(works.states()) == [State.QUEUED, State.SKIPPED])
    full.clear()
    await works.until(lambda: State.QUEUED not in works.states() and not works.jobs.running)
    old, new = sorted(works.ledger.entries(), key=lambda entry: entry.id)
    assert (old.state, old.reason, new.state, new.frames) == (State.SKIPPED, "replaced", State.DONE, 50)
    assert not [step for step in works.ledger.transitions(old.id) if step.state is State.RUNNING]


@processing()
async def test_touched_while_running_is_processed_once(works, path):
    """A new date on the same content neither fails nor repeats the job that is running."""
    move = works.ledger.move

    def touch_when_running(entry_id, state, *args, **changes):
        entry = move(entry_id, state, *args, **changes)
        if state is State.RUNNING:
            os.utime(path)
            works.settling.offer([(str(path), Stamp.at(str(path)))])
        return entry

    works.ledger.move = touch_when_running
    await works.offer(path)
    await works.until(lambda: works.states() == [State.DONE] and not works.tracker.candidates)
    (entry,) = works.ledger.entries()
    assert entry.stamp == Stamp.at(str(path))
    states = [step.state for step in works.ledger.transitions(entry.id)]
    assert states.count(State.RUNNING) == 1
    assert works.lifecycle.failures == 0


def test_result_of_a_killed_run_is_done(tmp_path, path):
    """A daemon that was killed after the result was in place finds it at the next start, as its own."""

    async def process(works):
        await works.offer(path)
        await works.until(lambda: works.states() == [State.DONE] and not works.jobs.running)

    with_jobs(tmp_path, process)
    lose_the_end(tmp_path)
    inode = (tmp_path / "M_dcn.rtdc").stat().st_ino
    with_jobs(tmp_path, process)
    assert (tmp_path / "M_dcn.rtdc").stat().st_ino == inode
    with Ledger.open(tmp_path) as ledger:
        assert ledger.producer(str(tmp_path / "M_dcn.rtdc"))


def lose_the_end(folder):
    """Have the ledger hold what it does when the last of its writes was not made."""
    with contextlib.closing(sqlite3.connect(ledger_path(folder))) as connection, connection:
        connection.execute("UPDATE measurements SET state = 'running', output = NULL, finished_at = NULL")
        connection.execute("DELETE FROM transitions WHERE state = 'done'")


@pytest.mark.parametrize("ledger", ["interrupted", "lost"])
def test_result_of_a_killed_run_is_not_taken_for_a_file_that_grew_since(ledger, tmp_path, measurement):
    """What was published of the shorter file is replaced, also when nothing but the result itself tells of it."""
    path = tmp_path / "M.rtdc"
    measurement(path, frames=64, growable=True)

    async def process(works):
        await works.offer(path)
        await works.until(lambda: State.DONE in works.states() and not works.jobs.running)

    with_jobs(tmp_path, process)
    lose_the_end(tmp_path)
    if ledger == "lost":
        ledger_path(tmp_path).unlink()
    append(path, 16)
    with_jobs(tmp_path, process)
    assert frames_made_of(tmp_path / "M_dcn.rtdc") == 80


@processing()
async def test_correction_far_behind_the_beginning_is_processed(works, tmp_path, measurement):
    """Frames that change in place, at the same size and behind the first 5 MiB, are another content."""
    path = tmp_path / "M.rtdc"
    measurement(path, frames=1200, shape=(48, 96))
    assert path.stat().st_size > 5.2 * 2**20
    await works.offer(path)
    await works.until(lambda: works.states() == [State.DONE] and not works.jobs.running)
    with h5py.File(path, "r+") as h5:
        h5["events/image"][1180:] = 180
    await works.offer(path)
    await works.until(lambda: works.states() == [State.DONE] * 2 and not works.jobs.running)
    first, second = sorted(works.ledger.entries(), key=lambda entry: entry.id)
    assert (first.md5_5m, first.content_size) == (second.md5_5m, second.content_size)
    assert second.events < first.events


def test_changes_during_a_job_cost_no_attempt(tmp_path, measurement):
    """However often a file grows while it is processed, it is processed in the end."""
    path = tmp_path / "M.rtdc"
    measurement(path, frames=64, growable=True)
    left = SETTINGS.retry.attempts + 1

    async def body(works):
        move = works.ledger.move

        def grow_when_running(entry_id, state, *args, **changes):
            nonlocal left
            entry = move(entry_id, state, *args, **changes)
            if state is State.RUNNING and left:
                left -= 1
                append(path, 5)
            return entry

        works.ledger.move = grow_when_running
        await works.offer(path)
        await works.until(lambda: not left and State.DONE in works.states() and not works.jobs.running)
        assert works.lifecycle.failures == 0

    with_jobs(tmp_path, body)
    assert frames_made_of(tmp_path / "M_dcn.rtdc") == 64 + 5 * (SETTINGS.retry.attempts + 1)


def test_row_of_an_earlier_version_counts_as_done(tmp_path, path):
    """A ledger that knows of a content only its first bytes does not have everything processed again."""

    async def process(works):
        await works.offer(path)
        await works.until(lambda: works.states() == [State.DONE] and not works.tracker.candidates)

    with_jobs(tmp_path, process)
    with contextlib.closing(sqlite3.connect(ledger_path(tmp_path))) as connection, connection:
        connection.execute("UPDATE measurements SET digest = '', settings_key = 'of another version'")
    with h5py.File(tmp_path / "M_dcn.rtdc", "r+") as h5:
        for key in list(h5["events"].attrs):
            del h5["events"].attrs[key]
    inode = (tmp_path / "M_dcn.rtdc").stat().st_ino
    with_jobs(tmp_path, process)
    assert (tmp_path / "M_dcn.rtdc").stat().st_ino == inode
    with Ledger.open(tmp_path) as ledger:
        (entry,) = ledger.entries()
        assert (len(entry.digest), entry.state) == (32, State.DONE)


@processing()
async def test_unreachable_output_comes_back(works, tmp_path, path, monkeypatch):
    """A share that is down when a job starts makes it wait, and costs no attempt."""
    monkeypatch.setattr(parking, "CHECK_SECONDS", 0.05)
    usage = shutil.disk_usage(tmp_path)
    faults = [OSError(errno.ESTALE, os.strerror(errno.ESTALE))]

    def look(_):
        if faults:
            raise faults.pop()
        return usage

    monkeypatch.setattr(shutil, "disk_usage", look)
    await works.offer(path)
    await works.until(lambda: works.states() == [State.DONE])
    (entry,) = works.ledger.entries()
    assert entry.attempts == 1


@processing()
async def test_row_that_goes_astray_stops_nobody(works, tmp_path, measurement):
    """A row that was closed behind its running job costs its own record only; the next one is processed."""
    astray, after = tmp_path / "astray.rtdc", tmp_path / "next.rtdc"
    measurement(astray, seed=1)
    measurement(after, seed=2)
    move = works.ledger.move

    def close_when_running(entry_id, state, *args, **changes):
        entry = move(entry_id, state, *args, **changes)
        if state is State.RUNNING and entry.path == str(astray):
            move(entry_id, State.SKIPPED, "vanished")
        return entry

    works.ledger.move = close_when_running
    await works.offer(astray)
    await works.until(lambda: works.states() == [State.SKIPPED] and not works.jobs.running)
    await works.offer(after)
    await works.until(lambda: sorted(works.states()) == [State.DONE, State.SKIPPED])


@processing(settings=FULL, once=True)
async def test_no_room_is_a_failure_if_nobody_waits_for_it(works, path):
    """With ``once`` a measurement whose result has no room has failed, so that the run says so and ends."""
    await works.offer(path)
    await works.until(lambda: works.states() == [State.FAILED] and works.jobs.idle)
    (entry,) = works.ledger.entries()
    assert (entry.reason, works.lifecycle.failures) == ("no_space", 1)


@processing(settings=COURTEOUS)
async def test_no_job_starts_while_a_file_grows(works, tmp_path, measurement):
    """With pause_while_acquiring a complete measurement waits until the recording beside it is over."""
    path, growing = tmp_path / "M.rtdc", tmp_path / "growing.rtdc"
    measurement(path)
    for step in range(100):
        with growing.open("ab") as file:
            file.write(b"more")
        await works.offer(growing, *([path] if step else []))
        # in the time of this loop, which costs none
        await asyncio.sleep(SETTINGS.watch.settle_seconds / 2)
    assert sorted(works.states()) == [State.QUEUED, State.SETTLING]
    await works.until(lambda: State.DONE in works.states())


@processing()
async def test_large_measurement_goes_on_although_a_small_one_found_room_before(
    works, tmp_path, measurement, monkeypatch
):
    """What waits for room is not forgotten when something smaller fits meanwhile."""
    monkeypatch.setattr(parking, "CHECK_SECONDS", 0.05)
    large, small = tmp_path / "large.rtdc", tmp_path / "small.rtdc"
    measurement(large, frames=400, seed=1)
    measurement(small, frames=50, seed=2)
    usage = shutil.disk_usage(tmp_path)
    free = (small.stat().st_size + large.stat().st_size) // 2 + int(SETTINGS.resources.min_free_gb * 1e9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))
    await works.offer(large)
    await works.until(lambda: works.states() == [State.QUEUED] and works.jobs.outputs.blocked())
    await works.offer(small)
    await works.until(lambda: sorted(works.states()) == [State.DONE, State.QUEUED])
    free = usage.free
    await works.until(lambda: works.states() == [State.DONE, State.DONE])


@processing()
async def test_touched_while_waiting_for_room_has_one_turn(works, path, full, monkeypatch):
    """However often its date changes while it waits, a measurement is in the queue once and is processed once."""
    monkeypatch.setattr(parking, "CHECK_SECONDS", 0.05)
    await works.offer(path)
    for date in (1e9, 2e9):
        await works.until(lambda: works.states() == [State.QUEUED] and not works.tracker.candidates)
        os.utime(path, (date, date))
        await works.offer(path)
    await works.until(lambda: works.states() == [State.QUEUED] and not works.tracker.candidates)
    # it is in no queue for the moment in which its folder is looked at again
    await works.until(lambda: len(works.queue) == 1)
    full.clear()
    await works.until(lambda: works.states() == [State.DONE] and works.jobs.idle)
    (entry,) = works.ledger.entries()
    assert [step.state for step in works.ledger.transitions(entry.id)].count(State.RUNNING) == 1


@pytest.mark.slow
@processing(settings=PATIENT, processes=True)
async def test_queued_again_in_its_turn_waits_for_its_next_attempt(works, path):
    """A job that failed is tried again after the pause, although its file was touched just before it began."""
    move = works.ledger.move

    def queue_again(entry_id, state, *args, **changes):
        if state is State.RUNNING:
            works.queue.put(works.ledger.get(entry_id), 0)
        return move(entry_id, state, *args, **changes)

    works.ledger.move = queue_again
    works.jobs.on_progress = lambda _: works.executor.child.kill()
    await works.offer(path)
    await works.until(lambda: works.ledger.entries()[0].attempts and works.jobs.idle)
    (entry,) = works.ledger.entries()
    assert (entry.state, entry.reason, entry.attempts) == (State.QUEUED, "worker_killed", 1)
    assert [waiting.entry_id for waiting in works.tracker.candidates] == [entry.id]
    path.unlink()
    works.tracker.doubt()
    await works.until(lambda: (works.settling.offer([]), works.states() == [State.SKIPPED])[1])


def test_progress_is_logged_sparingly(tmp_path):
    """Of many reports one in a while becomes a line; the ledger then knows how far the job is."""

    async def body(works):
        entry = works.ledger.add("/in/M.rtdc", Stamp(1, 2, 3, 4), "job")
        job = RunningJob(Job(tmp_path, tmp_path), works.executor, Deadline(0.0, 0), works.jobs.early.forced)
        with works.jobs._listed(entry, job):
            works.jobs._runs["job"].noted_at = works.jobs._runs["job"].logged_at = -math.inf
            for done in range(100, 1000, 100):
                works.jobs.on_progress(Progress("job", "segmentation", done, 1000, done // 2))
            works.jobs.on_progress(Progress("another", "segmentation", 5, 10, 1))
        assert works.ledger.get(entry.id).frames_done == 100

    with structlog.testing.capture_logs() as heard:
        with_works(tmp_path, body, Settings(), with_jobs=False)
    (line,) = [line for line in heard if line["event"] == "job.progress"]
    assert (line["job_id"], line["path"]) == ("job", "/in/M.rtdc")
    assert (line["frames_done"], line["frames"], line["events"]) == (100, 1000, 50)
