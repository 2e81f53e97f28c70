"""What waits for something with a limit ends when it is told to, also at the very moment at which that has come."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading

import pytest

from dcnumd.config.values import LogSettings, ResourceSettings, Settings, WatchSettings
from dcnumd.daemon.folders import hang_guard
from dcnumd.daemon.folders.hang_guard import in_thread
from dcnumd.daemon.folders.watch import FolderWatch
from dcnumd.daemon.ledger.records import State
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.live.view import View
from dcnumd.daemon.measurements.counters import Counters
from dcnumd.logic.job import JobResult
from dcnumd.logic.stamp import Stamp
from tests.support.fakes import FakeExecutor
from tests.support.works import Works, with_works

SETTINGS = Settings(watch=WatchSettings(settle_seconds=600.0, rescan_seconds=600.0), log=LogSettings(level="error"))


@contextlib.asynccontextmanager
async def settling(folder, measurement):
    """Have a file settle that is written to."""
    path = folder / "M.rtdc"
    measurement(path)
    works = Works(folder, SETTINGS, with_jobs=False)
    admitting = asyncio.create_task(works.settling.keep_admitting())
    await works.offer(path)

    def wake():
        os.utime(path, (1, 1))
        works.settling.offer([(str(path), Stamp.at(str(path)))])

    try:
        yield works.settling.keep_settling(), works.tracker.wake._waiters, wake
    finally:
        admitting.cancel()
        await works.close()


@contextlib.asynccontextmanager
async def watching(folder, measurement):
    """Watch a folder that is to be scanned at once."""
    watch = FolderWatch(folder, SETTINGS, list)
    yield watch.keep_watching(), watch._rescan._waiters, watch.request_scan


@contextlib.asynccontextmanager
async def showing(folder, measurement):
    """Wait for news as the live page does."""
    view = View(SETTINGS, Counters(), tuple, int)

    async def follow():
        version = view.version
        while True:
            version = await view.changed(version)

    yield follow(), view._touched._waiters, view.touch


@contextlib.asynccontextmanager
async def asking(folder, measurement):
    """Ask a share that answers."""
    answered = threading.Event()

    async def ask():
        await in_thread("/in", answered.wait)
        await asyncio.Event().wait()

    def answer():
        (asked,) = [thread for thread in threading.enumerate() if thread.name == "wait"]
        answered.set()
        asked.join()

    yield ask(), answered._cond._waiters, answer
    answered.set()


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("waiting", [settling, watching, showing, asking])
def test_end_is_not_missed(waiting, turns, tmp_path, measurement, monkeypatch):
    """However many turns of the event loop lie between the wake and the end, the end comes."""
    # The thread that asks a share ends with its answer.
    monkeypatch.setattr(hang_guard, "IDLE_THREADS", 0)

    async def run():
        async with waiting(tmp_path, measurement) as (work, waiters, wake):
            task = asyncio.create_task(work)
            while not waiters:  # noqa: ASYNC110 -- nothing tells when somebody begins to wait
                await asyncio.sleep(0.001)
            wake()
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=10)
            assert task.cancelled()

    asyncio.run(run())


class Instantly(concurrent.futures.Executor):
    """Ends each job as soon as it gets it."""

    def __init__(self):
        self.asked = asyncio.Event()

    def submit(self, _, job):
        future = concurrent.futures.Future()
        future.set_result(JobResult("done", "", job.path_in, job.path_out, "ppid", "hash", 10, 3))
        self.asked.set()
        return future


@pytest.mark.parametrize("turns", range(12))
def test_end_between_two_jobs_is_not_missed(turns, tmp_path, measurement):
    """Who stops it when a job has ended and the next one is about to begin waits for neither, nor for ever."""
    paths = [tmp_path / f"M{number}.rtdc" for number in range(4)]
    for number, path in enumerate(paths):
        measurement(path, frames=10, shape=(40, 80), seed=number)
    settings = Settings(resources=ResourceSettings(min_free_gb=0.001), log=LogSettings(level="error"))
    executor = FakeExecutor(Instantly())

    async def body(works):
        works.jobs.pause(paused=True)
        await works.offer(*paths)
        await works.until(lambda: works.states() == [State.QUEUED] * 4)
        works.jobs.pause(paused=False)
        await executor.pool.asked.wait()
        for _ in range(turns):
            await asyncio.sleep(0)

    with_works(tmp_path, body, settings, with_jobs=True, executor=executor)
    with Ledger.open(tmp_path) as ledger:
        assert {entry.state for entry in ledger.entries()} == {State.DONE, State.QUEUED}
