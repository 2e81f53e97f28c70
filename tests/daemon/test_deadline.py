"""How long a running job is waited for."""

from __future__ import annotations

import asyncio

from dcnumd.daemon.measurements import deadline
from tests.support.loop import in_loop


def waited_for(body, *, limit=0.0, size=0):
    """Return what comes of waiting for a job that does not end before `body` says so."""

    async def run():
        end = asyncio.Event()
        call = asyncio.create_task(end.wait())
        watch = deadline.Deadline(limit, size)
        helper = asyncio.create_task(body(watch, end))
        try:
            async with asyncio.timeout(30):
                return await watch.wait(call)
        finally:
            helper.cancel()
            call.cancel()

    return asyncio.run(run())


async def nothing(_watch, _end):
    return


def test_job_that_ends_is_done():
    """The end of the job ends the waiting, without limits too."""

    async def body(_watch, end):
        end.set()

    assert waited_for(body) == "done"


def test_job_that_takes_too_long():
    """Signs of life do not prolong the time that a job has in all."""

    async def body(watch, _end):
        while True:
            watch.sign_of_life()
            await asyncio.sleep(0.01)

    assert waited_for(body, limit=0.2) == "timeout"


def test_job_that_hangs(monkeypatch):
    """A job without a sign of life is given up long before its time is over; a larger file is given more."""
    monkeypatch.setattr(deadline, "STALL_SECONDS", 0.1)
    assert waited_for(nothing, limit=3600.0) == "stalled"


@in_loop
async def test_larger_file_is_given_more_time():
    """Some stages are silent while they read or write all of it."""
    small, large = (deadline.Deadline(3600.0, size).stall_seconds for size in (0, 10**10))
    assert large > small + 1000


def test_held_job_loses_no_time(monkeypatch):
    """While a job is held no time passes for it, however long that is."""
    monkeypatch.setattr(deadline, "STALL_SECONDS", 0.2)

    async def body(watch, end):
        watch.hold()
        await asyncio.sleep(0.5)
        watch.resume()
        end.set()

    assert waited_for(body, limit=0.3) == "done"

    async def hang_after_all(watch, _end):
        watch.hold()
        watch.resume()

    assert waited_for(hang_after_all, limit=3600.0) == "stalled"
