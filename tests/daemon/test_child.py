"""The persistent child process: one for all calls, replaced when it dies, gone when it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os

import psutil
import pytest
import structlog

from dcnumd.config import LogSettings, Settings
from dcnumd.daemon import supervisor
from dcnumd.daemon.child import Child
from dcnumd.daemon.jobs import JobRunner
from dcnumd.daemon.ledger import Ledger
from dcnumd.daemon.records import Stamp
from dcnumd.daemon.supervisor import Supervisor
from dcnumd.errors import JobCancelledError, MeasurementError, WorkerError
from dcnumd.logic.executor import run_job
from dcnumd.logic.job import Progress

LOG = LogSettings(level="error")


def job_for(path, job_id="1"):
    job = Settings().job_for(path, job_id)
    return dataclasses.replace(job, num_workers=1, existing="replace")


def with_child(body, on_progress=None):
    async def run():
        child = Child("test", LOG, 5, on_progress)
        try:
            await body(child)
        finally:
            await child.close(10.0)

    asyncio.run(run())


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


def test_killed_child_is_reported_and_replaced():
    """Death in the middle of a call is that call's failure only."""

    async def body(child):
        first = await child.call(os.getpid)
        with pytest.raises(WorkerError) as failure:
            await child.call(os._exit, 3)
        assert (failure.value.reason, failure.value.transient) == ("worker_killed", True)
        assert await child.call(os.getpid) != first

    with_child(body)


def test_child_that_died_idle_is_nobodys_fault():
    """The next call gets a new process and does not fail."""

    async def body(child):
        first = await child.call(os.getpid)
        process = psutil.Process(first)
        child.kill()
        await asyncio.to_thread(process.wait, 10)
        assert await child.call(os.getpid) != first

    with_child(body)


def test_job_reports_progress_and_can_be_stopped(tmp_path, measurement):
    """What a job reports arrives; a job that is asked to stop raises; the next one is not affected."""
    path = tmp_path / "M.rtdc"
    measurement(path, frames=4000, shape=(80, 320))
    heard = []

    async def body(child):
        await child.start()
        started = asyncio.Event()
        child._on_progress = lambda progress: (heard.append(progress), started.set())
        running = asyncio.create_task(child.call(run_job, job_for(path, "job"), "first"))
        await asyncio.wait_for(started.wait(), 120)
        child.ask_to_stop("another")
        child.ask_to_stop("first")
        with pytest.raises(JobCancelledError):
            await running
        assert sorted(p.name for p in tmp_path.iterdir()) == ["M.rtdc"]
        result = await child.call(run_job, job_for(path, "job"), "second")
        assert result.frames == 4000

    with_child(body, on_progress=heard.append)
    assert {progress.job_id for progress in heard} == {"job"}
    assert all(progress.frames == 4000 for progress in heard)


def test_foreseen_fault_crosses_the_border_whole(tmp_path):
    """Reason and text of an error in the child are those of the error here."""

    async def body(child):
        (tmp_path / "M.rtdc").write_bytes(b"nothing")
        with pytest.raises(MeasurementError, match=r"M\.rtdc") as failure:
            await child.call(run_job, job_for(tmp_path / "M.rtdc"))
        assert failure.value.reason != "error"

    with_child(body, on_progress=print)


def test_killed_job_leaves_no_worker(tmp_path, measurement):
    """The workers of a job go with their process."""
    path = tmp_path / "M.rtdc"
    measurement(path)

    async def body(child):
        result = await child.call(run_job, job_for(path))
        workers = [psutil.Process(pid) for pid in result.worker_pids]
        assert workers
        child.kill()
        assert psutil.wait_procs(workers, timeout=10)[1] == []

    with_child(body, on_progress=print)


def test_heartbeat_tells_queue_and_last_success(tmp_path, monkeypatch):
    """The daemon says regularly that it lives."""
    monkeypatch.setattr(supervisor, "HEARTBEAT_SECONDS", 0.01)

    async def run():
        with (
            Ledger.open(tmp_path) as ledger,
            structlog.testing.capture_logs() as heard,
            contextlib.suppress(TimeoutError),
        ):
            await asyncio.wait_for(Supervisor(Settings(), ledger, once=False)._beat(), 0.5)
        return heard

    beat = asyncio.run(run())[0]
    assert beat["event"] == "daemon.heartbeat"
    assert {"queue", "oldest_wait_seconds", "running", "last_success"} <= set(beat)


def test_progress_is_logged_sparingly(tmp_path):
    """Of many reports one in a while becomes a line; the ledger then knows how far the job is."""

    async def run():
        with Ledger.open(tmp_path) as ledger, structlog.testing.capture_logs() as heard:
            runner = JobRunner(Settings(), ledger, on_end=lambda: None)
            runner.running = ledger.add("/in/M.rtdc", Stamp(1, 2, 3, 4), "job")
            for done in range(100, 1000, 100):
                runner._on_progress(Progress("job", "segmentation", done, 1000, done // 2))
            runner._on_progress(Progress("another", "segmentation", 5, 10, 1))
            return heard, ledger.get(runner.running.id).frames_done

    heard, frames_done = asyncio.run(run())
    (line,) = heard
    assert (line["event"], line["job_id"], line["path"]) == ("job.progress", "job", "/in/M.rtdc")
    assert (line["frames_done"], line["frames"], line["events"]) == (100, 1000, 50)
    assert frames_done == 100
