"""Early start: when measurements are processed before they have settled; with a clock that jumps."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses

import h5py
import pytest

from dcnumd.config.values import ExecutorSettings, LogSettings, ResourceSettings, Settings, WatchSettings
from dcnumd.daemon.live.view import View
from dcnumd.daemon.measurements.counters import Counters
from dcnumd.errors import JobCancelledError, MeasurementError, WorkerError
from dcnumd.logic.job import JobResult
from tests.support.fakes import FakeExecutor
from tests.support.loop import until
from tests.support.works import with_works

SETTINGS = Settings(
    watch=WatchSettings(settle_seconds=5.0, rescan_seconds=60.0),
    resources=ResourceSettings(min_free_gb=0.001),
    log=LogSettings(level="critical"),
)


class Pool(concurrent.futures.Executor):
    """Takes calls, and answers those that process when the test says so; has results prepared as a process would."""

    def __init__(self):
        self.calls = []
        """Each call: what it does, and with which measurement or job."""
        self.prepared = {}
        self.current = None

    def submit(self, function, argument):
        future = concurrent.futures.Future()
        if function.__name__ == "discard_job":
            self.calls.append(("discard", self.prepared.pop(argument, "nothing")))
            future.set_result(self.calls[-1][1] != "nothing")
            return future
        name = argument.path_in.stem
        self.calls.append((function.__name__.removesuffix("_job"), name))
        if function.__name__ == "run_job" and self.prepared.pop(argument.job_id, None) is not None:
            future.set_result(self._result(argument, early=True))
        else:
            self.current = (function.__name__, argument, future)
        return future

    def end(self, error=None):
        """End the call that processes."""
        (function, job, future), self.current = self.current, None
        if error is not None:
            future.set_exception(error)
        elif function == "prepare_job":
            self.prepared[job.job_id] = job.path_in.stem
            future.set_result(dataclasses.replace(self._result(job), early=True))
        else:
            future.set_result(self._result(job))

    @staticmethod
    def _result(job, *, early=False):
        return JobResult("done", "", job.path_in, job.path_out, "ppid", "hash", 60, 3, early=early)


class Executor(FakeExecutor):
    """Has the current job stop when it is asked to."""

    def ask_to_stop(self, job):
        super().ask_to_stop(job)
        if self.pool.current is not None:
            self.pool.end(JobCancelledError("stopped"))


def with_pool(folder, body, settings=SETTINGS, **keywords):
    """Run `body` with the parts of a daemon whose executor does what the test says; return its calls."""
    pool = Pool()
    with_works(folder, lambda works: body(works, pool), settings, with_jobs=True, executor=Executor(pool), **keywords)
    return pool.calls


def watch(**changes):
    return dataclasses.replace(SETTINGS, watch=dataclasses.replace(SETTINGS.watch, **changes))


async def end(pool, error=None):
    """End the call that processes, as soon as there is one."""
    await until(lambda: pool.current)
    pool.end(error)


def states(works):
    return {entry.path[-7:-5]: str(entry.state) for entry in works.ledger.entries()}


def test_result_is_prepared_while_the_file_settles_and_published_then(tmp_path, files):
    """It is not shown before; the states are those of a usual job."""

    async def body(works, pool):
        loop, begin = asyncio.get_running_loop(), asyncio.get_running_loop().time()
        await works.offer(files[0])
        await until(lambda: pool.current)
        assert loop.time() - begin >= 0.5
        assert works.jobs.early.running.path == str(files[0])
        assert works.jobs.running == ()
        await end(pool)
        await until(lambda: works.jobs.early.running is None)
        assert states(works) == {"M0": "settling"}
        await until(lambda: states(works) == {"M0": "done"})
        assert loop.time() - begin >= 5
        (entry,) = works.ledger.entries()
        steps = [str(step.state) for step in works.ledger.transitions(entry.id)]
        assert steps == ["seen", "settling", "queued", "running", "done"]
        assert (entry.attempts, works.jobs.early.busy) == (1, False)

    assert with_pool(tmp_path, body) == [("prepare", "M0"), ("run", "M0")]


def test_early_job_that_has_not_ended_is_waited_for(tmp_path, files):
    """Its measurement has settled, so it counts as running."""

    async def body(works, pool):
        await works.offer(files[0])
        await until(lambda: states(works) == {"M0": "running"})
        assert works.jobs.early.running is None
        assert len(works.jobs.running) == 1
        assert len(pool.calls) == 1
        await end(pool)
        await until(lambda: states(works) == {"M0": "done"})

    assert with_pool(tmp_path, body) == [("prepare", "M0"), ("run", "M0")]


@pytest.mark.parametrize("prepared", [True, False])
def test_change_discards_it_and_is_not_started_early_again(tmp_path, files, measurement, prepared):
    """A file that grows in steps costs one early job, however many steps there are."""

    async def body(works, pool):
        await works.offer(files[0])
        await until(lambda: pool.current)
        if prepared:
            await end(pool)
            await until(lambda: pool.prepared and works.jobs.early.running is None)
        for frames in (70, 80, 90):
            measurement(files[0], frames=frames)
            await works.offer(files[0])
            assert not pool.prepared
            await asyncio.sleep(2)
        await until(lambda: states(works) == {"M0": "running"})
        await end(pool)
        await until(lambda: states(works) == {"M0": "done"})

    discarded = [("discard", "M0")] if prepared else []
    assert with_pool(tmp_path, body) == [("prepare", "M0"), *discarded, ("run", "M0")]


def test_settled_measurements_come_first(tmp_path, files):
    """An early job stops for the job of another measurement, and begins again after it if there is time left."""

    async def body(works, pool):
        await works.offer(files[0])
        await asyncio.sleep(3)
        await works.offer(files[1])
        await until(lambda: pool.calls[-1] == ("prepare", "M0"))
        await end(pool)
        await until(lambda: pool.calls[-1] == ("prepare", "M1"))
        await until(lambda: states(works)["M0"] == "done")
        await until(lambda: pool.current)
        assert states(works)["M1"] == "settling"
        await end(pool)
        await until(lambda: set(states(works).values()) == {"done"})

    expected = [("prepare", "M0"), ("prepare", "M1"), ("run", "M0"), ("prepare", "M1"), ("run", "M1")]
    assert with_pool(tmp_path, body) == expected


def test_nothing_starts_early_while_a_measurement_waits(tmp_path, files):
    async def body(works, pool):
        await works.offer(files[0])
        await until(lambda: states(works) == {"M0": "running"})
        await works.offer(*files[1:3])
        await until(lambda: states(works) == {"M0": "running", "M1": "queued", "M2": "queued"})
        for number in range(3):
            await end(pool)
            await until(lambda number=number: list(states(works).values()).count("done") == number + 1)

    # the first one is prepared, and waited for
    calls = with_pool(tmp_path, body)
    assert [what for what, _ in calls] == ["prepare", "run", "run", "run"]


def test_pause_discards_what_is_prepared(tmp_path, files):
    """Results do not stay under temporary names for hours; after the pause, all is done as usual."""

    async def body(works, pool):
        view = View(works.settings, Counters(), tuple, int)
        view.attach(works.session)
        await works.offer(files[0])
        await until(lambda: pool.current)
        (early,) = view.snapshot().running, *view.snapshot().also_running
        assert (early.early, early.path, view.snapshot().waiting) == (True, str(files[0]), ())
        await end(pool)
        await until(lambda: works.jobs.early.running is None)
        await works.offer(files[1])
        await until(lambda: pool.current)
        view.pause()
        await until(lambda: not works.jobs.early.busy)
        assert not pool.prepared
        assert view.snapshot().running is None
        await until(lambda: set(states(works).values()) == {"queued"})
        view.resume()
        for number in range(2):
            await end(pool)
            await until(lambda number=number: list(states(works).values()).count("done") == number + 1)

    calls = with_pool(tmp_path, body)
    assert calls[:3] == [("prepare", "M0"), ("prepare", "M1"), ("discard", "M0")]
    assert calls[3:] == [("run", "M0"), ("run", "M1")]


def test_error_of_an_early_job_is_no_attempt(tmp_path, files):
    """The usual job tries it when the measurement has settled, and tells the error if there is still one."""

    async def body(works, pool):
        for path, error in zip(files, (MeasurementError("bad"), WorkerError("died", "worker_killed")), strict=False):
            await works.offer(path)
            await end(pool, error)
            await until(lambda path=path: states(works)[path.stem] == "running")
            await end(pool)
            await until(lambda path=path: states(works)[path.stem] == "done")
        assert [entry.attempts for entry in works.ledger.entries()] == [1, 1]

    assert with_pool(tmp_path, body) == [("prepare", "M0"), ("run", "M0"), ("prepare", "M1"), ("run", "M1")]


def test_lost_result_is_made_again(tmp_path, files):
    """The process that had prepared it was killed; what it left is removed."""

    async def body(works, pool):
        await works.offer(files[0])
        await end(pool)
        await until(lambda: works.jobs.early.running is None)
        pool.prepared.clear()
        await until(lambda: states(works) == {"M0": "running"})
        await end(pool)
        await until(lambda: states(works) == {"M0": "done"})
        assert works.ledger.untidy() == [str(tmp_path)]

    assert with_pool(tmp_path, body) == [("prepare", "M0"), ("run", "M0"), ("discard", "nothing")]


@pytest.mark.parametrize("kind", ["recorded", "copied"])
def test_file_at_rest_that_is_not_complete_starts_later(tmp_path, files, kind):
    """A recording that is flushed now and then, or a copy that stalls, is processed early after its last change."""

    async def body(works, pool):
        with contextlib.ExitStack() as writing:
            if kind == "recorded":
                h5 = writing.enter_context(h5py.File(files[0], "a"))
            else:
                content = files[0].read_bytes()
                files[0].write_bytes(content[:-1000])
            for number in range(5):
                if kind == "recorded":
                    h5.attrs["number"] = number
                    h5.flush()
                await works.offer(files[0])
                await asyncio.sleep(1)
            assert pool.calls == []
            if kind == "copied":
                files[0].write_bytes(content)
        await works.offer(files[0])
        await end(pool)
        assert works.jobs.running == ()
        await until(lambda: states(works) == {"M0": "done"})

    assert with_pool(tmp_path, body) == [("prepare", "M0"), ("run", "M0")]


def test_file_that_changes_while_it_is_looked_at_starts_later(tmp_path, files, measurement):
    """A recording may end at the moment of the look, before the daemon has noticed its last change."""

    async def body(works, pool):
        await works.offer(files[0])
        measurement(files[0], frames=70)
        await asyncio.sleep(1)
        assert pool.calls == []
        await works.offer(files[0])
        await end(pool)
        assert works.jobs.running == ()
        await until(lambda: states(works) == {"M0": "done"})

    assert with_pool(tmp_path, body) == [("prepare", "M0"), ("run", "M0")]


def test_file_that_is_gone_discards_it(tmp_path, files):
    async def body(works, pool):
        await works.offer(files[0])
        await end(pool)
        await until(lambda: works.jobs.early.running is None)
        files[0].unlink()
        await until(lambda: states(works) == {"M0": "skipped"})
        assert not pool.prepared

    assert with_pool(tmp_path, body) == [("prepare", "M0"), ("discard", "M0")]


def test_end_discards_it(tmp_path, files):
    """Both what is prepared and what is being prepared; the ledger knows the folder until that is certain."""

    async def body(works, pool):
        for path in files[:2]:
            await works.offer(path)
            await until(lambda: pool.current)
            if path == files[0]:
                await end(pool)
                await until(lambda: works.jobs.early.running is None)
        assert works.ledger.untidy() == [str(tmp_path)]

    calls = with_pool(tmp_path, body)
    assert calls == [("prepare", "M0"), ("prepare", "M1"), ("discard", "M0")]


@pytest.mark.parametrize(
    "settings",
    [
        watch(early_start=False),
        watch(settle_seconds=0.4),
        dataclasses.replace(SETTINGS, executor=ExecutorSettings(kind="dask", scheduler="tcp://127.0.0.1:1")),
    ],
)
def test_early_start_is_off(tmp_path, files, settings):
    """By its setting, on a cluster, and when there is no time for it."""

    async def body(works, pool):
        await works.offer(files[0])
        await until(lambda: states(works) == {"M0": "running"})
        await end(pool)
        await until(lambda: states(works) == {"M0": "done"})

    assert with_pool(tmp_path, body, settings) == [("run", "M0")]


def test_recordings_are_not_disturbed(tmp_path, files, measurement):
    """With `pause_while_acquiring`, nothing starts while a file grows, also not that file."""
    resources = dataclasses.replace(SETTINGS.resources, pause_while_acquiring=True)

    async def body(works, pool):
        await works.offer(files[0])
        measurement(files[0], frames=70)
        await works.offer(files[0])
        await works.offer(files[1])
        await until(lambda: pool.calls)
        assert [what for what, _ in pool.calls] == ["run"]
        await end(pool)
        await end(pool)
        await until(lambda: list(states(works).values()).count("done") == 2)

    with_pool(tmp_path, body, dataclasses.replace(SETTINGS, resources=resources))


def test_recording_suspends_an_early_job(tmp_path, files, measurement):
    """It goes on later, and its clock stands still meanwhile."""
    resources = dataclasses.replace(SETTINGS.resources, pause_while_acquiring=True, job_timeout_seconds=20.0)
    settings = dataclasses.replace(watch(settle_seconds=30.0), resources=resources)

    async def body(works, pool):
        await works.offer(files[0])
        await until(lambda: pool.current)
        await works.offer(files[1])
        measurement(files[1], frames=70)
        await works.offer(files[1])
        await until(lambda: ("hold", "") in works.executor.calls)
        await asyncio.sleep(25)
        assert pool.current
        await until(works.tracker.quiet.is_set)
        await end(pool)
        await until(lambda: "done" in states(works).values())

    calls = with_pool(tmp_path, body, settings)
    assert calls[:2] == [("prepare", "M0"), ("run", "M0")]
