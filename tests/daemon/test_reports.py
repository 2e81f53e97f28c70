"""Reports that a real daemon makes: beside each result, never instead of one, and after every fault."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sqlite3

import psutil
import pytest

from dcnumd.daemon.ledger.store import Ledger, ledger_path
from dcnumd.logic.stamp import Stamp
from tests.support.daemon import HANG_SECONDS, draw_measurement
from tests.support.faults import wait_until

# Without courtesy, reports do not wait until nobody else works on this computer.
REPORTS = "[report]\nenabled = true\n"
QUICK = ("--set", "resources.nice=0")
SECONDS = HANG_SECONDS


def row_of(state_folder, path):
    """Return the row of a measurement."""
    ledger = Ledger.open_to_read(state_folder)
    with ledger:
        return ledger.latest(str(path))


def report_process(daemon):
    """Return the process that makes reports."""
    event = daemon.wait_for("worker.started", timeout=SECONDS, role="report")
    return psutil.Process(event["pid"])


def stamp_of(path):
    """Return what changes when a file is written again."""
    return Stamp.at(str(path))


def text_of(path):
    """Return what is in an index."""
    return path.read_text("utf-8")


def test_each_result_gets_a_page_and_its_figures(start_daemon, write_config, watched_folder, state_folder):
    """The report lies beside the result, the ledger and the log say so, and the index links it."""
    daemon = start_daemon(*QUICK, config=write_config(REPORTS))
    draw_measurement(watched_folder / "M001_data.rtdc", frames=200)
    finished = daemon.wait_for("job.finished", timeout=SECONDS)
    written = daemon.wait_for("report.written", timeout=SECONDS)
    page, figures = (watched_folder / f"M001_data_dcn.{ending}" for ending in ("html", "json"))
    assert written["report"] == [str(page), str(figures)]
    assert written["job_id"] == finished["job_id"]
    assert json.loads(figures.read_text())["events"] == finished["events"]
    assert "M001_data" in page.read_text()
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait(SECONDS) == 0
    row = row_of(state_folder, watched_folder / "M001_data.rtdc")
    assert (row.report, row.report_state, row.light) == (str(page), "written", written["light"])
    assert row.warnings.split() == written["warnings"]
    assert "M001_data_dcn.html" in text_of(watched_folder / "index.html")


def test_reports_have_a_folder_of_their_own(start_daemon, write_config, watched_folder, tmp_path):
    """The tree is mirrored, and nothing but the result is put beside the measurement."""
    reports = tmp_path / "reports"
    daemon = start_daemon(
        *QUICK, config=write_config(f"{REPORTS}folder = {json.dumps(str(reports))}\nformats = ['html']\n")
    )
    (watched_folder / "day").mkdir()
    draw_measurement(watched_folder / "day" / "M001_data.rtdc")
    daemon.wait_for("report.written", timeout=SECONDS)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait(SECONDS) == 0
    assert (reports / "day" / "M001_data_dcn.html").exists()
    assert "day/M001_data_dcn.html" in text_of(reports / "index.html")
    assert sorted(path.name for path in watched_folder.rglob("*.*")) == ["M001_data.rtdc", "M001_data_dcn.rtdc"]


def test_without_reports_nothing_is_made(start_daemon, write_config, watched_folder):
    """Neither a page nor an index nor a process."""
    daemon = start_daemon("--once", config=write_config("[report]\nenabled = false\n"), ready=False)
    draw_measurement(watched_folder / "M001_data.rtdc")
    assert daemon.wait(SECONDS) == 0
    assert not list(watched_folder.glob("*.html"))
    assert not daemon.matching("worker.started", role="report")


def test_once_waits_for_the_reports(start_daemon, write_config, watched_folder):
    """When the command ends, everything is there."""
    draw_measurement(watched_folder / "M001_data.rtdc")
    (watched_folder / "M002_data.rtdc").write_bytes(b"no measurement")
    daemon = start_daemon("--once", *QUICK, config=write_config(REPORTS), ready=False)
    assert daemon.wait(SECONDS) == 1
    index = text_of(watched_folder / "index.html")
    assert "M001_data_dcn.html" in index
    assert "not_hdf5" in index


def test_failed_measurement_is_in_the_index_until_it_is_done(start_daemon, write_config, watched_folder):
    """It is listed with its reason; when the file is repaired, its result takes the place."""
    path, index = watched_folder / "M001_data.rtdc", watched_folder / "index.html"
    path.write_bytes(b"no measurement")
    assert start_daemon("--once", *QUICK, config=write_config(REPORTS), ready=False).wait(SECONDS) == 1
    assert "not_hdf5" in text_of(index)
    assert "It is no measurement. Move it somewhere else." in text_of(index)
    path.unlink()
    draw_measurement(path)
    assert start_daemon("--once", *QUICK, config=write_config(REPORTS), ready=False).wait(SECONDS) == 0
    assert "M001_data_dcn.html" in text_of(index)
    assert "not_hdf5" not in text_of(index)


def test_killed_process_makes_the_report_again(start_daemon, write_config, watched_folder):
    """The result stays as it is, the report comes later, and nothing is left over."""
    daemon = start_daemon(*QUICK, config=write_config(REPORTS))
    draw_measurement(watched_folder / "M001_data.rtdc")
    daemon.wait_for("report.written", timeout=SECONDS)
    process = report_process(daemon)
    process.suspend()
    draw_measurement(watched_folder / "M002_data.rtdc", seed=2)
    daemon.wait_for("job.finished", timeout=SECONDS, count=2)
    before = stamp_of(watched_folder / "M002_data_dcn.rtdc")
    process.kill()
    # whether it was killed with the report or just before it got it
    daemon.wait_for("worker.lost", timeout=SECONDS, role="report")
    assert stamp_of(watched_folder / "M002_data_dcn.rtdc") == before
    daemon.wait_for("report.written", timeout=SECONDS, count=2)
    assert stamp_of(watched_folder / "M002_data_dcn.rtdc") == before
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait(SECONDS) == 0
    assert not [path for path in watched_folder.rglob(".*") if path.is_file()]


@pytest.mark.skipif(os.geteuid() != 0, reason="others may not leave the idle class")
def test_reports_give_way_to_measurements(start_daemon, write_config, watched_folder):
    """A report leaves the processors to a measurement that is processed, and only as long as that."""
    # any courtesy has these classes; with more of it, the reports would wait for what other tests compute
    daemon = start_daemon("--set", "resources.nice=1", config=write_config(REPORTS))
    draw_measurement(watched_folder / "M001_data.rtdc")
    daemon.wait_for("report.written", timeout=SECONDS)
    process, pipeline = (
        psutil.Process(daemon.wait_for("worker.started", role=role)["pid"]) for role in ("report", "pipeline")
    )
    wait_until(lambda: os.sched_getscheduler(process.pid) == os.SCHED_BATCH)
    pipeline.suspend()
    draw_measurement(watched_folder / "M002_data.rtdc", seed=2)
    daemon.wait_for("job.started", timeout=SECONDS, count=2)
    assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE
    pipeline.resume()
    daemon.wait_for("job.finished", timeout=SECONDS, count=2)
    wait_until(lambda: os.sched_getscheduler(process.pid) == os.SCHED_BATCH)


def test_report_that_was_not_made_is_made_after_the_restart(start_daemon, write_config, watched_folder, state_folder):
    """The daemon is killed when the result is there and the report is not."""
    config = write_config(REPORTS)
    daemon = start_daemon(*QUICK, config=config)
    draw_measurement(watched_folder / "M001_data.rtdc")
    daemon.wait_for("report.written", timeout=SECONDS)
    report_process(daemon).suspend()
    draw_measurement(watched_folder / "M002_data.rtdc", seed=2)
    daemon.wait_for("job.finished", timeout=SECONDS, count=2)
    os.kill(daemon.process.pid, signal.SIGKILL)
    daemon.close()
    assert row_of(state_folder, watched_folder / "M002_data.rtdc").report_state == "wanted"
    again = start_daemon(*QUICK, config=config)
    written = again.wait_for("report.written", timeout=SECONDS)
    assert written["path"] == str(watched_folder / "M002_data.rtdc")
    assert not again.matching("job.started")


def test_folder_that_takes_no_reports_costs_no_result(start_daemon, write_config, watched_folder, tmp_path):
    """One warning says what is wrong; the result is there and the daemon goes on."""
    (tmp_path / "file").write_text("in the way")
    folder = json.dumps(str(tmp_path / "file" / "reports"))
    daemon = start_daemon(*QUICK, config=write_config(f"{REPORTS}folder = {folder}\n"))
    for number in (1, 2):
        draw_measurement(watched_folder / f"M00{number}_data.rtdc", seed=number)
    daemon.wait_for("report.failed", timeout=SECONDS, count=2, will_retry=False)
    assert len(daemon.matching("job.finished")) == 2
    assert str(tmp_path / "file") in daemon.matching("report.failed")[0]["error"]


def test_ledger_of_before_reports_is_read_and_brought_up_to_date(tmp_path):
    """An older ledger can be shown before the daemon has changed it, and nothing in it is lost."""
    Ledger.open(tmp_path).close()
    raw = sqlite3.connect(ledger_path(tmp_path))
    raw.execute("DROP INDEX by_wanted_report")
    raw.execute("DROP INDEX by_end")
    raw.execute("DROP INDEX by_content")
    for column in ("sample", "light", "warnings", "report", "report_state", "digest"):
        raw.execute(f"ALTER TABLE measurements DROP COLUMN {column}")
    raw.execute("CREATE UNIQUE INDEX by_content ON measurements (path, content_size, md5_5m, identifier, pphash)")
    raw.execute(
        "INSERT INTO measurements (path, state, job_id, seen_at, changed_at, finished_at)"
        " VALUES ('/in/a.rtdc', 'done', 'j', 't', 't', '2026-01-01T00:00:00Z')"
    )
    raw.execute("PRAGMA user_version = 2")
    raw.commit()
    raw.close()
    for ledger in (Ledger.open_to_read(tmp_path), Ledger.open(tmp_path)):
        with ledger:
            (row,) = ledger.history()
            assert (row.path, row.sample, row.light, row.report, row.report_state) == ("/in/a.rtdc", "", "", None, "")


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["c", "b", "a"]),
        ({"since": "2026-01-02T00:00:00Z"}, ["c", "b"]),
        ({"until": "2026-01-02T00:00:00Z"}, ["a"]),
        ({"sample": "ÄPFEL"}, ["b"]),
        ({"sample": "%"}, []),
        ({"light": "green"}, ["c"]),
        ({"limit": 1}, ["c"]),
        ({"before": 2}, ["a"]),
    ],
)
def test_history_is_filtered(tmp_path, filters, expected):
    """Each filter alone; capitals of any alphabet do not matter, and signs of SQL mean themselves."""
    with Ledger.open(tmp_path) as ledger:
        for day, (name, sample, light) in enumerate(
            [("a", "blood", ""), ("b", "äpfel", "red"), ("c", "", "green")], start=1
        ):
            entry = ledger.add(f"/in/{name}", None, name)
            ledger.move(entry.id, "settling")
            ledger.move(entry.id, "done", sample=sample, light=light)
            ledger.amend(entry.id, finished_at=f"2026-01-0{day}T00:00:00Z")
        assert [pathlib.PurePath(entry.path).name for entry in ledger.history(**filters)] == expected
