"""The log: one line, one event, whatever is in it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shlex
import subprocess
import sys

import pytest

from dcnumd.daemon.ownership import owner_lock
from tests.support.events import fault_of
from tests.support.faults import JOB_SECONDS, published, result_of, wait_until

SCRIPT = """
import logging, pathlib, structlog, sys, warnings
from dcnumd.config.values import LogSettings
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


def python(script):
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)


def run(level="info", form="auto", file=""):
    return python(SCRIPT.format(level=level, format=form, file=file))


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
    assert len(python(doubled).stderr.splitlines()) == 5
    assert logging.getLogger().handlers == before


@contextlib.contextmanager
def stalled():
    """Yield the end of a pipe into which nothing fits, and that nobody reads."""
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * 4096)
        os.set_blocking(writer, True)
        yield writer
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.slow
@pytest.mark.parametrize("last", ["", "1 / 0", "sys.exit('at last')"], ids=["end", "bug", "error"])
def test_stalled_reader_keeps_no_process_from_its_end(tmp_path, last):
    """More is logged than can wait, and the file has all of it; what is said after the flush does not wait either."""
    path = tmp_path / "log.jsonl"
    # on a busy computer the script looks into it before the first line is written
    path.touch()
    script = f"""
import pathlib, structlog, sys, time
from dcnumd.config.values import LogSettings
from dcnumd.daemon import logs
path = pathlib.Path({str(path)!r})
logs.configure(LogSettings(file=path))
log = structlog.get_logger()
for number in range(3000):
    log.info("test.event", number=number, text="x" * 1500)
    # a busy computer may write to the file more slowly than lines come, too
    while number % 500 == 499 and path.read_bytes().count(b"\\n") <= number:
        time.sleep(0.01)
logs.flush()
{last}
"""
    with stalled() as stderr:
        ended = subprocess.run([sys.executable, "-c", script], stderr=stderr, timeout=240, check=False)
    assert ended.returncode == (1 if last else 0)
    numbers = [json.loads(line)["number"] for line in path.read_text().splitlines()]
    assert numbers == list(range(3000))


def test_lost_lines_are_told_in_the_form_of_the_others():
    """A program reads JSON, a person text."""
    for form in ("json", "console"):
        script = f"""
import structlog
from dcnumd.config.values import LogSettings
from dcnumd.daemon import line_writer, logs
logs.configure(LogSettings(format={form!r}))
line_writer.MAX_WAITING = 0
structlog.get_logger().info("test.event")
"""
        (line,) = python(script).stderr.splitlines()
        if form == "json":
            assert fault_of(json.loads(line)) is None
            assert json.loads(line)["lines"] == 1
        else:
            assert re.search(r"warning.*log.lost.*lines=1", line)


def test_process_without_stderr_writes_nowhere_else(tmp_path):
    """The number of a descriptor that is closed may be that of any other file by now."""
    path = tmp_path / "other"
    script = f"""
import os
import structlog
from dcnumd.config.values import LogSettings
from dcnumd.daemon import logs
with open({str(path)!r}, "w") as file:
    os.dup2(file.fileno(), 2)
    logs.configure(LogSettings())
    structlog.get_logger().info("test.event")
    logs.flush()
"""
    closed = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(script)} 2>&-"
    subprocess.run(["/bin/sh", "-c", closed], timeout=60, check=True)
    assert path.read_text() == ""


@pytest.mark.slow
def test_daemon_whose_log_nobody_reads_works_and_ends(write_config, watched_folder, tmp_path):
    """A stopped reader, such as `dcnumd run 2>&1 | less`, stops nothing: neither events, nor jobs, nor the end."""
    log = tmp_path / "log.jsonl"
    config = write_config(f'[log]\nlevel = "debug"\nfile = "{log}"\n')
    command = [sys.executable, "-m", "dcnumd", "run", "-c", str(config)]
    path = published(watched_folder, "M1.rtdc")

    def told(event):
        return log.exists() and f'"event": "{event}"' in log.read_text()

    with stalled() as stderr, subprocess.Popen(command, stderr=stderr) as daemon:
        try:
            wait_until(lambda: told("job.finished"), JOB_SECONDS)
            published(watched_folder, "M2.rtdc", seed=2)
            wait_until(lambda: log.read_text().count('"event": "job.finished"') == 2, JOB_SECONDS)
            daemon.terminate()
            assert daemon.wait(30) == 0
        finally:
            daemon.kill()
    assert told("daemon.stopped")
    assert result_of(path).exists()


@pytest.mark.slow
def test_second_daemon_on_the_same_ledger_is_refused(write_config, state_folder):
    """It says who owns the ledger, below what it logged before it gave up; also where that cannot be read."""
    config = write_config()
    command = [sys.executable, "-m", "dcnumd", "run", "-c", str(config)]
    with owner_lock(state_folder):
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        with stalled() as stderr:
            unread = subprocess.run(command, stderr=stderr, timeout=60, check=False)
    assert (ended.returncode, unread.returncode) == (2, 2)
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert f"process {os.getpid()}" in last
    assert "Traceback" not in ended.stderr
