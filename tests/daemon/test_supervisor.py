"""What the supervisor tells by itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
import structlog

from dcnumd.config.values import LogSettings, Settings, StateSettings, WatchSettings
from dcnumd.daemon import supervisor, systemd
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.daemon.measurements.queue import Waiting
from dcnumd.daemon.session import Session
from dcnumd.daemon.systemd import Notifier
from dcnumd.errors import ResultError
from dcnumd.logic.stamp import Stamp
from tests.support.events import fault_of


@contextlib.contextmanager
def session_in(folder):
    """Yield a supervisor and its session, with nothing running."""
    settings = Settings(
        watch=WatchSettings(folders=(folder,)), state=StateSettings(folder), log=LogSettings(level="debug")
    )
    with Ledger.open(folder) as ledger:
        above = supervisor.Supervisor(settings, once=False)
        above._session = Session(settings, ledger, above._workers, above._counters, above, once=False)
        yield above, above._session, ledger


def test_heartbeat_tells_queue_and_last_success(tmp_path, monkeypatch):
    """The daemon says regularly that it lives, and what waits since when."""
    monkeypatch.setattr(supervisor, "HEARTBEAT_SECONDS", 0.01)

    async def run():
        with session_in(tmp_path) as (above, session, ledger), structlog.testing.capture_logs() as heard:
            session.lifecycle.queue.put(ledger.add(str(tmp_path / "M.rtdc"), Stamp(1, 2, 3, 4), "job"), 0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(above._beat(), 0.5)
        return heard

    beat = asyncio.run(run())[-1]
    assert beat["event"] == "daemon.heartbeat"
    assert beat["queue"] == 1
    assert beat["oldest_wait_seconds"] >= 0.1
    assert {"running", "last_success", "settling"} <= set(beat)
    assert beat["blocked"] == []


def test_heartbeat_and_status_line_tell_that_results_have_no_place(tmp_path, monkeypatch):
    """Who looks at the log or at `systemctl status` hears the event, the cause and the cure as long as it lasts."""
    monkeypatch.setattr(supervisor, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(systemd, "STATUS_SECONDS", 0.01)
    address = tmp_path / "notify"

    async def run(listener):
        with session_in(tmp_path) as (above, session, ledger), structlog.testing.capture_logs() as heard:
            entry = ledger.add(str(tmp_path / "M.rtdc"), Stamp(1, 2, 3, 4), "job")
            waiting = Waiting((0, 0, 0), entry, 0.0)
            session.jobs.outputs.park(waiting, ResultError("/out: is read-only; mount it", "output_read_only"))
            above._notifier = Notifier(str(address))
            beat = asyncio.create_task(above._beat())
            told = await asyncio.get_running_loop().sock_recv(listener, 4096)
            beat.cancel()
        return heard, told

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.setblocking(False)
        listener.bind(str(address))
        heard, told = asyncio.run(run(listener))
    (beat,) = [event for event in heard if event["event"] == "daemon.heartbeat"][:1]
    assert beat["blocked"] == [
        {
            "folder": str(tmp_path),
            "problem": "output.blocked",
            "reason": "output_read_only",
            "error": "/out: is read-only; mount it",
            "waiting": 1,
        }
    ]
    line = {**beat, "level": "info", "timestamp": "2026-01-02T03:04:05.678901Z"}
    assert fault_of({key: value for key, value in line.items() if key != "log_level"}) is None
    assert told.decode() == (
        "STATUS=waiting; 1 queued, 0 settling; output.blocked: The folder of the results is read-only: "
        "/out: is read-only; mount it. Ask the engineer to make it writable; processing then "
        "continues by itself. 1 measurement waits."
    )


def test_many_changes_give_one_status_line(tmp_path, monkeypatch):
    """The line is as late as that, and tells the latest state."""
    monkeypatch.setattr(systemd, "STATUS_SECONDS", 0.05)
    address = tmp_path / "notify"

    async def run(listener):
        told = []
        with session_in(tmp_path) as (above, session, ledger):
            above._notifier = Notifier(str(address))
            for number in range(5):
                entry = ledger.add(str(tmp_path / f"M{number}.rtdc"), Stamp(1, 2, 3, 4), "job")
                session.lifecycle.queue.put(entry, 0)
                above.on_change()
            told.append(await asyncio.get_running_loop().sock_recv(listener, 4096))
            with pytest.raises(BlockingIOError):
                listener.recv(4096)
            above.on_change()
            told.append(await asyncio.get_running_loop().sock_recv(listener, 4096))
        return told

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.setblocking(False)
        listener.bind(str(address))
        assert asyncio.run(run(listener)) == [b"STATUS=waiting; 5 queued, 0 settling"] * 2
