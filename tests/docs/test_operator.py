"""The exercise in the operator's guide, word by word, but for shorter recordings, another port, and no courtesy."""

from __future__ import annotations

import contextlib
import pathlib
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from tests.support.daemon import Daemon
from tests.support.faults import wait_until

GUIDE = pathlib.Path(__file__).parents[2] / "docs" / "operator.md"
BLOCK = re.compile(r'^```sh title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
SECONDS = 120.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GUIDE.exists(), reason="the documents are not part of an installation"),
]


class Windows:
    """The two terminals of the exercise, in a folder as current one."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        program = folder / ".venv" / "bin" / "dcnumd"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dcnumd "$@"\n')
        program.chmod(0o755)

    def type(self, text):
        """Run the commands of a block, and return what they print."""
        kept = [line for line in text.splitlines() if "pip install" not in line]
        script = "\n".join(["set -e", *kept]).replace("127.0.0.1:8480", f"127.0.0.1:{self.port}")
        script = script.replace(" simulate practice/recordings", " simulate practice/recordings --frames 1200")
        # what other tests compute at the same time must not starve it
        script = script.replace("\nEND\n", "\n[resources]\nnice = 0\nEND\n")
        options = {"cwd": self.folder, "capture_output": True, "text": True, "timeout": 120}
        done = subprocess.run(["bash", "-c", script], check=False, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def staying(self, text):
        """Run the command that stays, hear what it tells, and end it with Ctrl-C."""
        assert text == ".venv/bin/dcnumd run -c practice/config.toml\n"
        daemon = Daemon.start(self.folder / "practice" / "config.toml")
        try:
            yield daemon
            assert daemon.stop(signal.SIGINT, 30) == 0
        finally:
            daemon.close()


def free_port():
    """Return a port that nobody uses."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_the_exercise_works_as_it_is_written(tmp_path):
    """Install, record, make mistakes, look: what the guide promises is what is seen."""
    section = GUIDE.read_text("utf-8").partition("\n## Practise without an instrument\n")[2]
    titles, blocks = zip(*BLOCK.findall(section), strict=True)
    assert titles == (
        *("first terminal", "first terminal, keeps running"),
        *["second terminal"] * 3,
        "second terminal, afterwards",
    )
    windows = Windows(tmp_path)
    assert {line.split()[0] for line in windows.type(blocks[0]).splitlines()} == {"ok"}
    with windows.staying(blocks[1]) as daemon:
        daemon.wait_for("daemon.ready", timeout=SECONDS)
        daemon.wait_for("web.started")
        assert b"dcnumd" in urllib.request.urlopen(f"http://127.0.0.1:{windows.port}/", timeout=30).read()
        windows.type(blocks[2])
        daemon.wait_for("report.written", count=2, timeout=SECONDS)
        assert [event["light"] for event in daemon.matching("report.written")] == ["green", "green"]
        windows.type(blocks[3])
        daemon.wait_for("report.written", count=4, timeout=SECONDS)
        few, flicker = sorted(daemon.matching("report.written")[2:], key=lambda event: event["path"])
        assert (few["light"], few["warnings"]) == ("yellow", ["few_events"])
        assert flicker["light"] == "yellow"
        assert "flicker" in flicker["warnings"]
        windows.type(blocks[4])
        daemon.wait_for("job.failed", timeout=SECONDS)
        shown = windows.type(blocks[5])
        index = tmp_path / "practice" / "results" / "index.html"
        wait_until(lambda: all(f"M00{number}_data" in index.read_text("utf-8") for number in range(1, 6)))
    assert "4 done" in shown
    assert "not_hdf5" in shown
    names = {path.name for path in (tmp_path / "practice" / "results").iterdir()}
    assert {"index.html", "M001_data_dcn.html", "M004_data_dcn.rtdc"} <= names
