"""The command `history`: what it selects, and the forms in which it prints that."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import os
import sqlite3
import subprocess
import sys
import time

import pytest
import rich.console

from dcnumd.cli import main
from dcnumd.commands.history import CSV_COLUMNS, Moment
from dcnumd.commands.history_table import history_table
from dcnumd.daemon.ledger.schema import MIGRATIONS
from dcnumd.daemon.ledger.store import ledger_path
from tests.commands.conftest import HOSTILE
from tests.support.terminal import Terminal

NOW = dt.datetime(2026, 11, 21, 12, 0, tzinfo=dt.UTC)


@pytest.fixture
def filled(world):
    """Return a world in which four measurements ended on four days."""
    world.done("a.rtdc", "Bone Marrow", "green", finished_at="2026-11-18T10:00:00.000Z")
    world.failed("b.rtdc", finished_at="2026-11-19T10:00:00.000Z")
    world.skipped("c.rtdc", finished_at="2026-11-20T10:00:00.000Z")
    world.done("d.rtdc", "STRASSE, 1:10", "yellow", "few_events flicker", finished_at="2026-11-21T10:00:00.000Z")
    return world


def names(world, capsys, *arguments):
    """Return the names of the measurements that the command lists."""
    assert main(["history", "--json", "-c", str(world.config), *arguments]) == 0
    return [entry["path"].rpartition("/")[2][0] for entry in json.loads(capsys.readouterr().out)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "dcba"),
        (["-n", "2"], "dc"),
        (["-n", "0"], "dcba"),
        (["--failed"], "b"),
        (["--state", "done"], "da"),
        (["--state", "skipped", "--state", "failed"], "cb"),
        (["--state", "skipped", "--failed"], "cb"),
        (["--since", "2026-11-20T10:00Z"], "dc"),
        (["--until", "2026-11-20T10:00Z"], "ba"),
        (["--since", "2026-11-19T09:00Z", "--until", "2026-11-20T11:00Z"], "cb"),
        (["--sample", "bone"], "a"),
        (["--sample", "straße"], "d"),
        (["--sample", "%"], ""),
        (["--light", "yellow"], "d"),
        (["--light", "green", "--sample", "str"], ""),
        (["--since", "100000d", "-n", "1"], "d"),
    ],
)
def test_filters_select(filled, capsys, arguments, expected):
    """States, times, samples and lights can be combined; the latest end comes first."""
    assert "".join(names(filled, capsys, *arguments)) == expected


@pytest.fixture
def berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "day_end", "expected"),
    [
        ("2026-11-21", False, "2026-11-20T23:00:00.000Z"),
        ("2026-11-21", True, "2026-11-21T23:00:00.000Z"),
        ("2026-07-01", False, "2026-06-30T22:00:00.000Z"),
        ("2026-03-29", True, "2026-03-29T22:00:00.000Z"),
        ("2026-11-21T10:30", True, "2026-11-21T09:30:00.000Z"),
        ("2026-11-21 10:30:15", False, "2026-11-21T09:30:15.000Z"),
        ("2026-11-21T10:30Z", False, "2026-11-21T10:30:00.000Z"),
        ("2026-11-21T10:30-05:00", False, "2026-11-21T15:30:00.000Z"),
    ],
)
def test_times_are_local_unless_they_name_their_zone(berlin, text, day_end, expected):
    """What is compared is UTC; a day alone begins and ends where the computer stands."""
    assert Moment(day_end=day_end).convert(text, None, None) == expected


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("5 min", 300), ("1.5h", 5400), ("3d", 259_200), ("2w", 1_209_600)]
)
def test_ages_count_back_from_now(text, seconds):
    """An age is an ISO time of the same form, so long ago."""
    before = dt.datetime.now(dt.UTC)
    moment = dt.datetime.fromisoformat(Moment(day_end=False).convert(text, None, None))
    assert dt.timedelta(0) <= moment + dt.timedelta(seconds=seconds) - before + dt.timedelta(milliseconds=1)
    assert moment + dt.timedelta(seconds=seconds) <= dt.datetime.now(dt.UTC)


def test_words_for_days_mean_whole_days(berlin):
    """Yesterday ends where today begins, at local midnight."""
    begin, end = (Moment(day_end=day_end).convert("yesterday", None, None) for day_end in (False, True))
    today = dt.datetime.fromisoformat(Moment(day_end=False).convert("today", None, None))
    assert begin < end
    assert dt.datetime.fromisoformat(end) == today
    assert today <= dt.datetime.now(dt.UTC) < today + dt.timedelta(hours=25)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--since", "tomorrow"], "expected a time such as 2026-11-21"),
        (["--since", "99999999999d"], "expected a time"),
        (["--until", "9999-12-31"], "expected a time"),
        (["--until", "2026-02-30"], "expected a time"),
        (["--state", "queued"], "'queued' is not one of"),
        (["--light", "blue"], "'blue' is not one of"),
        (["--csv", "--json"], "exclude each other"),
        (["-n", "-1"], "-1 is not in the range"),
    ],
)
def test_wrong_filters_exit_2(world, capsys, arguments, complaint):
    """A typing error is told, not taken for something else."""
    assert main(["history", "-c", str(world.config), *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_csv_is_complete_and_safe(filled, tmp_path):
    """RFC 4180: a header, CRLF, quotes; no formula for a spreadsheet, and names that are no text do no harm."""
    sample = '=HYPERLINK("http://x","y, z")'
    hostile = filled.done(HOSTILE, sample, "red", "clogging")
    command = [sys.executable, "-m", "dcnumd", "history", "--csv", "-c", filled.config]
    ended = subprocess.run(
        command, capture_output=True, timeout=60, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"}
    )
    text = ended.stdout.decode("utf-8")
    lines = text.split("\r\n")
    assert len(lines) == 1 + 5 + 1
    assert "\n" not in "".join(lines)
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert rows[0]["sample"] == f"'{sample}"
    assert rows[0]["path"] == f"{filled.folder}/M9\\udcff\\x1b[31m\\n<script>.rtdc"
    assert (rows[0]["light"], rows[0]["warnings"], rows[0]["report"][-5:]) == ("red", "clogging", ".html")
    assert (rows[1]["sample"], rows[1]["events"], rows[1]["seconds"]) == ("STRASSE, 1:10", "1234", "0.5")
    assert [row["finished_at"] for row in rows[1:]] == [f"2026-11-{day}T10:00:00.000Z" for day in (21, 20, 19, 18)]
    assert rows[3]["error"].endswith("there are no images")
    assert hostile.path == f"{filled.folder}/{HOSTILE}"


def test_json_has_names_as_they_are(world, capsys):
    """What reads the JSON gets the very name, and every column of the ledger."""
    entry = world.done(HOSTILE, "=1+1")
    assert main(["history", "--json", "-c", str(world.config)]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["path"], shown["sample"]) == (entry.path, "=1+1")
    assert set(CSV_COLUMNS) < set(shown)


def test_elsewhere_than_on_a_terminal_a_measurement_is_a_line(filled, capsys):
    """Other programs get whole paths and UTC, one line for each; and nothing that only a terminal needs."""
    filled.done(HOSTILE)
    assert main(["history", "-c", str(filled.config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["done", "done", "skipped", "failed", "done"]
    assert lines[1].endswith(
        f"{filled.folder}/d.rtdc  1000 frames, 1234 events in 0.5 s -> {filled.folder}/d_dcn.rtdc, "
        "report yellow (few_events flicker)"
    )
    assert lines[3].endswith(f"{filled.folder}/b.rtdc  no_images: there are no images")


def test_result_that_was_taken_away_is_told(world, capsys):
    """A measurement stays done, and each form of the history says that its result is not there any more."""
    entry = world.done("M.rtdc", "", "yellow", "few_events")
    world.ledger.note_presence(entry.id, is_there=False)
    assert main(["history", "-c", str(world.config)]) == 0
    assert capsys.readouterr().out.endswith("M_dcn.rtdc (gone), report yellow (few_events)\n")
    assert main(["history", "--json", "--state", "done", "-c", str(world.config)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["reason"] == "output_gone"
    console = rich.console.Console(file=io.StringIO(), width=120, color_system=None, highlight=False)
    console.print(history_table(world.ledger.history(), NOW, 120))
    assert "result gone, few events" in console.file.getvalue()
    assert main(["why", entry.path, "-c", str(world.config)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[1:] == ["done", "output_gone"]


def test_output_that_is_not_utf8_escapes_what_it_lacks(world):
    """A terminal or a pipe with fewer characters gets the rest as escapes, not a traceback."""
    world.done("Größe 測定.rtdc")
    command = [sys.executable, "-m", "dcnumd", "history", "-c", world.config]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    ended = subprocess.run(command, capture_output=True, timeout=60, check=True, env=environment)
    assert b"/Gr\xf6\xdfe \\u6e2c\\u5b9a.rtdc" in ended.stdout


def test_nothing_to_list_is_said_beside_the_output(world, capsys):
    """An empty list is empty for programs, and explained to people."""
    assert main(["history", "-c", str(world.config)]) == 0
    assert capsys.readouterr() == ("", "no measurement has come to its end yet\n")
    assert main(["history", "--failed", "-c", str(world.config)]) == 0
    assert capsys.readouterr() == ("", "no measurement fits\n")
    assert main(["history", "--csv", "-c", str(world.config)]) == 0
    assert capsys.readouterr().out.splitlines() == [",".join(CSV_COLUMNS)]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_table_fits_the_terminal(filled, width):
    """Nothing is wider than the terminal, whatever the names; what says most of each measurement is there."""
    filled.done(HOSTILE, "x" * 100, "red", "clogging saturated too_dark too_bright")
    filled.done("Tag 1/測定" + "長い" * 60 + "_data.rtdc", "測定" * 40)
    entries = filled.ledger.history()
    console = rich.console.Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    console.print(history_table(entries, NOW, width))
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 1 + len(entries)
    assert max(rich.cells.cell_len(line) for line in lines) <= width
    shown = {line.split("  ")[0]: line for line in lines}
    assert "▲ yellow" in shown["10:00:00"]
    assert "1,234" in shown["10:00:00"]
    assert "✗ failed" in shown["Nov 19 10:00"]
    assert "\x1b" not in console.file.getvalue()
    if width >= 120:
        assert "no_images: there" in shown["Nov 19 10:00"]


@pytest.mark.parametrize("colours", [True, False])
def test_table_on_a_terminal(filled, colours):
    """On a terminal there is the table, in colours unless NO_COLOR is set, and names lead to the reports."""
    command = [sys.executable, "-m", "dcnumd", "history", "-n", "4", "-c", str(filled.config)]
    with Terminal(command, environment={"NO_COLOR": None if colours else "1"}) as terminal:
        assert terminal.wait() == 0
    assert "ended" in terminal.text
    assert "-n 0 shows all; dcnumd why FILE" in terminal.text
    assert ("\x1b[33m▲ yellow" in terminal.output) == colours
    if colours:
        assert (filled.folder / "d_dcn.html").as_uri() in terminal.output


def test_ledger_of_an_earlier_version_can_be_read(tmp_path, capsys):
    """Before the new daemon ran there are no samples and no lights, but a history."""
    (tmp_path / "config.toml").write_text("[watch]\nfolders = ['.']\n[state]\nfolder = '.'\n")
    raw = sqlite3.connect(ledger_path(tmp_path))
    for migration in MIGRATIONS[:2]:
        raw.executescript(migration)
    raw.execute(
        "INSERT INTO measurements (path, state, job_id, seen_at, changed_at, finished_at)"
        " VALUES ('/in/a.rtdc', 'done', 'j', '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z',"
        " '2026-01-01T00:00:00.000Z')"
    )
    raw.commit()
    raw.close()
    config = str(tmp_path / "config.toml")
    for arguments, lines in ([], 1), (["--sample", "x"], 0), (["--light", "green"], 0), (["--state", "done"], 1):
        assert main(["history", "-c", config, *arguments]) == 0
        assert capsys.readouterr().out.count("\n") == lines
    assert main(["status", "-c", config]) == 0
    assert "1 done" in capsys.readouterr().out
