"""The command `process` on a cluster: an archive is processed by several workers, and can be continued."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys

import pytest

from dcnumd import extras
from dcnumd.cli import main
from tests.support.cluster import free_port
from tests.support.compared import result_differences
from tests.support.daemon import HANG_SECONDS, draw_measurement
from tests.support.faults import draw_long, wait_until
from tests.support.terminal import Terminal

DASK = ("--executor", "dask", "--set")


@pytest.fixture
def archive(tmp_path):
    """Return a folder with three small measurements, one of them in a subfolder, and a damaged one."""
    folder = tmp_path / "archive"
    (folder / "day").mkdir(parents=True)
    for number, name in enumerate(("M1", "M2", "day/M3")):
        draw_measurement(folder / f"{name}.rtdc", seed=number)
    (folder / "bad.rtdc").write_bytes(b"no measurement")
    return folder


def rows_of(path):
    """Return the rows of a summary by the names of the files."""
    with path.open(newline="") as file:
        return {row["path"].rpartition("/")[2]: row for row in csv.DictReader(file)}


@pytest.mark.slow
def test_an_archive_is_processed_by_several_workers(shared_cluster, pair, archive, tmp_path, capsys):
    """The results are those of this computer; what is done is skipped; the worker makes the report."""
    (tmp_path / "mnt").symlink_to(tmp_path)
    there = f"executor.paths={{ {json.dumps(str(tmp_path))} = {json.dumps(str(tmp_path / 'mnt'))} }}"
    options = (*DASK, f"executor.scheduler={shared_cluster.address}", "--set", there, "--set", "log.format=json")
    command = [sys.executable, "-m", "dcnumd", "process", "-r", archive, "-o", tmp_path / "out", *options]
    summary = tmp_path / "summary.csv"
    shown = [*map(os.fspath, command), "--no-report", "--summary", os.fspath(summary)]
    with Terminal(shown, columns=250) as terminal:
        assert terminal.wait() == 1, terminal.text
    assert "[4/4] files" in terminal.text
    assert " on two" in terminal.text
    assert "3 done, 0 skipped, 1 failed" in terminal.text
    assert f"  not_hdf5         {archive}/bad.rtdc" in terminal.text
    rows = rows_of(summary)
    assert {name: (row["outcome"], row["reason"]) for name, row in rows.items()} == {
        "bad.rtdc": ("failed", "not_hdf5"),
        "M1.rtdc": ("done", ""),
        "M2.rtdc": ("done", ""),
        "M3.rtdc": ("done", ""),
    }
    assert {row["worker"] for row in rows.values()} == {"", "one", "two"}
    for name in ("M1", "M2", "day/M3"):
        result, row = tmp_path / "out" / f"{name}_dcn.rtdc", rows[f"{name.rpartition('/')[2]}.rtdc"]
        assert row["result"] == os.fspath(result)
        assert int(row["events"]) > 0
    here = ["process", os.fspath(archive / "M1.rtdc"), "--no-report", "-o", os.fspath(tmp_path / "here")]
    assert main(here) == 0
    assert result_differences(tmp_path / "here" / "M1_dcn.rtdc", tmp_path / "out" / "M1_dcn.rtdc") == []
    capsys.readouterr()

    (tmp_path / "out" / "M2_dcn.rtdc").unlink()
    again = [*map(os.fspath, command[3:]), "--summary", os.fspath(summary), "--json"]
    assert main(again) == 1
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    outcomes = {path.rpartition("/")[2]: (one["outcome"], one["reason"]) for one in told for path in [one["path_in"]]}
    assert outcomes == {
        "bad.rtdc": ("failed", "not_hdf5"),
        "M1.rtdc": ("skipped", "output_exists"),
        "M2.rtdc": ("done", ""),
        "M3.rtdc": ("skipped", "output_exists"),
    }
    pages = [page for one in told for page in one["report"] if page.endswith(".html")]
    assert pages == [os.fspath(tmp_path / "out" / "M2_dcn.html")]
    assert (tmp_path / "out" / "M2_dcn.html").exists()
    assert {name: (row["outcome"], row["reason"]) for name, row in rows_of(summary).items()} == outcomes


@pytest.mark.slow
@pytest.mark.soak
def test_ctrl_c_stops_the_jobs_on_the_workers(cluster, tmp_path):
    """Nothing of a stopped file is left, the worker is free again, and the next run continues."""
    worker = cluster.start_worker("works")
    draw_long(tmp_path / "long.rtdc", frames=10_000)
    for number in range(3):
        draw_measurement(tmp_path / f"M{number}.rtdc", seed=number)
    command = ["process", *(f"{name}.rtdc" for name in ("M0", "long", "M1", "M2")), "--no-report"]
    options = [*DASK, f"executor.scheduler={cluster.address}", "--set", "log.format=json", "--summary", "summary.csv"]
    with Terminal([sys.executable, "-m", "dcnumd", *command, *options], columns=250, folder=tmp_path) as terminal:
        terminal.wait_for("segmentation")
        terminal.wait_for("long.rtdc")
        terminal.wait_for("segmentation")
        os.killpg(terminal.process.pid, signal.SIGINT)
        assert terminal.wait() == 1
    assert "1 done, 0 skipped, 0 failed, 1 not finished, 2 not begun" in terminal.text
    assert {name: row["outcome"] for name, row in rows_of(tmp_path / "summary.csv").items()} == {
        "M0.rtdc": "done",
        "long.rtdc": "stopped",
    }
    wait_until(lambda: not [*tmp_path.glob(".*")])
    assert not (tmp_path / "long_dcn.rtdc").exists()
    done = subprocess.run(
        [sys.executable, "-m", "dcnumd", "process", "M0.rtdc", "M1.rtdc", "M2.rtdc", "--no-report", *options],
        cwd=tmp_path, timeout=HANG_SECONDS, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 done, 1 skipped" in done.stderr
    assert worker.stop() == 0


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_is_told(archive, capsys):
    """One line with its address, after some seconds."""
    address = f"tcp://127.0.0.1:{free_port()}"
    assert main(["process", os.fspath(archive), *DASK, f"executor.scheduler={address}"]) == 2
    assert f"Error: the scheduler {address} cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ([], "executor.scheduler or executor.scheduler_file"),
        (["executor.scheduler=tcp://127.0.0.1:8786", "executor.paths={ '/elsewhere' = '/mnt' }"], "says nothing of /"),
    ],
)
def test_a_cluster_must_be_named(archive, capsys, settings, complaint):
    """The command says what the config lacks."""
    options = [option for setting in settings for option in ("--set", setting)]
    assert main(["process", os.fspath(archive), "--executor", "dask", *options]) == 2
    assert complaint in capsys.readouterr().err


def test_dask_must_be_installed(archive, capsys, monkeypatch):
    """The message says how."""
    monkeypatch.setattr(extras, "installed_version", lambda _: "")
    assert main(["process", os.fspath(archive), *DASK, "executor.scheduler=tcp://127.0.0.1:8786"]) == 2
    assert "pip install 'dcnumd[dask]'" in capsys.readouterr().err


def test_a_summary_that_cannot_be_written_is_told_at_once(archive, capsys):
    """Before any file is processed."""
    assert main(["process", os.fspath(archive), "--summary", "/nowhere/summary.csv"]) == 2
    assert "/nowhere/summary.csv: cannot be written" in capsys.readouterr().err
    assert not [*archive.glob("*_dcn*")]
