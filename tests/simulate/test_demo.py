"""The demonstration, as a newcomer sees it first."""

from __future__ import annotations

import io
import queue
import subprocess
import sys

import pytest

from dcnumd.config_file import load_settings
from dcnumd.errors import DcnumdError
from dcnumd.simulate.demo import next_event, read_events, write_config


def test_config_of_the_demo_is_valid(tmp_path):
    """The daemon's config names the folders, whatever characters they have."""
    folder = tmp_path / 'with "quotes" and ümlauts'
    watched = folder / "acquisition"
    watched.mkdir(parents=True)
    settings = load_settings(write_config(folder, watched))
    assert settings.watch.folders == (watched,)
    assert settings.state.folder == folder / "state"
    assert settings.log.format == "json"


def test_log_lines_become_events():
    """JSON lines are events, other lines keep their text, the end is told."""
    events: queue.Queue = queue.Queue()
    read_events(io.StringIO('{"event": "daemon.ready"}\nTraceback …\n[1]\n'), events)
    assert [events.get_nowait() for _ in range(4)] == [
        {"event": "daemon.ready"},
        {"event": "Traceback …"},
        {"event": "[1]"},
        None,
    ]


def test_daemon_that_ends_too_early_is_reported():
    """The end of the log before the work is done is a fault."""
    events: queue.Queue = queue.Queue()
    events.put(None)
    with pytest.raises(DcnumdError, match="the daemon ended"):
        next_event(events)


def test_demo_processes_what_it_records(tmp_path):
    """`dcnumd demo` ends with a table of three measurements whose cells were found, and leaves no process behind."""
    keep = tmp_path / "kept"
    command = [sys.executable, "-m", "dcnumd", "demo", "--keep", str(keep)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    for event in ("daemon.ready", "file.settled", "job.finished", "daemon.stopped"):
        assert event in run.stdout
    results = sorted(path.name for path in (keep / "acquisition").glob("*_dcn.rtdc"))
    assert results == ["M001_data_dcn.rtdc", "M002_data_dcn.rtdc", "M003_data_dcn.rtdc"]
    assert run.stdout.count(" %") >= 3
