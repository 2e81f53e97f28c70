"""What `status` says of recordings that are processed while they grow."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import subprocess
import sys
import threading

import pytest
import rich.console

from dcnumd.commands.status_screen import View, of_daemon, screen
from dcnumd.commands.status_values import Status
from dcnumd.config.file import load_settings
from dcnumd.daemon.live.answers import NAME, keep_answering
from dcnumd.daemon.ownership import owner_lock
from tests.commands.test_status import NOW
from tests.support.faults import wait_until
from tests.support.web import ago, recorded, snapshot
from tests.web.test_recorded import CLOGGING


class Shown:
    """A stand-in for the view of a daemon."""

    def __init__(self, state):
        self._state = state

    def snapshot(self):
        return self._state


async def answer_until(stop, folder, state):
    """Answer the command until an event is set."""
    answering = asyncio.create_task(keep_answering(folder, Shown(state)))
    await stop.wait()
    answering.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await answering


@pytest.fixture
def recording(world):
    """Run what answers the command, of a daemon that reads a recording; return its settings."""
    settings = load_settings(world.config)
    state = snapshot(recording=(recorded(checks=(CLOGGING,), light="red"),), time=ago())
    folder, stop, loop = settings.state_folder(), asyncio.Event(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=[answer_until(stop, folder, state)])
    thread.start()
    try:
        with owner_lock(folder):
            wait_until((folder / NAME).exists)
            yield settings
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def printed(config, *options):
    """Return what the command prints in a process of its own, which can see the lock of this one."""
    command = [sys.executable, "-m", "dcnumd", "status", "-c", config, *options]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


LINE = "134,550 events, 2,242/s, 0.4 s behind the camera; clogging"


@pytest.mark.usefixtures("recording")
def test_plain_text_has_a_line_for_each_recording(world):
    """Events, rate, lag and warnings."""
    (line,) = [one for one in printed(world.config).splitlines() if one.startswith("live")]
    assert line == f"live     /srv/acquisition/2026-11-21/M200_data.rtdc: {LINE}"


@pytest.mark.usefixtures("recording")
def test_json_has_what_the_page_shows(world):
    """All but the plot and the courses."""
    ((path, live),) = json.loads(printed(world.config, "--json"))["live"].items()
    assert path.endswith("M200_data.rtdc")
    assert (live["frames"], live["events"], live["lag_seconds"], live["light"]) == (207_000, 134_550, 0.4, "red")
    assert [check["name"] for check in live["checks"]] == ["clogging"]
    assert not {"plot", "event_rate", "brightness"} & live.keys()


def test_screen_has_it_at_the_top(recording, world):
    """It changes each second, like the bar of a job."""
    status = Status.of(recording, world.ledger)
    told = of_daemon(recording, status, 4711)
    view = View(recording, status, 4711, NOW, told.conditions, "", told.workers, told.live)
    console = rich.console.Console(file=io.StringIO(), width=100, color_system=None, highlight=False)
    console.print(screen(view, 100, 24))
    assert f"recording M200_data.rtdc: {LINE}" in console.file.getvalue()
