"""The log: one line, one event, whatever is in it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

SCRIPT = """
import logging, pathlib, structlog, sys, warnings
from dcnumd.config import LogSettings
from dcnumd.daemon import logs
logs.configure(LogSettings(level={level!r}, format={format!r}, file=pathlib.Path({file!r}) if {file!r} else None))
log = structlog.get_logger()
log.debug("test.debug")
log.info("test.event", path="/in/caf\\udce9\\nGröße.rtdc", number=3)
log.info("test.long", text="x" * 100_000, more=["y" * 1000] * 100)
logging.getLogger("library").warning("from %s", "elsewhere")
logging.getLogger("library").info("too quiet")
warnings.warn("beware")
try:
    1 / 0
except ZeroDivisionError as error:
    log.error("test.bug", exc_info=error)
"""


def run(level="info", form="auto", file=""):
    script = SCRIPT.format(level=level, format=form, file=file)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)


def test_lines_are_json_where_there_is_no_terminal():
    """Each line is a sound object with event, level and UTC time, and shorter than 16 KiB."""
    ended = run()
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events] == ["test.event", "test.long", "log.message", "log.message", "test.bug"]
    assert max(len(line.encode()) for line in lines) < 16 * 1024
    assert events[0]["path"] == "/in/caf\udce9\nGröße.rtdc"
    assert (events[0]["level"], events[0]["number"]) == ("info", 3)
    assert events[0]["timestamp"].endswith("Z")
    assert (events[2]["logger"], events[2]["message"]) == ("library", "from elsewhere")
    assert "ZeroDivisionError" in events[4]["exception"]


def test_level_hides_what_is_below():
    """The level holds for our events and for those of libraries."""
    assert [json.loads(line)["event"] for line in run("error").stderr.splitlines()] == ["test.bug"]
    assert json.loads(run("debug").stderr.splitlines()[0])["event"] == "test.debug"


def test_file_gets_json_beside_the_console(tmp_path):
    """People read the screen, machines the file."""
    path = tmp_path / "log.jsonl"
    ended = run(form="console", file=str(path))
    assert "test.event" in ended.stderr
    with pytest.raises(ValueError, match="line 1"):
        json.loads(ended.stderr.splitlines()[0])
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()][:2] == ["test.event", "test.long"]


def test_log_file_that_cannot_be_written_stops_nothing(tmp_path):
    """The lines still reach stderr."""
    ended = run(file=str(tmp_path / "missing" / "log.jsonl"))
    assert "test.event" in ended.stderr


def test_configuring_twice_does_not_double_lines():
    """Children configure logging again."""
    before = list(logging.getLogger().handlers)
    script = SCRIPT.format(level="info", format="json", file="")
    doubled = script.replace("log = structlog", "logs.configure(LogSettings(format='json'))\nlog = structlog")
    ended = subprocess.run([sys.executable, "-c", doubled], capture_output=True, text=True, timeout=60, check=True)
    assert len(ended.stderr.splitlines()) == 5
    assert logging.getLogger().handlers == before
