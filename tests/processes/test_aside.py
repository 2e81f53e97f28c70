"""Calls aside: in a copy of a child process, which goes on answering meanwhile."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time

import psutil
import pytest
import structlog

from dcnumd.config.values import LogSettings
from dcnumd.daemon import logs
from dcnumd.errors import MeasurementError, WorkerError
from dcnumd.processes.aside import Aside
from dcnumd.processes.child import Child
from dcnumd.processes.courtesy import Courtesy
from tests.support.loop import until

LONG_SECONDS = 600.0
WAIT_SECONDS = 120


QUIET = LogSettings(level="error")


def with_aside(body, nice=5, settings=QUIET):
    async def run():
        child = Child("test", functools.partial(logs.configure, settings), Courtesy(nice))
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await body(child, Aside(child, logs.flush))
        finally:
            await child.close(10.0)

    asyncio.run(run())


async def begun(aside):
    """Begin a long call aside; return its task, and its process."""
    task = asyncio.create_task(aside.call(time.sleep, LONG_SECONDS))
    await until(lambda: aside.pid is not None)
    return task, psutil.Process(aside.pid)


def answer(kind):
    """Return or raise what a test wants."""
    if kind == "error":
        raise MeasurementError("a copy can fail", "damaged")
    if kind == "unsendable":
        return lambda: None
    return os.getpid(), "x" * 1_000_000


def test_copy_answers_beside_its_child():
    """Its value, however large, and its errors; the child answers others meanwhile, and no copy is left over."""

    async def body(child, aside):
        pid = await child.call(os.getpid)
        copy, text = await aside.call(answer, "value")
        assert copy != pid
        assert len(text) == 1_000_000
        with pytest.raises(MeasurementError, match="a copy can fail") as failure:
            await aside.call(answer, "error")
        assert failure.value.reason == "damaged"
        with pytest.raises(RuntimeError, match="cannot be sent"):
            await aside.call(answer, "unsendable")
        task, process = await begun(aside)
        assert await child.call(os.getpid) == pid
        task.cancel()
        assert await aside.call(os.getppid) == pid
        assert not process.is_running()
        assert not psutil.Process(pid).children()
        assert child.losses == 0

    with_aside(body)


def test_dead_copy_is_the_failure_of_its_call():
    """Killed, crashed, ended, or gone with the child: the next call has a new copy."""

    async def body(child, aside):
        pid = await child.call(os.getpid)
        for function, argument, end in ((signal.raise_signal, signal.SIGSEGV, "SIGSEGV"), (os._exit, 3, "code 3")):
            with pytest.raises(WorkerError, match=end) as failure:
                await aside.call(function, argument)
            assert failure.value.reason == "worker_killed"
        task, _ = await begun(aside)
        aside.kill()
        with pytest.raises(WorkerError, match="SIGKILL"):
            await task
        assert child.pid == pid
        task, process = await begun(aside)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="SIGKILL") as failure:
            await task
        assert failure.value.reason == "worker_killed"
        # A container may have no process that takes away those whose parent died.
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        assert await aside.call(os.getppid) == child.pid != pid

    with_aside(body)


def test_copy_gives_way():
    """It can begin in the idle class or enter it; its child, for which others wait, never does."""

    async def body(child, aside):
        def classes():
            return os.sched_getscheduler(process.pid), os.sched_getscheduler(child.pid)

        task, process = await begun(aside)
        assert classes() == (os.SCHED_BATCH, os.SCHED_BATCH)
        aside.give_way(idle=True)
        assert classes() == (os.SCHED_IDLE, os.SCHED_BATCH)
        aside.kill()
        await asyncio.wait([task])
        task, process = await begun(aside)
        await until(lambda: classes() == (os.SCHED_IDLE, os.SCHED_BATCH))
        if os.geteuid() == 0:
            # Others may not leave the idle class.
            aside.give_way(idle=False)
            assert classes() == (os.SCHED_BATCH, os.SCHED_BATCH)
        child.hold()
        await until(lambda: process.status() == psutil.STATUS_STOPPED)
        child.resume()
        task.cancel()

    with_aside(body)


def test_copy_without_courtesy_stays_as_it_is():
    """Who wants no courtesy has none."""

    async def body(_child, aside):
        aside.give_way(idle=True)
        assert await aside.call(os.sched_getscheduler, 0) == os.sched_getscheduler(0)

    with_aside(body, nice=0)


def warn(text):
    """Log a line."""
    structlog.get_logger().warning("log.message", logger="test", message=text)


def test_lines_of_a_copy_are_written(tmp_path):
    """A copy has no thread of its child's, also none that writes lines; none of either is lost or written twice."""
    path = tmp_path / "log"

    async def body(child, aside):
        for number in range(5):
            await child.call(warn, f"child {number}")
            await aside.call(warn, f"copy {number}")

    with_aside(body, settings=LogSettings(level="warning", format="json", file=path))
    lines = path.read_text()
    for number in range(5):
        assert lines.count(f"child {number}") == lines.count(f"copy {number}") == 1
