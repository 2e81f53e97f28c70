"""Running: how jobs are handed to an executor, as many as it takes, and ended; with a clock that jumps."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sqlite3

import pytest

from dcnumd.config.values import LogSettings, ResourceSettings, RetrySettings, Settings, WatchSettings
from dcnumd.daemon.ledger.records import State
from dcnumd.daemon.measurements import deadline
from dcnumd.errors import JobCancelledError, MeasurementError, WorkerError
from dcnumd.logic.job import JobResult, Progress
from tests.support.fakes import FakeExecutor
from tests.support.loop import until
from tests.support.works import with_works

SETTINGS = Settings(
    watch=WatchSettings(settle_seconds=5.0, early_start=False, rescan_seconds=60.0),
    retry=RetrySettings(attempts=2, backoff_seconds=30.0),
    resources=ResourceSettings(min_free_gb=0.001, job_timeout_seconds=1000.0),
    log=LogSettings(level="critical"),
)


class Pool(concurrent.futures.Executor):
    """Takes jobs, and ends them when the test says so."""

    def __init__(self):
        self.jobs = []
        self.futures = {}

    def submit(self, _, job):
        self.jobs.append(job)
        self.futures[job.path_in.stem] = future = concurrent.futures.Future()
        return future

    def end(self, name, error=None):
        """End the job of a measurement."""
        (job,) = [job for job in self.jobs if job.path_in.stem == name][-1:]
        if error is not None:
            self.futures[name].set_exception(error)
            return
        job.path_out.write_bytes(b"result")
        self.futures[name].set_result(JobResult("done", "", job.path_in, job.path_out, "ppid", "hash", 60, 3))


class Stubborn(FakeExecutor):
    """Has jobs that heed only what they are told to heed."""

    def __init__(self, pool, heeded, capacity=1):
        super().__init__(pool)
        self.capacity = capacity
        self.heeded = heeded

    def _told(self, what, job):
        if what == self.heeded:
            error = JobCancelledError("stopped") if what == "ask_to_stop" else WorkerError("died", "worker_killed")
            self.pool.end(job.path_in.stem, error)

    def ask_to_stop(self, job):
        super().ask_to_stop(job)
        self._told("ask_to_stop", job)

    def terminate(self, job):
        super().terminate(job)
        self._told("terminate", job)

    def kill(self, job):
        super().kill(job)
        self._told("kill", job)


def with_pool(folder, body, *, settings=SETTINGS, heeded="kill", capacity=1):
    """Run `body` with the parts of a daemon whose executor does what the test says; return the executor."""
    pool = Pool()
    executor = Stubborn(pool, heeded, capacity)
    with_works(folder, lambda works: body(works, pool), settings, with_jobs=True, executor=executor)
    return executor


def states(works):
    return {entry.path[-7:-5]: str(entry.state) for entry in works.ledger.entries()}


def test_as_many_jobs_run_as_the_executor_takes(tmp_path, files):
    """Two at once, each recorded when it ends, whichever ends first; the next one takes its place."""

    async def body(works, pool):
        await works.offer(*files)
        await until(lambda: len(pool.jobs) == 2 and "settling" not in states(works).values())
        assert sorted(states(works).values()) == ["queued", "queued", "running", "running"]
        first, second = (entry.path[-7:-5] for entry in works.jobs.running)
        pool.end(second)
        await until(lambda: states(works)[second] == "done" and len(works.jobs.running) == 2)
        assert states(works)[first] == "running"
        pool.end(first)
        for _ in range(2):
            await until(lambda: any(not future.done() for future in pool.futures.values()))
            pool.end(next(name for name, future in pool.futures.items() if not future.done()))
        await until(lambda: set(states(works).values()) == {"done"} and len(states(works)) == 4)
        assert len(pool.jobs) == 4
        await until(lambda: works.jobs.idle)

    with_pool(tmp_path, body, capacity=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("heeded", "asked"),
    [
        ("ask_to_stop", ["ask_to_stop"]),
        ("terminate", ["ask_to_stop", "terminate"]),
        ("kill", ["ask_to_stop", "terminate", "kill"]),
    ],
)
def test_job_without_a_sign_of_life_is_ended(tmp_path, files, heeded, asked):
    """It is asked first, and killed last; another attempt follows, and then it has failed."""

    async def body(works, pool):
        loop = asyncio.get_running_loop()
        await works.offer(files[0])
        await until(lambda: works.jobs.running)
        begin = loop.time()
        await until(lambda: works.ledger.entries()[0].attempts == 1)
        assert loop.time() - begin == pytest.approx(deadline.STALL_SECONDS, abs=5.0)
        await until(lambda: works.states() == [State.FAILED])
        (entry,) = works.ledger.entries()
        assert (entry.reason, entry.attempts, len(pool.jobs)) == ("stalled", 2, 2)

    executor = with_pool(tmp_path, body, heeded=heeded)
    assert [what for what, _ in executor.calls if what != "resume"] == asked * 2


def test_signs_of_life_prolong_a_job_until_its_time_is_over(tmp_path, files):
    """A job that goes on is left alone for as long as the config allows, and no longer."""

    async def body(works, pool):
        await works.offer(files[0])
        await until(lambda: works.jobs.running)
        begin, (entry,) = asyncio.get_running_loop().time(), works.jobs.running
        while works.jobs.running:
            works.jobs.on_progress(Progress(entry.job_id, "segmentation", 1, 60, 0))
            await asyncio.sleep(deadline.STALL_SECONDS / 2)
        assert asyncio.get_running_loop().time() - begin == pytest.approx(1000.0, abs=deadline.STALL_SECONDS)
        assert works.ledger.entries()[0].reason == "timeout"

    with_pool(tmp_path, body)


def test_end_of_the_daemon_puts_jobs_back(tmp_path, files):
    """Whoever is running is asked to stop, and its next run begins anew; that costs no attempt."""

    async def body(works, pool):
        await works.offer(*files[:2])
        await until(lambda: len(pool.jobs) == 2)

    async def later(works, pool):
        assert {(str(entry.state), entry.reason, entry.attempts) for entry in works.ledger.entries()} == {
            ("queued", "interrupted", 0)
        }
        await works.offer(*files[:2])
        await until(lambda: len(pool.jobs) == 2)
        for entry in works.jobs.running:
            pool.end(entry.path[-7:-5])
        await until(lambda: set(states(works).values()) == {"done"})

    executor = with_pool(tmp_path, body, heeded="ask_to_stop", capacity=2)
    assert [what for what, _ in executor.calls if what != "resume"] == ["ask_to_stop", "ask_to_stop"]
    with_pool(tmp_path, later, heeded="ask_to_stop", capacity=2)


def test_job_that_stands_still_loses_no_time(tmp_path, files):
    """While it is held nothing is told of it, and it has its whole time afterwards."""

    async def body(works, pool):
        await works.offer(files[0])
        await until(lambda: pool.jobs)
        works.jobs.hold()
        # in the time of this loop, which costs none
        await asyncio.sleep(100_000.0)
        works.jobs.resume()
        assert works.jobs.running
        pool.end("M0")
        await until(lambda: works.states() == [State.DONE])

    executor = with_pool(tmp_path, body)
    assert [what for what, _ in executor.calls] == ["hold", "resume"]


def test_fault_that_may_pass_is_tried_again_after_a_pause(tmp_path, files):
    """The next attempt begins when the pause is over; the others go on meanwhile."""

    async def body(works, pool):
        await works.offer(files[0])
        await until(lambda: pool.jobs)
        pool.end("M0", WorkerError("gone", "worker_killed", transient=True))
        await until(lambda: works.ledger.entries()[0].attempts == 1)
        begin = asyncio.get_running_loop().time()
        await until(lambda: len(pool.jobs) == 2)
        assert asyncio.get_running_loop().time() - begin > SETTINGS.retry.backoff_seconds / 2
        pool.end("M0")
        await until(lambda: states(works)["M0"] == "done")

    with_pool(tmp_path, body)


def test_fault_that_does_not_pass_is_final(tmp_path, files):
    """What is wrong with a measurement will be wrong the next time."""

    async def body(works, pool):
        await works.offer(files[0])
        await until(lambda: pool.jobs)
        pool.end("M0", MeasurementError("damaged", "damaged"))
        await until(lambda: works.states() == [State.FAILED])
        # long enough for any pause; it costs no time, as this clock jumps
        await asyncio.sleep(10_000.0)
        assert len(pool.jobs) == 1

    with_pool(tmp_path, body)


def test_fault_of_the_ledger_ends_the_work_and_no_measurement(tmp_path, files):
    """What is no measurement's fault is handed on, whichever of several jobs meets it."""

    async def body(works, pool):
        await works.offer(*files[:2])
        await until(lambda: len(pool.jobs) == 2)
        works.ledger.finish = lambda *_, **__: (_ for _ in ()).throw(sqlite3.OperationalError("disk I/O error"))
        pool.end("M0")
        await until(lambda: any(task.done() for task in works.tasks))
        assert works.lifecycle.failures == 0

    with pytest.raises(sqlite3.OperationalError, match="disk I/O"):
        with_pool(tmp_path, body, heeded="ask_to_stop", capacity=2)
