"""The command `status`: one screen, once or live, and the same for programs."""

from __future__ import annotations

import dataclasses
import datetime as dt
import io
import json
import os
import signal
import subprocess
import sys

import pytest
import rich.cells
import rich.console

from dcnumd.cli import main
from dcnumd.commands.status_screen import View, screen, shares
from dcnumd.commands.status_values import Pace, Status
from dcnumd.config.file import load_settings
from dcnumd.daemon.ledger.records import State, utc_now
from dcnumd.daemon.ledger.store import ledger_path
from dcnumd.daemon.ownership import owner_lock
from tests.commands.conftest import HOSTILE, World
from tests.support.terminal import Terminal

NOW = dt.datetime(2026, 11, 21, 12, 0, tzinfo=dt.UTC)
ALTERNATE, NORMAL = "\x1b[?1049h", "\x1b[?1049l"
"""With these a program takes over the terminal's screen, and gives it back."""


def drawn(world, width=80, height=24, owner=4711, trouble=""):
    """Return the lines of the screen as they are at NOW."""
    settings = load_settings(world.config)
    status = dataclasses.replace(Status.of(settings, world.ledger), taken=NOW)
    console = rich.console.Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    console.print(screen(View(settings, status, owner, NOW, (), trouble), width, height))
    return console.file.getvalue().splitlines()


def clear(folder):
    """Remove a ledger with all its parts."""
    for part in folder.iterdir():
        part.unlink()


def ruin(folder):
    """Put something else in the place of a ledger."""
    clear(folder)
    ledger_path(folder).write_bytes(b"no ledger " * 1000)


def words(line):
    """Return a line without what only aligns it."""
    return " ".join(line.split())


@pytest.fixture
def busy(world):
    """Return a world with much of everything."""
    with world.ledger.transaction():
        for number in range(12):
            world.done(
                f"2026-11-21/M{number:03}_data.rtdc",
                "bone marrow",
                "green",
                finished_at=f"2026-11-21T10:{number:02}:00Z",
            )
            world.failed(f"bad{number:02}.rtdc", finished_at=f"2026-11-20T10:{number:02}:00Z")
            world.queued(f"next{number:02}.rtdc")
        world.done("last.rtdc", "blood", "yellow", "few_events too_dark", finished_at="2026-11-21T11:00:00Z")
        world.running("now.rtdc", "cell line", frames_done=250, started_at="2026-11-21T11:59:55.000Z")
    return world


def test_screen_tells_everything_at_a_glance(busy):
    """What runs and how long still, what waits, what was done last with events and light, what failed and why."""
    busy.failed("2026-11-20/M011_data.rtdc", finished_at="2026-11-20T12:00:00Z")
    lines = drawn(busy, width=120, height=60)
    assert lines[0].startswith("dcnumd ● running  process 4711")
    assert lines[0].endswith("2026-11-21 12:00:00")
    assert lines[1] == "12 queued, 1 running, 13 done, 13 failed"
    processing = lines.index("Processing")
    assert words(lines[processing + 1]) == "now.rtdc cell line"
    assert lines[processing + 2].rstrip().endswith("25% 250 of 1,000 frames  50/s  15 s left")
    done = lines.index("Done  13, the last 10")
    assert words(lines[done + 1]) == "11:00:00 ▲ yellow last.rtdc 1,234 events blood few events, too dark"
    assert words(lines[done + 2]) == "10:11:00 ● green 2026-11-21/M011_data.rtdc 1,234 events bone marrow"
    assert words(lines[done + 3]) == "10:10:00 ● green M010_data.rtdc 1,234 events bone marrow"
    failed = lines.index("Failed  13, the last 10")
    assert words(lines[failed + 1]) == "Nov 20 12:00 2026-11-20/M011_data.rtdc no_images: there are no images"
    assert words(lines[failed + 2]) == "Nov 20 10:11 bad11.rtdc no_images: there are no images"
    assert len([line for line in lines if " ready  " in line]) == 10


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("height", [24, 30, 50])
def test_screen_fits(busy, width, height):
    """The screen is no larger than the terminal, whatever the names, and each list has something in it."""
    busy.done("Tag 1/" + "長い" * 60 + "_data.rtdc", "測定" * 40, "red", "clogging saturated flicker")
    busy.failed(HOSTILE, error="\x1b]0;title\x07 \n" * 20)
    lines = drawn(busy, width, height)
    assert len(lines) <= height
    assert max(rich.cells.cell_len(line) for line in lines) <= width
    assert not any("\x1b" in line or "\x07" in line for line in lines)
    for title in ("Processing", "Waiting  12", "Done  14", "Failed  13"):
        assert any(line.startswith(title) for line in lines)
    assert any("_data.rtdc" in line for line in lines)


def test_screen_of_a_daemon_that_is_not_running(busy):
    """What was interrupted is no progress."""
    lines = drawn(busy, owner=None, trouble="the ledger cannot be read: locked")
    assert lines[0].startswith("dcnumd ■ not running")
    assert lines[2].rstrip() == "the ledger cannot be read: locked"
    assert lines[lines.index("Processing") + 2].rstrip() == "interrupted; it goes on when the daemon starts"


@pytest.mark.parametrize(
    ("lines", "wanted", "given"),
    [
        (30, [3, 10, 5], [3, 10, 5]),
        (9, [10, 10, 10], [3, 3, 3]),
        (10, [1, 10, 10], [1, 5, 4]),
        (0, [4, 0, 4], [1, 0, 1]),
        (-5, [], []),
    ],
)
def test_lists_share_the_lines(lines, wanted, given):
    """Nobody gets nothing, and nobody more than can be used."""
    assert shares(lines, wanted) == given


def test_pace_follows_from_what_is_done(world):
    """The rest takes as long for each frame as what is done; before the first frame nothing is known."""
    entry = world.running("a.rtdc", frames_done=250, started_at="2026-11-21T11:59:50.000Z")
    pace = Pace.of(entry, NOW)
    assert (pace.share, pace.frames_per_second, pace.seconds_left(NOW)) == (0.25, 25.0, 30.0)
    assert pace.seconds_left(NOW + dt.timedelta(seconds=10)) == 20.0
    assert pace.seconds_left(NOW + dt.timedelta(hours=1)) == 0.0
    assert Pace.of(world.running("b.rtdc"), NOW).seconds_left(NOW) is None
    later = world.running("c.rtdc", frames_done=5, started_at="2026-11-21T12:00:01.000Z")
    assert Pace.of(later, NOW).seconds_left(NOW) is None


def test_json_keeps_its_keys(busy):
    """Programs find what they found, and what was done last and how far the running one is."""
    (running,) = busy.ledger.entries(State.RUNNING)
    busy.ledger.amend(running.id, started_at="2020-01-01T00:00:00.000Z")
    with owner_lock(busy.state):
        command = [sys.executable, "-m", "dcnumd", "status", "--json", "-c", busy.config]
        shown = json.loads(subprocess.run(command, capture_output=True, timeout=60, check=True).stdout)
    assert shown["daemon_pid"] == os.getpid()
    assert shown["ledger"] == str(ledger_path(busy.state))
    assert shown["counts"] == {
        "seen": 0, "settling": 0, "queued": 12, "running": 1, "done": 13, "failed": 12, "skipped": 0,
    }  # fmt: skip
    assert shown["last_success"] == "2026-11-21T11:00:00Z"
    assert {name: len(shown[name]) for name in ("running", "waiting", "done", "failed")} == {
        "running": 1, "waiting": 10, "done": 10, "failed": 10,
    }  # fmt: skip
    assert (shown["running"][0]["share"], shown["running"][0]["frames_done"]) == (0.25, 250)
    assert shown["running"][0]["frames_per_second"] > 0
    assert (shown["done"][0]["light"], shown["done"][0]["warnings"]) == ("yellow", "few_events too_dark")


def test_damaged_ledger_is_told_in_one_line(world, capsys):
    """What is no ledger ends the command with exit code 2 instead of a traceback."""
    world.ledger.close()
    ruin(world.state)
    for command in ("status", "history"):
        assert main([command, "-c", str(world.config)]) == 2
        assert "the ledger cannot be read: file is not a database" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_only_a_terminal_can_be_watched(world, capsys, arguments):
    """Where nobody looks, --watch is refused, and what to do instead is said."""
    assert main(["status", "--watch", "-c", str(world.config), *arguments]) == 2
    assert "other programs call dcnumd status --json" in capsys.readouterr().err


@pytest.mark.parametrize("colours", [True, False])
def test_screen_on_a_terminal(busy, colours):
    """On a terminal there is the screen, as wide as that, in colours unless NO_COLOR is set."""
    command = [sys.executable, "-m", "dcnumd", "status", "-c", str(busy.config)]
    with Terminal(command, columns=120, rows=30, environment={"NO_COLOR": None if colours else "1"}) as terminal:
        assert terminal.wait() == 0
    assert "■ not running" in terminal.text
    assert len(terminal.text.splitlines()) <= 29
    assert max(map(len, terminal.text.splitlines())) == 120
    assert ("\x1b[32m● green" in terminal.output) == colours
    assert ALTERNATE not in terminal.output


FULL = "/mnt/results: 0.3 GB are free, 1.4 GB are needed; make room"


def blocked(world, number=3):
    """Have measurements wait for a folder that is full."""
    rows = [world.queued(f"wait{one}.rtdc") for one in range(number)]
    world.ledger.note_obstacles([(row.id, "no_space", FULL) for row in rows])


@pytest.mark.parametrize("owner", [4711, None])
def test_screen_tells_that_results_have_no_place(world, owner):
    """Which folder, why, what to do and how many wait; also as the daemon noted it before it ended."""
    world.queued("ready.rtdc")
    blocked(world)
    lines = drawn(world, width=200, owner=owner)
    assert words(lines[2]) == f"■ The disk for the results is full, 3 waiting: {world.folder}"
    assert words(lines[3]) == "Delete or move files on that disk; processing then continues by itself."
    waiting = [words(line).partition(" wait2.rtdc ") for line in lines if "wait2.rtdc" in line]
    ((state, _, why),) = waiting
    assert state.endswith("no place")
    assert why.startswith("no_space: /mnt/results: 0.3 GB are free")


def test_screen_with_many_folders_that_take_no_results_fits(tmp_path):
    """Two are told in full, of the others how many they are."""
    folders = [tmp_path / f"in{number}" for number in range(12)]
    world = World(tmp_path)
    world.config.write_text(f"[watch]\nfolders = {[str(folder) for folder in folders]}\n[state]\nfolder = 'state'\n")
    for world.folder in folders:
        blocked(world, 1)
    lines = drawn(world, width=60, height=24)
    world.ledger.close()
    assert len(lines) <= 24
    assert any(line.startswith("■ 10 more folders take no results") for line in lines)


def test_plain_lines_and_json_tell_that_results_have_no_place(world, capfd):
    """For `grep`, and for other programs, with cause and cure."""
    blocked(world)
    assert main(["status", "-c", str(world.config)]) == 0
    (line,) = [line for line in capfd.readouterr().out.splitlines() if line.startswith("blocked ")]
    told = f"disk.low: The disk for the results is full: {FULL}. Delete or move files on that disk"
    assert line == f"blocked  {told}; processing then continues by itself. 3 measurements wait."
    assert main(["status", "--json", "-c", str(world.config)]) == 0
    (found,) = json.loads(capfd.readouterr().out)["blocked"]
    assert found == {
        "folder": str(world.folder), "problem": "disk.low", "reason": "no_space", "error": FULL, "waiting": 3,
    }  # fmt: skip


def test_why_tells_cause_and_cure(world, capfd):
    """A measurement that is ready and waits all the same says what for."""
    blocked(world, 1)
    assert main(["why", str(world.folder / "wait0.rtdc"), "-c", str(world.config)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].endswith(f"wait0.rtdc  no_space: {FULL}")
    assert lines[1].strip().startswith("The disk for the results is full. Delete or move files")


def test_status_tells_of_failures_until_they_are_acknowledged(world, capfd):
    """What failed or got a red light is one line, and JSON, until somebody says that it was seen."""
    now = utc_now()
    world.failed("bad.rtdc", finished_at=now)
    world.failed("worse.rtdc", finished_at=now)
    world.done("red.rtdc", light="red", warnings="clogging", finished_at=now)
    config = ["-c", str(world.config)]
    assert main(["status", *config]) == 0
    assert "news     2 failures and 1 red light; dcnumd acknowledge" in capfd.readouterr().out
    assert main(["status", "--json", *config]) == 0
    assert json.loads(capfd.readouterr().out)["unacknowledged"] == {"failed": 2, "red": 1}
    assert "2 failures and 1 red light; dcnumd acknowledge" in "\n".join(drawn(world))
    assert main(["acknowledge", *config]) == 0
    assert capfd.readouterr().out == "3 acknowledged\n"


@pytest.mark.parametrize("name", ["M001.rtdc", "M001_dcn.rtdc"])
def test_why_takes_a_bare_name(world, capfd, monkeypatch, tmp_path, name):
    """A name without a folder stands for all measurements or results with it, wherever the command is called."""
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        (world.folder / folder).mkdir()
        world.done(f"{folder}/M001.rtdc")
    world.done("XM001.rtdc")
    assert main(["why", name, "-c", str(world.config)]) == 0
    shown = capfd.readouterr().out
    assert [line.split()[2] for line in shown.splitlines() if "->" in line] == [
        str(world.folder / folder / "M001.rtdc") for folder in ("b", "a")
    ]
    assert [line for line in shown.splitlines() if line.endswith(":")] == ["b/M001.rtdc:", "a/M001.rtdc:"]
    assert main(["why", "M002.rtdc", "-c", str(world.config)]) == 1
    (tmp_path / name).touch()
    assert main(["why", name, "-c", str(world.config)]) == 1
    assert "unknown: it is in no watched folder" in capfd.readouterr().out


def watching(world):
    command = [sys.executable, "-m", "dcnumd", "status", "--watch", "-c", str(world.config)]
    return Terminal(command, columns=100)


@pytest.mark.slow
def test_watch_follows_the_ledger(world):
    """The screen changes with the ledger and with the daemon, and ends with Ctrl-C without a word."""
    entry = world.running("now.rtdc", "blood", frames_done=500)
    with watching(world) as terminal:
        terminal.wait_for("interrupted")
        assert "not running" in terminal.text
        with owner_lock(world.state):
            terminal.wait_for("500 of 1,000 frames")
        assert f"process {os.getpid()}" in terminal.text
        world.ledger.finish(entry.id, "/out/now_dcn.rtdc", events=777, seconds=1.0)
        terminal.wait_for("777 events")
        terminal.press("\x03")
        assert terminal.wait() == 0
    assert "Traceback" not in terminal.text
    assert terminal.output.count(ALTERNATE) == 1
    assert terminal.output.rstrip().endswith(NORMAL)


@pytest.mark.slow
def test_watch_begins_before_the_daemon_and_survives_a_new_ledger(world):
    """A ledger that is made, replaced or unreadable for a while is waited for; SIGTERM leaves the terminal in order."""
    world.ledger.close()
    clear(world.state)
    with watching(world) as terminal:
        terminal.wait_for("no daemon has run with this config")
        first = type(world.ledger).open(world.state)
        terminal.wait_for("nothing was found yet")
        first.close()
        ruin(world.state)
        terminal.wait_for("the ledger cannot be read")
        ledger_path(world.state).unlink()
        world.ledger = type(world.ledger).open(world.state)
        world.failed("bad.rtdc")
        terminal.wait_for("no_images: there are no images")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait() == 0
    assert "Traceback" not in terminal.text
    assert terminal.output.rstrip().endswith(NORMAL)


def test_watch_of_an_unreadable_ledger_does_not_begin(world):
    """What cannot be read from the start is an error as for every command."""
    world.ledger.close()
    ruin(world.state)
    with watching(world) as terminal:
        assert terminal.wait() == 2
    assert "the ledger cannot be read: file is not a database" in " ".join(terminal.text.split())
    assert ALTERNATE not in terminal.output


def test_states_on_the_screen_are_those_that_wait(world):
    """Each state that is listed as waiting has its word."""
    world.settling("a.rtdc")
    world.queued("b.rtdc")
    entry = world.queued("c.rtdc")
    world.ledger.amend(entry.id, reason="disk_full", error="no space left")
    lines = drawn(world)
    waiting = lines.index("Waiting  3")
    assert [words(line) for line in lines[waiting + 1 : waiting + 4]] == [
        "09:00:00 ready c.rtdc disk_full: no space left",
        "09:00:00 ready b.rtdc",
        "09:00:00 not complete yet a.rtdc",
    ]
    assert State.SEEN not in {entry.state for entry in Status.of(load_settings(world.config), world.ledger).waiting}
