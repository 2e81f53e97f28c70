"""Log lines for the systemd journal: priorities, and the order of their keys."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

SCRIPT = """
import logging, pathlib, structlog, sys
from dcnumd.config.values import LogSettings
from dcnumd.daemon import logs
logs.configure(LogSettings(level="debug", format={format!r}, file=pathlib.Path({file!r})))
log = structlog.get_logger()
log.debug("test.debug")
log.info("test.info", ppid="13|hdf", number=3, pphash="a6", job_id="7f", path="/in/a.rtdc")
for name in ("matplotlib.font_manager", "fontTools.subset", "PIL.PngImagePlugin"):
    logging.getLogger(name).warning("building the font cache")
logging.getLogger("PILLOW").warning("another library")
log.warning("test.warning")
log.error("test.error")
try:
    1 / 0
except ZeroDivisionError:
    log.critical("test.critical", exc_info=True)
"""


def logged(tmp_path, form, *, journal=True):
    """Return what a process writes to its stderr, which is a journal's or not, and to its log file."""
    stderr, file = tmp_path / "stderr", tmp_path / "file.log"
    with stderr.open("wb") as stream:
        status = os.fstat(stream.fileno())
        # A service that redirects its stderr has the variable as well, with the numbers of the journal's socket.
        number = status.st_ino + (not journal)
        env = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{number}"}
        script = SCRIPT.format(format=form, file=str(file))
        subprocess.run([sys.executable, "-c", script], stderr=stream, env=env, timeout=60, check=True)
    return stderr.read_text().splitlines(), file.read_text().splitlines()


def test_lines_for_the_journal_have_priorities(tmp_path):
    """Each level has its priority, so that `journalctl -p warning` works; a library's noise has the lowest."""
    lines, copy = logged(tmp_path, "json")
    assert [line[:3] for line in lines] == ["<7>", "<6>", *["<7>"] * 3, "<4>", "<4>", "<3>", "<2>"]
    assert [line[3:] for line in lines] == copy
    assert [json.loads(line)["event"] for line in copy][2:7] == [*["log.message"] * 4, "test.warning"]


def test_each_line_of_a_traceback_has_the_priority(tmp_path):
    """In the format for people an event may take several lines, which the journal stores as several entries."""
    lines, _ = logged(tmp_path, "console")
    begin = next(number for number, line in enumerate(lines) if "test.critical" in line)
    assert len(lines) > begin + 3
    assert all(line.startswith("<2>") for line in lines[begin:])


@pytest.mark.parametrize("form", ["json", "console"])
def test_lines_for_anything_else_have_none(tmp_path, form):
    """A stderr that a service redirects elsewhere gets the lines as they are."""
    lines, _ = logged(tmp_path, form, journal=False)
    assert not [line for line in lines if re.match(r"<\d>", line)]


def test_lines_begin_with_what_is_read_first(tmp_path):
    """Event and time come first and the long pipeline ID last, whatever order they are given in."""
    _, copy = logged(tmp_path, "json")
    assert list(json.loads(copy[1])) == ["event", "timestamp", "level", "path", "job_id", "number", "ppid", "pphash"]
