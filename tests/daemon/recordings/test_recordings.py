"""Recordings that are read while they grow: their beginning, their end, and what may happen in between."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import functools
import pickle
import shutil

import pytest
import structlog

from dcnumd.config.values import (
    LiveSettings,
    LogSettings,
    ReportSettings,
    ResourceSettings,
    Settings,
    StateSettings,
    WatchSettings,
    WebSettings,
)
from dcnumd.daemon.ledger.records import State
from dcnumd.daemon.recordings import recordings
from dcnumd.daemon.recordings.reading import LAG_SECONDS
from dcnumd.errors import MeasurementError, WorkerError
from dcnumd.logic.calls import run_job
from dcnumd.logic.job import JobResult
from dcnumd.logic.stamp import Stamp
from dcnumd.simulate.spec import MeasurementSpec
from dcnumd.simulate.swmr import SwmrRecorder
from tests.report.test_live import steady
from tests.support.fakes import FakeExecutor
from tests.support.live import PROGRESS, FakeLive
from tests.support.works import with_works

pytestmark = pytest.mark.timeout(120)

SPEC = MeasurementSpec(size=(40, 80), frames=600, rate=3000, seed=3)
SETTLE_SECONDS = 100.0


class NotedJobs(concurrent.futures.Executor):
    """An executor that notes each job and the content of its spool, and says that the job is done."""

    def __init__(self):
        self.jobs = []
        self.spools = []

    def submit(self, function, job):
        early = function is run_job and job in self.jobs
        self.jobs.append(job)
        self.spools.append(job.spool.read_bytes() if job.spool is not None else None)
        future = concurrent.futures.Future()
        future.set_result(
            JobResult("done", "", job.path_in, job.path_out, "ppid", "hash", frames=600, frames_known=500, early=early)
        )
        return future


class Recorded:
    """An instrument that records in SWMR mode into the folder of working parts."""

    def __init__(self, works, path):
        self.works = works
        self.path = path
        self.recorder = SwmrRecorder(path, SPEC)

    async def grow(self, stop):
        """Record frames, and have the growth noticed."""
        self.recorder.append(stop)
        self.recorder.flush()
        self.works.settling.offer([(str(self.path), Stamp.at(str(self.path)))])
        await self.works.settling.all_admitted()

    async def end(self):
        """Record the last frames, and close the file."""
        self.recorder.append(SPEC.frames)
        self.recorder.finish()
        self.recorder.close()
        await self.works.offer(self.path)


def reading(test, *, early=False):
    """Decorate a test that gets `works` whose live process is a stand-in, and the `events` that are logged."""

    @functools.wraps(test)
    def run(tmp_path):
        settings = Settings(
            watch=WatchSettings(settle_seconds=SETTLE_SECONDS, early_start=early),
            resources=ResourceSettings(num_workers=1, min_free_gb=0.01),
            # the smallest spool that can be set
            live=LiveSettings(enabled=True, spool_mb=1),
            report=ReportSettings(enabled=False),
            web=WebSettings(listen="127.0.0.1:0"),
            state=StateSettings(folder=tmp_path / "state"),
            log=LogSettings(level="critical"),
        )
        (tmp_path / "state").mkdir(exist_ok=True)
        with structlog.testing.capture_logs() as events:
            live, executor = FakeLive(), FakeExecutor(NotedJobs())
            body = functools.partial(test, events=events)
            with_works(tmp_path, body, settings, with_jobs=True, executor=executor, live=live)
            # Whatever has happened, nothing is left behind.
            assert spools_in(tmp_path) == []
            assert live.open == {}

    del run.__wrapped__
    return run


async def holds(condition, seconds=SETTLE_SECONDS / 2):
    """Wait until a condition holds of which nobody is notified."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 -- see above
            await asyncio.sleep(recordings.PAUSE_SECONDS)


def spools_in(folder):
    return sorted(folder.glob("state/live/*"))


def named(events, event):
    return [one for one in events if one["event"] == event]


async def begin(works, name="M1.rtdc"):
    """Return a recording that is read."""
    recorded = Recorded(works, works.settings.watch.folders[0] / name)
    await recorded.grow(10)
    await recorded.grow(100)
    await works.until(lambda: shown(works, recorded)[0] is not None)
    return recorded


def shown(works, recorded):
    """Return what is shown of a recording, and the reason why it is not read."""
    candidate = works.tracker.candidate(str(recorded.path))
    return works.session.recordings.shown(candidate) if candidate is not None else (None, "no candidate")


async def spool_of(works, recorded):
    """Ask for the events of a recording, as its job does."""
    return await works.session.recordings.spool_for(str(recorded.path), recorded.path.stat().st_ino)


@reading
async def test_events_of_a_recording_go_to_its_job(works, events):
    """The job begins when the file has come to rest, and gets the file with the events; then this is removed."""
    recorded = await begin(works)
    (request,) = works.live.open.values()
    assert (request.job.path_in, request.view_seconds) == (recorded.path, 2.0)
    await holds(lambda: works.live.steps > 3)
    live, _ = shown(works, recorded)
    assert (live.frames, live.frames_done, live.events, live.yield_per_frame) == (1000, 900, 600, 0.6667)
    await recorded.end()
    works.live.progress = dataclasses.replace(PROGRESS, ended=True)
    await works.until(lambda: works.states() == [State.DONE])
    assert works.executor.pool.spools == [b"events"]
    (started,) = named(events, "live.started")
    assert started["path"] == str(recorded.path)
    (finished,) = named(events, "live.finished")
    assert (finished["frames"], finished["frames_known"], finished["frames_again"]) == (600, 500, 50)
    assert finished["job_id"] == request.job.job_id
    assert finished["seconds"] >= SETTLE_SECONDS
    counters = works.session.counters
    assert (counters.live_frames, counters.live_frames_again, counters.live_latency.number) == (900, 50, 1)


@reading
async def test_job_that_begins_early_waits_for_the_events(works, events):
    """Whoever asks for the events before the end was noticed gets them, too."""
    recorded = await begin(works)
    await holds(lambda: works.live.steps > 0)
    spool = await spool_of(works, recorded)
    assert spool.read_bytes() == b"events"
    assert await works.session.recordings.spool_for("/elsewhere.rtdc", 4711) is None
    assert shown(works, recorded)[0].frames == 1000
    assert works.live.open == {}
    works.live.progress = dataclasses.replace(PROGRESS, ended=True)
    await recorded.end()
    await works.until(lambda: works.states() == [State.DONE])
    assert works.executor.pool.spools == [b"events"]
    assert len(named(events, "live.finished")) == 1


@functools.partial(reading, early=True)
async def test_early_job_gets_the_events(works, events):
    """It begins during the settle time, and the usual job publishes what it has prepared."""
    recorded = await begin(works)
    await recorded.end()
    await works.until(lambda: named(events, "early.prepared"))
    assert works.states() == [State.SETTLING]
    assert works.executor.pool.spools == [b"events"]
    await works.until(lambda: works.states() == [State.DONE])
    assert works.executor.pool.spools == [b"events"] * 2
    assert not named(events, "early.discarded")
    assert len(named(events, "live.finished")) == 1


@reading
async def test_recording_in_another_mode_says_why_it_is_not_read(works, events):
    """It is processed after its end like any other."""
    path = works.settings.watch.folders[0] / "M1.rtdc"
    plain = path.with_name("plain")
    recorder = SwmrRecorder(plain, SPEC)
    recorder.append(SPEC.frames)
    recorder.finish()
    recorder.close()
    content = plain.read_bytes()
    plain.unlink()
    for size in (5000, 9000, len(content)):
        path.write_bytes(content[:size])
        await works.offer(path)
    candidate = works.tracker.candidate(str(path))
    await holds(lambda: works.session.recordings.shown(candidate) == (None, "live_mode"))
    await works.until(lambda: works.states() == [State.DONE])
    assert works.executor.pool.spools == [None]
    assert not [one for one in events if one["event"].startswith("live.")]


@reading
async def test_recording_on_a_share_is_not_read(works, events):
    """Parts of a file may arrive there late, or in another order."""
    works.session.recordings.shares = lambda: [str(works.settings.watch.folders[0])]
    recorded = Recorded(works, works.settings.watch.folders[0] / "M1.rtdc")
    await recorded.grow(10)
    await recorded.grow(100)
    await holds(lambda: shown(works, recorded) == (None, "live_share"))
    assert not [one for one in events if one["event"].startswith("live.")]
    recorded.recorder.close()


@reading
async def test_recording_that_changes_to_swmr_mode_is_read_from_then_on(works, events):
    """HDF5 creates a file before this mode begins."""
    path = works.settings.watch.folders[0] / "M1.rtdc"
    for size in (100, 200, 300):
        path.write_bytes(bytes(size))
        await works.offer(path)
    await asyncio.sleep(3 * recordings.CHECK_SECONDS)
    candidate = works.tracker.candidate(str(path))
    assert works.session.recordings.shown(candidate) == (None, "live_mode")
    recorded = await begin(works)
    assert shown(works, recorded)[1] == ""
    recorded.recorder.close()


@reading
async def test_number_of_recordings_is_limited(works, events):
    """A further one says so, and is read as soon as another one has ended."""
    recorded = [await begin(works, f"M{number}.rtdc") for number in range(recordings.MOST)]
    further = Recorded(works, recorded[0].path.with_name("further.rtdc"))
    await further.grow(10)
    await further.grow(100)
    await holds(lambda: shown(works, further) == (None, "live_many"))
    assert await spool_of(works, recorded[1]) is not None
    await works.until(lambda: shown(works, further)[0] is not None)
    assert len(named(events, "live.started")) == recordings.MOST + 1
    for one in (*recorded, further):
        one.recorder.close()


@reading
async def test_recording_that_is_being_opened_at_the_end_of_a_session_is_closed(works, events):
    """The process for recordings outlives the session, for example when the config is read again."""
    works.live.answers.clear()
    recorded = Recorded(works, works.settings.watch.folders[0] / "M1.rtdc")
    await recorded.grow(10)
    await recorded.grow(100)
    await holds(lambda: works.live.open)
    assert not named(events, "live.started")
    recorded.recorder.close()


async def replace(works, recorded):
    """Give the name of the recording to another file."""
    other = recorded.path.with_name("other")
    shutil.copy(recorded.path, other)
    other.replace(recorded.path)
    await works.offer(recorded.path)


async def delete(works, recorded):
    """Delete the recording, which is noticed when it seems to have come to rest."""
    del works
    recorded.path.unlink()


async def die(works, recorded):
    """Kill the live process between two calls."""
    del recorded
    works.live.kill()


def failing(error):
    """Return a function that lets each call in the live process fail."""

    async def fail(works, recorded):
        del recorded
        works.live.error = error

    return fail


FAULTS = {
    "replaced": replace,
    "vanished": delete,
    "worker_killed": die,
    "truncated": failing(MeasurementError("M1.rtdc: ends too early", "truncated")),
    "timeout": failing(WorkerError("the live process does not answer", "timeout", transient=False)),
    "internal": failing(ZeroDivisionError("a bug")),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_fault_only_costs_time(tmp_path, reason):
    """The reading is given up with the reason, and the ordinary job of the measurement gets no events."""

    @reading
    async def body(works, events):
        recorded = await begin(works)
        (kept,) = spools_in(tmp_path)
        await FAULTS[reason](works, recorded)
        await works.until(lambda: named(events, "live.abandoned"))
        (abandoned,) = named(events, "live.abandoned")
        assert (abandoned["path"], abandoned["reason"]) == (str(recorded.path), reason)
        assert not kept.exists()
        works.live.error = None
        works.live.progress = dataclasses.replace(PROGRESS, ended=True)
        if reason in {"replaced", "vanished"}:
            recorded.recorder.close()
            return
        assert shown(works, recorded) == (None, reason)
        await recorded.end()
        await works.until(lambda: works.states() == [State.DONE])
        assert works.executor.pool.spools == [None]
        assert works.session.counters.live_abandoned == {reason: 1}

    body(tmp_path)


@reading
async def test_file_that_cannot_be_read_live_is_given_up_once(works, events):
    """It is not tried again and again."""
    works.live.error = MeasurementError("M1.rtdc: its frames are 16 bit", "image_type")
    recorded = Recorded(works, works.settings.watch.folders[0] / "M1.rtdc")
    for stop in (10, 100, 200):
        await recorded.grow(stop)
    await works.until(lambda: named(events, "live.abandoned"))
    works.live.error = None
    await recorded.grow(300)
    await asyncio.sleep(SETTLE_SECONDS / 2)
    assert shown(works, recorded) == (None, "image_type")
    assert len(named(events, "live.abandoned")) == 1
    recorded.recorder.close()


@reading
async def test_measurement_that_fails_or_is_forgotten_needs_no_events(works, events):
    """The file with the events does not stay until the next start."""
    recorded = await begin(works)
    assert await spool_of(works, recorded) is not None
    recorded.recorder.close()
    recorded.path.write_bytes(b"no measurement at all")
    await works.offer(recorded.path)
    await works.until(lambda: works.states() == [State.FAILED])
    folder = recorded.path.parent
    await holds(lambda: not spools_in(folder))
    assert not named(events, "live.finished")


@reading
async def test_recording_that_continues_after_its_end_is_read_anew(works, events):
    """The events of its beginning are not taken for all of them."""
    recorded = await begin(works)
    first = await spool_of(works, recorded)
    await recorded.grow(200)
    await works.until(lambda: len(named(events, "live.started")) == 2)
    assert not first.exists()
    recorded.recorder.close()


@reading
async def test_progress_and_lag_are_logged(works, events):
    """Progress comes every 10 s, the lag when it has lasted for the first time."""
    works.live.progress = dataclasses.replace(PROGRESS, lagging=True, lag_seconds=3.4)
    recorded = await begin(works)
    await holds(lambda: shown(works, recorded)[0].lagging)
    await asyncio.sleep(3.5 * recordings.TELL_SECONDS)
    assert len(named(events, "live.progress")) in {3, 4}
    assert {(one["frames"], one["events"], one["lag_seconds"]) for one in named(events, "live.progress")} == {
        (1000, 600, 3.4)
    }
    assert len(named(events, "live.lagging")) == 1
    recorded.recorder.close()


@reading
async def test_beginning_that_is_caught_up_with_is_no_lag(works, events):
    """Much is recorded when workers start or the config is read again; fewer frames wait from step to step then."""
    waiting = dataclasses.replace(PROGRESS, frames=100_000, frames_done=0, lagging=True)
    works.live.progress = waiting
    recorded = await begin(works)
    await asyncio.sleep(2 * LAG_SECONDS)
    for done in range(10_000, 100_000, 10_000):
        works.live.progress = dataclasses.replace(waiting, frames_done=done)
        await asyncio.sleep(LAG_SECONDS / 2)
        assert not shown(works, recorded)[0].lagging
    works.live.progress = dataclasses.replace(waiting, frames=200_000, frames_done=100_000, lagging=False)
    await asyncio.sleep(2 * LAG_SECONDS)
    assert not named(events, "live.lagging")
    recorded.recorder.close()


@reading
async def test_recording_that_is_too_short_for_events_is_no_fault(works, events):
    """Its job computes all of it, and nobody is warned."""
    recorded = await begin(works)
    works.live.has_events = False
    works.live.progress = dataclasses.replace(PROGRESS, frames=30, frames_done=0, events=0, ended=True)
    await recorded.end()
    await works.until(lambda: works.states() == [State.DONE])
    assert works.executor.pool.spools == [None]
    assert len(named(events, "live.finished")) == 1
    assert not named(events, "live.abandoned")


async def rename(works, recorded, name="renamed.rtdc"):
    """Give the file of a recording another name, which is noticed at once; return its new path."""
    former, recorded.path = recorded.path, recorded.path.with_name(name)
    former.rename(recorded.path)
    await works.offer(recorded.path)


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("moment", ["while it grows", "at the end", "after the end"])
def test_events_follow_a_file_that_is_renamed(tmp_path, moment, early):
    """Many programs give a file its final name at the end: all that was found is for the job of this name."""

    @functools.partial(reading, early=early)
    async def body(works, events):
        recorded = await begin(works)
        former = str(recorded.path)
        if moment == "while it grows":
            await rename(works, recorded)
            await recorded.grow(300)
            await holds(lambda: shown(works, recorded)[0] is not None)
        await recorded.end()
        if moment == "at the end":
            await rename(works, recorded)
        works.live.progress = dataclasses.replace(PROGRESS, ended=True)
        if moment == "after the end":
            await holds(lambda: not works.live.open)
            await rename(works, recorded)
        await works.until(lambda: State.DONE in works.states())
        assert set(works.executor.pool.spools) == {b"events"}
        assert {job.path_in for job in works.executor.pool.jobs} == {recorded.path}
        (renamed,) = named(events, "live.renamed")
        assert (renamed["path"], renamed["former_path"]) == (str(recorded.path), former)
        (finished,) = named(events, "live.finished")
        assert finished["path"] == str(recorded.path)
        assert len(named(events, "live.started")) == 1
        assert not named(events, "live.abandoned")

    body(tmp_path)


@reading
async def test_name_that_the_next_recording_gets_is_no_obstacle(works, events):
    """Some programs record into a file of always the same name; each recording has its own events."""
    first = await begin(works, "current.rtdc")
    await first.end()
    works.live.progress = dataclasses.replace(PROGRESS, ended=True)
    await rename(works, first, "M1.rtdc")
    works.live.progress = PROGRESS
    second = await begin(works, "current.rtdc")
    await holds(lambda: len(named(events, "live.started")) == 2)
    assert [one["path"] for one in named(events, "live.started")] == [str(second.path)] * 2
    works.live.progress = dataclasses.replace(PROGRESS, ended=True)
    await second.end()
    await works.until(lambda: works.states().count(State.DONE) == 2)
    assert {one["path"] for one in named(events, "live.finished")} == {str(first.path), str(second.path)}
    assert works.executor.pool.spools == [b"events"] * 2


@reading
async def test_file_that_goes_away_after_its_end_takes_its_events_along(works, events):
    """The log says that they are lost, once it is clear that the file has no other name."""
    recorded = await begin(works)
    works.live.progress = dataclasses.replace(PROGRESS, ended=True)
    await recorded.end()
    await holds(lambda: not works.live.open)
    recorded.path.unlink()
    await works.until(lambda: named(events, "live.abandoned"))
    (abandoned,) = named(events, "live.abandoned")
    assert (abandoned["path"], abandoned["reason"]) == (str(recorded.path), "vanished")


@reading
async def test_second_name_of_a_recording_gets_no_events(works, events):
    """A hard link is another measurement; the events are for the one that was read."""
    recorded = await begin(works)
    linked = recorded.path.with_name("linked.rtdc")
    linked.hardlink_to(recorded.path)
    assert await works.session.recordings.spool_for(str(linked), linked.stat().st_ino) is None
    assert not named(events, "live.renamed")
    linked.unlink()
    recorded.recorder.close()


@reading
async def test_warnings_have_the_time_since_when(works, events):
    """As long as a check warns, this time stays; a check that warns again has a new one. The plot is numbered."""
    works.live.values = pickle.dumps(steady(masks_dropped=2000))
    recorded = await begin(works)
    await works.until(lambda: shown(works, recorded)[0].plot >= 2)
    first, _ = shown(works, recorded)
    (check,) = first.checks
    assert (check.name, check.state, first.light) == ("masks_dropped", "warning", "yellow")
    await works.until(lambda: shown(works, recorded)[0].plot >= 4)
    assert shown(works, recorded)[0].checks == (check,)
    assert works.session.recordings.plot(works.tracker.candidate(str(recorded.path)).entry_id).startswith(b"\x89PNG")
    works.live.values = pickle.dumps(steady())
    await works.until(lambda: not shown(works, recorded)[0].checks)
    works.live.values = pickle.dumps(steady(masks_dropped=2000))
    await works.until(lambda: shown(works, recorded)[0].checks)
    assert shown(works, recorded)[0].checks[0].since > check.since
    recorded.recorder.close()


@reading
async def test_pause_begins_no_reading(works, events):
    """What is read already continues, like a job that runs."""
    first = await begin(works, "M1.rtdc")
    works.session.pause(paused=True)
    second = Recorded(works, first.path.with_name("M2.rtdc"))
    await second.grow(10)
    await second.grow(100)
    before = works.live.steps
    await asyncio.sleep(SETTLE_SECONDS / 10)
    assert works.live.steps > before
    assert shown(works, second) == (None, "")
    works.session.pause(paused=False)
    await works.until(lambda: shown(works, second)[0] is not None)
    assert not named(events, "live.abandoned")
    for one in (first, second):
        one.recorder.close()


@reading
async def test_full_disk_is_not_filled_further(works, events):
    """The ledger is on the same disk, so the events get no more than what others leave."""
    works.session.recordings._spools._free_bytes = 10**18
    recorded = Recorded(works, works.settings.watch.folders[0] / "M1.rtdc")
    await recorded.grow(10)
    await recorded.grow(100)
    await works.until(lambda: named(events, "live.abandoned"))
    assert named(events, "live.abandoned")[0]["reason"] == "no_space"
    recorded.recorder.close()


def test_files_of_an_earlier_run_are_removed_at_the_start(tmp_path):
    """A daemon that was killed leaves them behind."""
    left = tmp_path / "state" / "live" / "abc-1.spool"

    @reading
    async def body(works, events):
        del works, events
        await holds(lambda: not left.exists())

    left.parent.mkdir(parents=True)
    left.write_bytes(b"events")
    body(tmp_path)


@reading
async def test_recording_that_does_not_grow_for_some_time_is_read_on(works, events):
    """A pause that is longer than the settle time is not its end."""
    recorded = await begin(works)
    await asyncio.sleep(3 * SETTLE_SECONDS)
    await recorded.grow(200)
    await asyncio.sleep(SETTLE_SECONDS / 2)
    assert len(named(events, "live.started")) == 1
    assert len(works.live.open) == 1
    recorded.recorder.close()


@reading
async def test_recording_that_was_interrupted_ends_with_its_measurement(works, events):
    """Its recorder has crashed: after the usual patience the measurement fails, and with it the reading."""
    recorded = await begin(works)
    await holds(lambda: works.states() == [State.FAILED], 100 * SETTLE_SECONDS)
    await holds(lambda: named(events, "live.abandoned"))
    assert named(events, "live.abandoned")[0]["reason"] == "incomplete"
    recorded.recorder.close()
