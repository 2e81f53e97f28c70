"""What the supervisor tells by itself."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from dcnumd.config import LogSettings, Settings, StateSettings, WatchSettings
from dcnumd.daemon import supervisor
from dcnumd.daemon.ledger import Ledger
from dcnumd.daemon.overseer import Overseer
from dcnumd.daemon.shift import Shift
from dcnumd.logic.stamp import Stamp


@contextlib.contextmanager
def shift_in(folder):
    """Yield a supervisor and its shift, with nothing running."""
    settings = Settings(
        watch=WatchSettings(folders=(folder,)), state=StateSettings(folder), log=LogSettings(level="debug")
    )
    with Ledger.open(folder) as ledger:
        above = supervisor.Supervisor(settings, once=False)
        overseer = Overseer(settings, above._pipeline, recognize=False)
        processes = above._probe, overseer, above._report
        above._shift = Shift(settings, ledger, *processes, asyncio.Event(), above._tally, above, once=False)
        yield above, above._shift, ledger


def test_heartbeat_tells_queue_and_last_success(tmp_path, monkeypatch):
    """The daemon says regularly that it lives, and what waits since when."""
    monkeypatch.setattr(supervisor, "HEARTBEAT_SECONDS", 0.01)

    async def run():
        with shift_in(tmp_path) as (above, shift, ledger), structlog.testing.capture_logs() as heard:
            shift.jobs.enqueue(ledger.add(str(tmp_path / "M.rtdc"), Stamp(1, 2, 3, 4), "job"))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(above._beat(), 0.5)
        return heard

    beat = asyncio.run(run())[-1]
    assert beat["event"] == "daemon.heartbeat"
    assert beat["queue"] == 1
    assert beat["oldest_wait_seconds"] >= 0.1
    assert {"running", "last_success", "settling"} <= set(beat)
