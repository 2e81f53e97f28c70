"""Reports that a real daemon makes: beside each result, never instead of one, and after every fault."""

from __future__ import annotations

import json
import pathlib
import signal
import sqlite3
from collections.abc import Callable

import psutil
import pytest

from dcnumd.daemon.ledger.records import Entry
from dcnumd.daemon.ledger.store import Ledger, ledger_path
from dcnumd.logic.stamp import Stamp
from tests.support.daemon import HANG_SECONDS, Daemon, draw_measurement
from tests.support.faults import published, result_of, wait_until

REPORTS = "[report]\nenabled = true\nplot.isoelastics = false\n"
"""Why without isoelasticity lines: the import of dclab would take longer than the rest of a test."""
NO_REPORTS = "[report]\nenabled = false\n"
SECONDS = HANG_SECONDS


def row_of(state_folder: pathlib.Path, path: pathlib.Path) -> Entry:
    """Return the row of a measurement."""
    ledger = Ledger.open_to_read(state_folder)
    with ledger:
        entry = ledger.latest(str(path))
    assert entry is not None
    return entry


def process_of(daemon: Daemon, role: str) -> psutil.Process:
    """Return the process that has a role now."""
    return psutil.Process(daemon.wait_for("worker.started", timeout=SECONDS, role=role)["pid"])


def index_of(folder: pathlib.Path) -> str:
    """Return what is in an index."""
    return (folder / "index.html").read_text("utf-8")


def test_reports_of_a_daemon(start_daemon, write_config, watched_folder, state_folder, tmp_path):
    """Beside each result, where the config says, and for each result once."""
    ends_without_a_folder(start_daemon, write_config, watched_folder, tmp_path / "file")
    fails_until_it_is_repaired(start_daemon, write_config, watched_folder)
    daemon = start_daemon(config=write_config(NO_REPORTS))

    def reload(report: str) -> None:
        count = len(daemon.matching("config.reloaded"))
        write_config(report)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("config.reloaded", count=count + 1)

    without_reports(daemon, watched_folder)
    reload(REPORTS)
    page_and_figures(daemon, watched_folder, state_folder)
    killed_process(daemon, watched_folder)
    reload(f"{REPORTS}folder = {json.dumps(str(tmp_path / 'reports'))}\nformats = ['html']\n")
    folder_of_their_own(daemon, watched_folder, tmp_path / "reports")
    # with a single attempt, so that a failure that counts would be the last
    reload(f"attempts = 1\n{REPORTS}folder = {json.dumps(str(tmp_path / 'file' / 'reports'))}\n")
    folder_in_the_way(daemon, watched_folder, state_folder, tmp_path / "file")
    reload(REPORTS)
    path = killed_daemon(daemon, watched_folder, state_folder)
    daemon = start_daemon(config=write_config(REPORTS))
    assert daemon.wait_for("report.written", timeout=SECONDS)["path"] == str(path)
    assert not daemon.matching("job.started")
    assert daemon.stop() == 0


def ends_without_a_folder(
    start_daemon: Callable[..., Daemon], config: Callable[[str], pathlib.Path], folder: pathlib.Path, file: pathlib.Path
) -> None:
    """Have ``--once`` end although a report waits for its folder; the next run makes it."""
    draw_measurement(folder / "first.rtdc")
    file.write_text("in the way")
    daemon = start_daemon(
        "--once", config=config(f"{REPORTS}folder = {json.dumps(str(file / 'reports'))}\n"), ready=False
    )
    assert daemon.wait(SECONDS) == 0
    assert len(daemon.matching("report.failed", path=str(folder / "first.rtdc"), will_retry=True)) == 1


def fails_until_it_is_repaired(
    start_daemon: Callable[..., Daemon], config: Callable[[str], pathlib.Path], folder: pathlib.Path
) -> None:
    """Have ``--once`` wait for the reports: when it ends, also those of before are there, and the failure is listed."""
    (folder / "repaired.rtdc").write_bytes(b"no measurement")
    assert start_daemon("--once", config=config(REPORTS), ready=False).wait(SECONDS) == 1
    index = index_of(folder)
    for part in ("first_dcn.html", "repaired.rtdc", "not_hdf5", "It is not a measurement. Move it somewhere else."):
        assert part in index


def without_reports(daemon: Daemon, folder: pathlib.Path) -> None:
    """Have a result without page or entry in the index; there is no process for them."""
    path = published(folder, "without.rtdc", seed=1)
    daemon.wait_for("job.finished", timeout=SECONDS, path=str(path))
    assert not result_of(path).with_suffix(".html").exists()
    assert "without" not in index_of(folder)
    assert not daemon.matching("worker.started", role="report")


def page_and_figures(daemon: Daemon, folder: pathlib.Path, state_folder: pathlib.Path) -> None:
    """Repair the file: report, figures and index lie beside the result; log and ledger say so."""
    path = published(folder, "repaired.rtdc", frames=200, seed=2)
    finished = daemon.wait_for("job.finished", timeout=SECONDS, path=str(path))
    written = daemon.wait_for("report.written", timeout=SECONDS)
    page, figures = (result_of(path).with_suffix(ending) for ending in (".html", ".json"))
    assert written["report"] == [str(page), str(figures)]
    assert written["job_id"] == finished["job_id"]
    assert json.loads(figures.read_text())["events"] == finished["events"]
    assert "repaired" in page.read_text()
    rated = daemon.wait_for("report.rated", timeout=SECONDS, path=str(path))
    assert (rated["light"], rated["warnings"]) == (written["light"], written["warnings"])
    row = row_of(state_folder, path)
    assert (row.report, row.report_state, row.light) == (str(page), "written", written["light"])
    assert row.warnings.split() == written["warnings"]
    wait_until(lambda: "repaired_dcn.html" in index_of(folder) and "not_hdf5" not in index_of(folder))


def killed_process(daemon: Daemon, folder: pathlib.Path) -> None:
    """Kill the process of reports: the result stays as it is, the report comes later, and nothing is left over."""
    process, count = process_of(daemon, "report"), len(daemon.matching("report.written"))
    process.suspend()
    path = published(folder, "killed.rtdc", seed=3)
    daemon.wait_for("job.finished", timeout=SECONDS, path=str(path))
    before = Stamp.at(str(result_of(path)))
    process.kill()
    # whether it was killed with the report or just before it got it
    daemon.wait_for("worker.lost", timeout=SECONDS, role="report")
    assert Stamp.at(str(result_of(path))) == before
    daemon.wait_for("report.written", timeout=SECONDS, count=count + 1)
    assert Stamp.at(str(result_of(path))) == before
    wait_until(lambda: not [path for path in folder.rglob(".*") if path.is_file()])


def folder_of_their_own(daemon: Daemon, folder: pathlib.Path, reports: pathlib.Path) -> None:
    """Mirror the tree in another folder; nothing but the result is put beside the measurement."""
    (folder / "day").mkdir()
    path = published(folder / "day", "M001_data.rtdc", seed=5)
    daemon.wait_for("report.written", timeout=SECONDS, path=str(path))
    assert (reports / "day" / "M001_data_dcn.html").exists()
    wait_until(lambda: (reports / "index.html").exists() and "day/M001_data_dcn.html" in index_of(reports))
    assert sorted(path.name for path in (folder / "day").iterdir()) == ["M001_data.rtdc", "M001_data_dcn.rtdc"]


def folder_in_the_way(daemon: Daemon, folder: pathlib.Path, state_folder: pathlib.Path, file: pathlib.Path) -> None:
    """Have no folder for reports: they wait, one warning says why, no attempt is counted; later they are made."""
    paths = [published(folder, f"M{number}.rtdc", seed=number) for number in (6, 7)]
    for path in paths:
        daemon.wait_for("job.finished", timeout=SECONDS, path=str(path))
        daemon.wait_for("report.rated", timeout=SECONDS, path=str(path))
    failed = daemon.wait_for("report.failed", timeout=SECONDS, reason="output_no_permission")
    assert str(file) in failed["error"]
    assert (failed["attempt"], failed["will_retry"]) == (1, True)
    assert [row_of(state_folder, path).report_state for path in paths] == ["wanted", "wanted"]
    file.unlink()
    for path in paths:
        daemon.wait_for("report.written", timeout=SECONDS, path=str(path))
        assert (file / "reports" / f"{path.stem}_dcn.html").exists()
    assert daemon.matching("report.failed", reason="output_no_permission") == [failed]


def killed_daemon(daemon: Daemon, folder: pathlib.Path, state_folder: pathlib.Path) -> pathlib.Path:
    """Kill the daemon when a result is there and its report is not; return the measurement."""
    process_of(daemon, "report").suspend()
    path = published(folder, "later.rtdc", seed=8)
    daemon.wait_for("job.finished", timeout=SECONDS, path=str(path))
    daemon.stop(signal.SIGKILL)
    assert row_of(state_folder, path).report_state == "wanted"
    return path


def test_ledger_of_before_reports_is_read_and_brought_up_to_date(tmp_path):
    """An older ledger can be shown before the daemon has changed it, and nothing in it is lost."""
    Ledger.open(tmp_path).close()
    raw = sqlite3.connect(ledger_path(tmp_path))
    raw.execute("DROP TABLE acknowledged")
    for index in ("by_wanted_report", "by_end", "by_content", "by_red"):
        raw.execute(f"DROP INDEX {index}")
    for column in ("sample", "light", "warnings", "report", "report_state", "digest", "interrupted"):
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
