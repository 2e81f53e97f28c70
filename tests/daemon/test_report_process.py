"""The process that makes reports, which outlives the sessions of a daemon."""

from __future__ import annotations

import asyncio
import os

import pytest

from dcnumd.config.values import Settings
from dcnumd.daemon.workers import Workers


def draw(begun, told):
    """Tell that it has begun, and return what it is told then."""
    begun.write_text("begun")
    return told.read_text()


@pytest.mark.slow
def test_request_for_a_plot_is_answered_although_the_config_is_read_again_meanwhile(tmp_path):
    """The next session uses the same process, and what runs aside in it is neither ended nor forgotten."""
    begun, told = tmp_path / "begun", tmp_path / "told"
    os.mkfifo(begun)
    os.mkfifo(told)

    async def ask():
        workers = Workers.of(Settings(), print, print)
        try:
            async with asyncio.timeout(120):
                asked = asyncio.create_task(workers.report_calls(Settings()).call_aside(draw, begun, told))
                assert await asyncio.to_thread(begun.read_text) == "begun"
                later = asyncio.create_task(workers.report_calls(Settings()).call_aside(os.getpid))
                # in the next turn of the loop, it would begin if it did not wait
                await asyncio.sleep(0)
                await asyncio.to_thread(told.write_text, "plot")
                return await asked, await later
        finally:
            await workers.close()

    plot, pid = asyncio.run(ask())
    assert plot == "plot"
    assert pid != os.getpid()
