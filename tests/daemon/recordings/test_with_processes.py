"""Recordings that are read by a real daemon, while the instrument, the daemon or its live process are disturbed."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from tests.support.daemon import START_SECONDS
from tests.support.faults import assert_done_once, result_of, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LIVE = '[live]\nenabled = true\n[web]\nlisten = "127.0.0.1:0"\n'


@contextlib.contextmanager
def recording(folder, frames=4000, rate=1000):
    """Let an instrument record in SWMR mode in a process of its own; yield it, and the path of its file."""
    before = set(folder.glob("*_data.rtdc"))
    command = [sys.executable, "-m", "dcnumd", "simulate", folder, "--swmr", "--flush", "0.2", "--size", "48x120"]
    command += ["--frames", str(frames), "--rate", str(rate), "--density", "0.5"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: set(folder.glob("*_data.rtdc")) - before)
            (path,) = set(folder.glob("*_data.rtdc")) - before
            yield process, path
        finally:
            process.kill()


def spools(state_folder):
    return list(state_folder.glob("live/*"))


def live_pid(daemon):
    return daemon.matching("worker.started", role="live")[-1]["pid"]


def test_faults_during_recordings_only_cost_time(start_daemon, write_config, watched_folder, state_folder):
    """Each measurement is processed once and correctly, whatever happens while it is read; no file stays behind."""
    daemon = start_daemon(config=write_config(LIVE, settle=1.0))
    daemon.wait_for("worker.started", role="live", timeout=START_SECONDS)

    with recording(watched_folder) as (instrument, undisturbed):
        daemon.wait_for("live.started", path=str(undisturbed))
        wait_until(lambda: spools(state_folder), daemon=daemon)
        assert instrument.wait() == 0
    finished = daemon.wait_for("live.finished", path=str(undisturbed))
    assert finished["frames"] == 4000
    assert not daemon.matching("live.abandoned")

    with recording(watched_folder) as (instrument, path):
        daemon.wait_for("live.started", path=str(path))
        os.kill(live_pid(daemon), signal.SIGKILL)
        daemon.wait_for("live.abandoned", path=str(path), reason="worker_killed")
        daemon.wait_for("worker.started", role="live", count=2)
        assert instrument.wait() == 0
    daemon.wait_for("job.finished", path=str(path), frames=4000)

    with recording(watched_folder) as (instrument, path):
        daemon.wait_for("live.started", path=str(path))
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("live.abandoned", path=str(path), reason="interrupted")
        daemon.wait_for("live.started", path=str(path), count=2)
        assert instrument.wait() == 0
    daemon.wait_for("live.finished", path=str(path), frames=4000)

    with recording(watched_folder) as (instrument, path):
        daemon.wait_for("live.started", path=str(path))
        moved = path.rename(path.with_name("moved.rtdc"))
        daemon.wait_for("live.renamed", path=str(moved), former_path=str(path))
        # The simulation misses its file in the end.
        assert instrument.wait() == 1
    finished = daemon.wait_for("live.finished", path=str(moved), frames=4000)
    assert finished["frames_known"] > 0
    assert not daemon.matching("live.started", path=str(moved))

    with recording(watched_folder) as (instrument, path):
        # it has the name that the last one had at first
        daemon.wait_for("live.started", path=str(path), count=2)
        instrument.kill()
        instrument.wait()
        other = path.with_name(".coming")
        other.write_bytes(undisturbed.read_bytes())
        other.replace(path)
        daemon.wait_for("live.abandoned", path=str(path), reason="replaced")
    daemon.wait_for("job.finished", path=str(path), frames=4000)
    assert not daemon.matching("live.finished", path=str(path))

    with recording(watched_folder) as (instrument, path):
        daemon.wait_for("live.started", path=str(path))
        instrument.kill()
        instrument.wait()
        os.truncate(path, 50_000)
        daemon.wait_for("live.abandoned", path=str(path))
        path.unlink()
    wait_until(lambda: not spools(state_folder), daemon=daemon)
    assert daemon.stop() == 0
    assert not daemon.matching("job.failed")


def test_nothing_is_left_of_a_daemon_that_was_killed(start_daemon, write_config, watched_folder, state_folder):
    """The next one removes the events that it was collecting, and processes the measurement as a whole."""
    config = write_config(LIVE, settle=1.0)
    first = start_daemon(config=config)
    first.wait_for("worker.started", role="live", timeout=START_SECONDS)
    with recording(watched_folder) as (instrument, path):
        first.wait_for("live.started", path=str(path))
        wait_until(lambda: spools(state_folder), daemon=first)
        first.process.kill()
        first.process.wait()
        assert spools(state_folder)
        assert instrument.wait() == 0
    second = start_daemon(config=config)
    second.wait_for("job.finished", path=str(path), frames=4000)
    assert_done_once(second, path)
    assert pathlib.Path(result_of(path)).exists()
    wait_until(lambda: not spools(state_folder), daemon=second)
