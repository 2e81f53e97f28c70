"""The persistent child process: one for all calls, held or replaced when it dies, gone when it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import functools
import os
import pathlib
import signal
import subprocess
import sys

import psutil
import pytest
import structlog

from dcnumd import routing
from dcnumd.config.values import LogSettings, Settings
from dcnumd.daemon import logs
from dcnumd.errors import JobCancelledError, MeasurementError, WorkerError
from dcnumd.logic.calls import run_job, warm_up
from dcnumd.processes import child as child_module
from dcnumd.processes.child import Child
from dcnumd.processes.courtesy import Courtesy
from dcnumd.write.result import remove_leftovers
from tests.support.loop import until

CONFIGURE = functools.partial(logs.configure, LogSettings(level="error"))


def job_for(path, job_id="1"):
    job = routing.job_for(Settings(), path, job_id)
    return dataclasses.replace(job, num_workers=1, existing="replace")


POLITE = Courtesy(5)


def with_child(body, on_progress=None, courtesy=POLITE):
    async def run():
        child = Child("test", CONFIGURE, courtesy, on_progress)
        try:
            await body(child)
        finally:
            await child.close(10.0)

    asyncio.run(run())


def group_of(pid):
    """Return the processes of the group that a process leads, without zombies."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_calls_share_one_process_which_then_ends():
    """The process is started by the first call, serves all others, and is gone after closing."""
    pids = []

    async def body(child):
        pids.extend([await child.call(os.getpid), await child.call(os.getpid)])
        assert child.pid == pids[0]
        assert psutil.Process(pids[0]).nice() >= 5
        assert os.getpgid(pids[0]) == pids[0]

    with_child(body)
    assert pids[0] == pids[1]
    assert not psutil.pid_exists(pids[0])


def test_dead_child_is_reported_and_replaced():
    """Death in the middle of a call is that call's failure only, and named; idle, it is nobody's fault."""

    async def body(child):
        first = await child.call(os.getpid)
        with pytest.raises(WorkerError) as failure:
            await child.call(os._exit, 3)
        assert (failure.value.reason, failure.value.transient) == ("worker_killed", True)
        second = await child.call(os.getpid)
        assert second != first
        process = psutil.Process(second)
        child.kill()
        await asyncio.to_thread(process.wait, 10)
        assert await child.call(os.getpid) != second
        with pytest.raises(WorkerError, match="SIGSEGV") as failure:
            await child.call(signal.raise_signal, signal.SIGSEGV)
        assert failure.value.reason == "worker_killed"

    with_child(body)


@pytest.mark.slow
def test_job_is_stopped_then_held_then_ended(tmp_path, measurement):
    """A job that is asked to stop raises; the next one can be held, goes on, and its workers go with the child."""
    path = tmp_path / "M.rtdc"
    measurement(path, frames=4000, shape=(80, 320))
    heard = []

    async def body(child):
        async def begin():
            started = asyncio.Event()
            child.on_note = lambda progress: (heard.append(progress), started.set())
            running = asyncio.create_task(child.call(run_job, job_for(path, "job")))
            await asyncio.wait_for(started.wait(), 120)
            return running

        await child.start()
        child.ask_to_stop()
        running = await begin()
        child.ask_to_stop()
        with pytest.raises(JobCancelledError):
            await running
        assert sorted(p.name for p in tmp_path.iterdir()) == ["M.rtdc"]
        running = await begin()
        await stands_still(child, running)
        result = await running
        assert result.frames == 4000
        workers = [psutil.Process(pid) for pid in result.worker_pids]
        assert workers
        # reason and text of an error in the child are those of the error here
        (tmp_path / "N.rtdc").write_bytes(b"nothing")
        with pytest.raises(MeasurementError, match=r"N\.rtdc") as failure:
            await child.call(run_job, job_for(tmp_path / "N.rtdc"))
        assert failure.value.reason != "error"
        child.kill()
        assert psutil.wait_procs(workers, timeout=10)[1] == []

    with_child(body, on_progress=heard.append)
    assert {progress.job_id for progress in heard} == {"job"}
    assert all(progress.frames == 4000 for progress in heard)


async def stands_still(child, running):
    """Hold a child during a job: all its processes stop at once and use no processor time; let them go on."""
    child.hold()
    family = group_of(child.pid)
    assert len(family) >= 2
    await until(lambda: all(process.status() == psutil.STATUS_STOPPED for process in family))
    before = [process.cpu_times() for process in family]
    await asyncio.wait([running], timeout=0.5)
    assert [process.cpu_times() for process in family] == before
    assert child.alive
    assert not running.done()
    child.resume()


@pytest.mark.slow
def test_courtesy_holds_for_the_child_and_its_workers():
    """Nice, batch scheduling, idle I/O class and processors are those that were asked for."""
    allowed = sorted(os.sched_getaffinity(0))[:1]

    async def body(child):
        await child.call(warm_up, 0)
        family = group_of(child.pid)
        assert len(family) == 3, "the child, the fork server, and one worker for the one processor"
        for process in family:
            assert process.nice() >= 7
            assert os.sched_getscheduler(process.pid) == os.SCHED_BATCH
            assert process.ionice().ioclass == psutil.IOPRIO_CLASS_IDLE
            assert process.cpu_affinity() == allowed

    with_child(body, courtesy=Courtesy(7, tuple(allowed)))


def test_courtesy_that_the_system_refuses_is_left_out():
    """Processors that do not exist do not keep the child from starting; no courtesy changes nothing."""

    async def body(child):
        assert await child.call(os.nice, 0) == os.nice(0)
        assert await child.call(os.sched_getscheduler, 0) == os.sched_getscheduler(0)
        assert await child.call(os.sched_getaffinity, 0) == os.sched_getaffinity(0)

    with_child(body, courtesy=Courtesy(0, (4000,)))


def test_child_that_dies_is_noticed_at_once():
    """Also when it has nothing to do; the event is cleared by the next start."""

    async def body(child):
        assert not child.alive
        await child.start()
        assert child.alive
        assert not child.gone.is_set()
        os.kill(child.pid, signal.SIGKILL)
        await asyncio.wait_for(child.gone.wait(), 5)
        assert not child.alive
        assert child.pid is None
        await child.start()
        assert child.alive
        assert not child.gone.is_set()

    with structlog.testing.capture_logs() as heard:
        with_child(body)
    assert [line["event"] for line in heard] == ["worker.started", "worker.lost", "worker.started"]


def test_system_without_processes_to_give_away_is_told(monkeypatch):
    """A start that the system refuses fails as one that may pass, and the next one succeeds."""

    def refuse(*_):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    async def body(child):
        with monkeypatch.context() as patch:
            patch.setattr(child_module, "PipeExecutor", refuse)
            with pytest.raises(WorkerError, match="cannot be started: Resource temporarily") as failure:
                await child.call(os.getpid)
        assert (failure.value.reason, failure.value.transient) == ("worker_start", True)
        assert await child.call(os.getpid) == child.pid

    with_child(body)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["kill", "terminate", "close"])
def test_held_child_can_be_ended(end):
    """A stopped process would not heed SIGTERM, nor the wish to end."""

    async def body(child):
        await child.call(warm_up, 1)
        family = group_of(child.pid)
        child.hold()
        await until(lambda: all(process.status() == psutil.STATUS_STOPPED for process in family))
        if end == "close":
            await asyncio.wait_for(child.close(5.0), 15)
        else:
            getattr(child, end)()
            await asyncio.wait_for(child.gone.wait(), 15)
        await until(lambda: not any(process.is_running() and process.status() != "zombie" for process in family))

    with_child(body)


@pytest.mark.slow
def test_killed_child_takes_a_stopped_worker_along(tmp_path, measurement):
    """A job that hangs since its worker does: all its processes end, and nobody's temporary file stays locked."""
    path = tmp_path / "M.rtdc"
    measurement(path, frames=4000, shape=(80, 320))

    async def body(child):
        await child.call(warm_up, 1)
        started = asyncio.Event()
        child.on_note = lambda progress: started.set() if progress.stage == "segmentation" else None
        running = asyncio.create_task(child.call(run_job, job_for(path)))
        await asyncio.wait_for(started.wait(), 120)
        family = group_of(child.pid)
        for process in family:
            if process.pid != child.pid:
                process.suspend()
        child.kill()
        with pytest.raises(WorkerError):
            await running
        assert psutil.wait_procs(family, timeout=10)[1] == []

    with_child(body, on_progress=print)
    (left,) = remove_leftovers(tmp_path)
    assert left.name.startswith(".M_dcn")
    assert [name.name for name in tmp_path.iterdir()] == ["M.rtdc"]


DAEMON = """
import asyncio, functools, os, signal, sys
from dcnumd.config.values import LogSettings
from dcnumd.processes.child import Child
from dcnumd.daemon import logs
from dcnumd.logic.calls import warm_up
from dcnumd.processes.courtesy import Courtesy

async def run():
    pipeline = Child("pipeline", functools.partial(logs.configure, LogSettings(level="error")), Courtesy(5), print)
    await pipeline.call(warm_up, 2)
    if sys.argv[1] == "held":
        pipeline.hold()
    print("leader", pipeline.pid, file=sys.stderr, flush=True)
    await asyncio.sleep(1000)

if __name__ == "__main__":
    asyncio.run(run())
"""


@pytest.mark.slow
@pytest.mark.parametrize("state", ["running", "held", "stopped worker"])
def test_everybody_dies_with_the_supervisor(state, tmp_path):
    """SIGKILL to the supervisor: its child, the fork server and the workers end, in whatever state they are."""
    script = tmp_path / "daemon.py"
    script.write_text(DAEMON)
    (tmp_path / "temporary").mkdir()
    with subprocess.Popen(
        [sys.executable, script, state],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary")},
    ) as daemon:
        leader = int(next(line for line in daemon.stderr if line.startswith("leader")).split()[1])
        family = group_of(leader)
        assert len(family) == 4
        if state == "stopped worker":
            family[-1].suspend()
        daemon.kill()
        daemon.wait()
        # nobody may care for the orphans, but none of them runs
        asyncio.run(until(lambda: not group_of(leader)))
    assert list(pathlib.Path(tmp_path / "temporary").iterdir()) == []
