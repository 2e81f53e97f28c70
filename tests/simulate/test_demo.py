"""The demonstration, as a newcomer sees it first."""

from __future__ import annotations

import io
import queue
import re
import subprocess
import sys

import pytest
import rich.console

from dcnumd.config.file import load_settings
from dcnumd.errors import DcnumdError
from dcnumd.simulate.commands import can_show_pages
from dcnumd.simulate.demo import RECORDINGS, Outcome, next_event, read_events, show_reports, write_config

SHORT_DEMO = """
import dataclasses, sys
from dcnumd.simulate import demo
from dcnumd.cli import main
demo.RECORDINGS = tuple(dataclasses.replace(spec, frames=spec.frames // 10) for spec in demo.RECORDINGS)
sys.exit(main(sys.argv[1:]))
"""


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


def test_demo_waits_for_reports_and_names_them():
    """It is over when each measurement has its result and the last word on its report."""
    outcome = Outcome()
    paths = [f"/demo/M{number:03d}_data.rtdc" for number in range(1, len(RECORDINGS) + 1)]
    for path in reversed(paths):
        outcome.take({"event": "job.finished", "path": path})
    first, second, third = paths
    page = "/demo/M001_data_dcn.html"
    for event in (
        {"event": "report.written", "path": first, "report": [page, f"{page}.json"], "light": "yellow"}
        | {"warnings": ["few_events", "flicker"]},
        {"event": "report.failed", "path": second, "error": "no space", "will_retry": True},
        {"event": "report.failed", "path": third, "error": "no cells", "will_retry": False},
    ):
        outcome.take(event)
        assert not outcome.complete
    outcome.take({"event": "report.written", "path": second, "report": ["/demo/b.html"], "light": "green"})
    assert outcome.complete
    assert [event["path"] for event in outcome.finished()] == paths
    console = rich.console.Console(file=io.StringIO(), width=80, color_system=None)
    show_reports(console, outcome)
    assert console.file.getvalue().splitlines()[2:] == [
        f"  {page}  yellow (few events, flicker)",
        "  /demo/b.html  green",
        "  M003_data.rtdc: no report: no cells",
    ]


def test_failed_measurement_ends_the_demo():
    """An attempt that will be repeated does not, a final one does."""
    outcome = Outcome()
    outcome.take({"event": "job.failed", "path": "/demo/a.rtdc", "will_retry": True})
    with pytest.raises(DcnumdError, match=r"a\.rtdc: no images"):
        outcome.take({"event": "job.failed", "path": "/demo/a.rtdc", "will_retry": False, "error": "no images"})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demo_processes_what_it_records(tmp_path):
    """`dcnumd demo` ends with three measurements whose cells were found, and their reports; no process is left.

    They are a tenth as long as for a newcomer, who is to see that they take their time.
    """
    keep = tmp_path / "kept"
    command = [sys.executable, "-c", SHORT_DEMO, "demo", "--keep", str(keep)]
    # its daemon gives way to other programs, as it does beside an instrument, and waits for other tests
    run = subprocess.run(command, capture_output=True, text=True, timeout=850, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    for event in ("daemon.ready", "file.settled", "job.finished", "daemon.stopped"):
        assert event in run.stdout
    results = sorted(path.name for path in (keep / "acquisition").glob("*_dcn.rtdc"))
    assert results == ["M001_data_dcn.rtdc", "M002_data_dcn.rtdc", "M003_data_dcn.rtdc"]
    assert run.stdout.count(" %)") == 3
    check_counts(run.stdout)
    assert re.search(r"web.started +watch it live: http://127\.0\.0\.1:\d+/\n", run.stdout)
    assert re.search(rf"are in {keep} \(\d+ MB\)\. To remove them:\n  rm -r {keep}\n", run.stdout)
    for result in results:
        page = (keep / "acquisition" / result).with_suffix(".html")
        assert page.stat().st_size > 0
        assert f"  {page}  " in run.stdout


def check_counts(shown: str) -> None:
    """Fail unless the numbers of cells of each measurement are those of the recording, and fit together."""
    recorded = {name: int(cells) for name, cells in re.findall(r"closed +(M\d+_data\.rtdc) .*?, (\d+) cells", shown)}
    row = r"(M\d+_data\.rtdc) +[\d,]+ +([\d,]+) +([\d,]+) +([\d,]+) \([\d.]+ %\) +([\d,]+) "
    rows = re.findall(row, shown)
    assert [name for name, *_ in rows] == sorted(recorded)
    for name, *numbers in rows:
        cells, isolated, found, events = (int(number.replace(",", "")) for number in numbers)
        assert cells == recorded[name]
        assert found <= isolated < cells
        assert found <= events


def test_browser_is_offered_to_people_only(monkeypatch):
    """Neither without a screen or a terminal, nor in continuous integration."""
    for name, value in {"DISPLAY": ":0", "CI": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdin", Typed())
    monkeypatch.setattr(sys, "stdout", Typed())
    assert can_show_pages()
    monkeypatch.setenv("CI", "true")
    assert not can_show_pages()
    monkeypatch.setenv("CI", "")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert not can_show_pages()
    monkeypatch.setattr(sys, "stdin", Typed())
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not can_show_pages()


class Typed(io.StringIO):
    """A terminal, as far as a program can tell."""

    def isatty(self) -> bool:
        return True
