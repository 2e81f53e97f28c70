"""The live process as the daemon calls it: what it raises, and what happens when it hangs."""

from __future__ import annotations

import asyncio
import functools
import os
import time

import pytest

from dcnumd.config.values import LogSettings, ResourceSettings, Settings
from dcnumd.daemon import logs
from dcnumd.daemon.recordings import process
from dcnumd.daemon.recordings.process import LiveProcess
from dcnumd.errors import MeasurementError, WorkerError
from dcnumd.processes.child import Child
from dcnumd.processes.courtesy import Courtesy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SETTINGS = Settings(log=LogSettings(level="critical"), resources=ResourceSettings(num_workers=1))


def refuse():
    raise MeasurementError("M1.rtdc: ends too early", "truncated")


def test_calls_end_within_their_time_or_with_an_error(monkeypatch, compiled_kernels):
    """Whatever goes wrong in the process is an error with a reason; a process that hangs is replaced."""
    del compiled_kernels
    monkeypatch.setattr(process, "CALL_SECONDS", 1.0)

    async def work():
        child = Child("live", functools.partial(logs.configure, SETTINGS.log), Courtesy(0))
        live = LiveProcess(child, SETTINGS)
        assert not live.ready
        try:
            first = await live.call(os.getpid)
            assert (live.ready, live.pid) == (True, first)
            with pytest.raises(MeasurementError, match="ends too early") as refused:
                await live.call(refuse)
            assert refused.value.reason == "truncated"
            with pytest.raises(WorkerError, match="ZeroDivisionError") as bug:
                await live.call(divmod, 1, 0)
            assert bug.value.reason == "internal"
            assert await live.call(os.getpid) == first
            with pytest.raises(WorkerError, match="does not answer for 1 s") as hang:
                await live.call(time.sleep, 60)
            assert hang.value.reason == "timeout"
            assert not live.ready
            assert await live.call(os.getpid) != first
        finally:
            await child.close(5.0)

    asyncio.run(work())


def test_process_that_hangs_is_replaced_at_once(monkeypatch, compiled_kernels):
    """The new one starts while the old one is being killed, and is left alone."""
    del compiled_kernels
    monkeypatch.setattr(process, "CALL_SECONDS", 1.0)

    async def work():
        child = Child("live", functools.partial(logs.configure, SETTINGS.log), Courtesy(0))
        live = LiveProcess(child, SETTINGS)
        keeping = asyncio.create_task(live.keep_ready())
        try:
            first = await live.call(os.getpid)
            with pytest.raises(WorkerError, match="does not answer"):
                await live.call(time.sleep, 60)
            monkeypatch.undo()
            assert await live.call(os.getpid) != first
            assert child.losses == 1
        finally:
            keeping.cancel()
            await child.close(5.0)

    asyncio.run(work())
