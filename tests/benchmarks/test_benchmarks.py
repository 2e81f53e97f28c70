"""The benchmark's judgement and bookkeeping, and small runs of it."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET

import h5py
import numpy as np
import pytest

from benchmarks.bench import Bench, Figure, Outcome, Timing
from benchmarks.cases import STANDARD_SPEC, Target, at_least, within
from benchmarks.compare import differences
from benchmarks.guard import Check, count_checks, observe_jobs
from benchmarks.measurements import Measurement
from benchmarks.memory import PeakMemory, pss_bytes
from benchmarks.procfs import bytes_read, cpu_seconds, process_tree
from benchmarks.programs import ROOT
from benchmarks.report import fill_section, markdown
from benchmarks.run import main
from benchmarks.timeline import Span, busy_share, draw_timeline
from dcnumd.logic.process import engine
from dcnumd.read.hdf5_data import HDF5Data


@pytest.fixture
def result(tmp_path):
    """Write a small file laid out like a result, with two background images."""
    path = tmp_path / "result.rtdc"
    with h5py.File(path, "w") as h5:
        h5["events/area_um"] = np.array([1.0, 2.0, np.nan])
        h5["events/mask"] = np.zeros((3, 4, 5), np.uint8)
        h5["events/basinmap0"] = np.arange(3, dtype=np.uint32)
        h5["events/basinmap1"] = np.array([0, 1, 1], np.uint32)
        h5["basin_events/image_bg"] = np.arange(40, dtype=np.uint8).reshape(2, 4, 5)
        basin = {"type": "internal", "features": ["image_bg"], "mapping": "basinmap1"}
        h5["basins/key"] = np.array([json.dumps(basin).encode()])
        h5.attrs["pipeline:dcnum yield"] = 3
    return path


def changed(result, tmp_path, change):
    """Return a copy of a result to which something was done."""
    path = tmp_path / "changed.rtdc"
    shutil.copy(result, path)
    with h5py.File(path, "a") as h5:
        change(h5)
    return path


def test_equal_results_have_no_differences(result, tmp_path):
    """A copy, and a difference in the last bits, count as equal; so does NaN in both."""

    def nudge(h5):
        h5["events/area_um"][0] = 1.0 + 1e-12

    assert differences(changed(result, tmp_path, nudge), result) == []


@pytest.mark.parametrize(
    ("name", "place", "value", "expected"),
    [
        ("events/area_um", 1, 2.00001, "events/area_um: 1 of 3 values differ, first at (1,)"),
        ("events/area_um", 2, 0.0, "events/area_um: 1 of 3 values differ, first at (2,)"),
        ("events/mask", (2, 1, 1), 255, "events/mask: 1 of 60 values differ, first at (2, 1, 1)"),
        ("basin_events/image_bg", (1, 0, 0), 99, "image_bg: 1 of 2 backgrounds differ"),
        ("events/basinmap0", 0, 7, "events/basinmap0: 1 of 3 values differ"),
    ],
)
def test_each_difference_is_told(result, tmp_path, name, place, value, expected):
    """A changed value is found wherever it is."""

    def change(h5):
        h5[name][place] = value

    (found,) = differences(changed(result, tmp_path, change), result)
    assert found.startswith(expected)


def test_missing_feature_and_attribute_are_told(result, tmp_path):
    """A feature that only one result has is a difference, and so is another attribute."""

    def change(h5):
        del h5["events/mask"]
        h5.attrs["pipeline:dcnum yield"] = 4

    found = differences(changed(result, tmp_path, change), result)
    assert any("events/mask: only in one" in line for line in found)
    assert any("pipeline:dcnum yield" in line for line in found)


def test_peak_memory_counts_children():
    """The memory of a child counts; after its end nothing is left to read."""
    child = "held = b'1' * 80_000_000; print(1); input()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        with PeakMemory(process.pid) as memory:
            assert process.stdout.readline()
            assert len(process_tree(process.pid)) == 2
            while memory.peak_bytes < 80_000_000:
                assert process.poll() is None
        process.communicate(b"\n")
    assert memory.peak_processes == 2
    assert pss_bytes(process.pid) == 0
    assert pss_bytes(os.getpid()) > 1_000_000


def test_report_fills_its_section_only():
    """The text around the section of a page stays."""
    page = "before\n<!-- benchmark: begin -->\nold\n<!-- benchmark: end -->\nafter\n"
    filled = fill_section(page, "new")
    assert filled == "before\n<!-- benchmark: begin -->\nnew\n<!-- benchmark: end -->\nafter\n"
    assert fill_section(filled, "new") == filled
    with pytest.raises(ValueError, match="no section"):
        fill_section("nothing", "new")


MACHINE = {
    "processor": "P", "cores": 2, "workers": 2, "memory_gb": 1.0, "python": "3.11", "load": 0.0,
    "dcnumd": "1", "dcnum": "2",
}  # fmt: skip


def timing(seconds, reference_seconds, **changes):
    """Return a timing beside dcnum, of 100 frames."""
    ratios = [other / ours for ours, other in zip(seconds, reference_seconds, strict=False)]
    usual = Timing(
        case="main", label="drain: new process", frames=100, frame_size=(80, 320), events_per_frame=0.7,
        seconds=seconds, reference="dcnum", reference_seconds=reference_seconds, ratios=ratios,
        ratio_target=at_least(9), seconds_target=None, output_bytes=1, stages={"load": 1.0, "pack": 3.0},
    )  # fmt: skip
    return dataclasses.replace(usual, **changes)


def test_report_has_ratios_with_their_spread():
    """The table holds median, minimum and maximum of both programs and of the ratio, pair by pair."""
    outcome = Outcome(timings=[timing([1.0, 2.0, 4.0], [10.0, 10.0, 10.0])])
    report = markdown(outcome, MACHINE, 3)
    assert "| 2.00 (1.00 to 4.00) | 10.00 (10.00 to 10.00) | 5.0 (2.5 to 10.0) | ≥ 9x |" in report
    assert "These miss their targets:\n\n- drain: new process: 5.0x, target ≥ 9x\n" in report
    assert "100 frames of 80x320, 0.70 events a frame" in report
    assert "load 1.00 (25 %), pack 3.00 (75 %)" in report
    assert "Differences between the results of dcnumd and dcnum: 0." in report


def test_report_tells_when_the_reference_ran_less_often():
    """Fewer runs of dcnum are not passed over in silence."""
    report = markdown(Outcome(timings=[timing([1.0, 1.0, 1.0], [10.0])]), MACHINE, 3)
    assert "| 10.00, n = 1 | 10.0, n = 1 | ≥ 9x |" in report
    assert "All targets are met." in report


def test_each_missed_target_is_listed():
    """A ratio that is met does not hide a duration that is not; without targets, nothing is said of them."""
    slow = timing([1.0], [10.0], seconds_target=within(0.5))
    busy = Figure("idle", "CPU", [0.2], "%", target=Target("at most", 0.1, "%"))
    assert slow.met() == {"ratio": True, "seconds": False}
    report = markdown(Outcome(timings=[slow], figures=[busy]), MACHINE, 1)
    missed = ["- drain: new process: 1.00 s, target ≤ 0.5 s", f"- idle, CPU: 0.20 %, target {busy.target}"]
    assert [line for line in report.splitlines() if "target " in line and line.startswith("- ")] == missed
    untold = markdown(Outcome(timings=[timing([1.0], [10.0], ratio_target=None)]), MACHINE, 1)
    assert "their targets" not in untold
    assert "All targets" not in untold


def test_timeline_shows_each_process_and_its_waiting():
    """Each process has a lane, each stage a title, and what is not coloured is told as a share."""
    spans = [
        Span(0, "load", 5.0, 6.0),
        Span(0, "pack", 6.0, 7.0),
        Span(1, "load", 5.0, 6.0),
        Span(-1, "write", 8.0, 9.0),
    ]
    assert busy_share(spans, 0) == pytest.approx(0.5)
    assert busy_share(spans, -1) == pytest.approx(0.25)
    picture = ET.fromstring(draw_timeline(spans, "title <1>"))  # noqa: S314 -- ours
    texts = [element.text for element in picture.iter() if element.text]
    assert {"title <1>", "worker 1", "worker 2", "pipeline", "50 %", "25 %"} <= set(texts)
    assert any(text.startswith("pack, 1000.0 ms, from 1.000 s") for text in texts)


def test_contiguous_measurement_has_the_same_content(tmp_path):
    """Only the storage of the images differs."""
    bench = Bench(tmp_path)
    chunked = Measurement(dataclasses.replace(STANDARD_SPEC, frames=50, compression="none"))
    one, two = bench.stock.path(chunked), bench.stock.path(dataclasses.replace(chunked, contiguous=True))
    with HDF5Data(one) as ours, HDF5Data(two) as other:
        assert np.array_equal(ours.image[:], other.image[:])
        assert dict(ours.meta) == dict(other.meta)
    with h5py.File(two) as h5:
        assert h5["events/image"].chunks is None
        assert len(h5["events/frame"]) == 50


def test_counters_of_a_process():
    """What a process reads and computes is counted, also when it has ended children."""
    before = bytes_read([os.getpid()])
    with pathlib.Path("/dev/zero").open("rb") as zeros:
        zeros.read(5_000_000)
    assert bytes_read([os.getpid()]) - before >= 5_000_000
    before = cpu_seconds([os.getpid()])
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert cpu_seconds([os.getpid()]) > before


@pytest.mark.slow
def test_work_for_a_measurement_does_not_grow(tmp_path):
    """Each chunk is read once, and workers reuse their memory: the guard's counts, on a small measurement."""
    bench = Bench(tmp_path)
    path = bench.stock.path(Measurement(dataclasses.replace(STANDARD_SPEC, frames=2000)))
    try:
        observed = observe_jobs(path, bench.new_folder("guard"), 2, 5)
    finally:
        engine.close()
    assert [str(check) for check in count_checks(path, observed) if not check.kept] == []
    assert str(Check("bytes", 2.0, 1.5)).startswith("EXCEEDED")


@pytest.mark.slow
def test_one_command_runs_cases_and_fills_a_page(tmp_path):
    """Both programs and a real daemon run on a small measurement; results agree, tables and numbers are written."""
    page, numbers = tmp_path / "performance.md", tmp_path / "numbers.json"
    page.write_text("a\n<!-- benchmark: begin -->\n<!-- benchmark: end -->\nb\n")
    options = ("--frames", 300, "--runs", 1, "--workers", 1, "--cold", "--page", page, "--json", numbers)
    command = [sys.executable, "-m", "benchmarks", "main", "growth", "limit", *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(numbers.read_text())
    assert [row["case"] for row in told["timings"]] == ["main", "main", "growth", "growth"]
    for row in told["timings"]:
        assert len(row["seconds"]) == len(row["ratios"]) == 1
        assert row["seconds"][0] > 0
        assert row["ratio_target"] is None, "targets are for the full number of frames"
    assert told["timings"][2]["frames"] == 10 * told["timings"][3]["frames"]
    assert told["timings"][0]["stages"].keys() >= {"load", "segment", "extract", "pack"}
    assert all(min(row["values"]) > 0 for row in told["figures"])
    assert told["differences"] == []
    text = page.read_text()
    assert text.startswith("a\n")
    assert text.endswith("b\n")
    assert "Differences between the results of dcnumd and dcnum: 0." in text
    assert done.stdout.strip() in text


@pytest.mark.slow
def test_many_workers_of_a_cluster_are_simulated(tmp_path, capsys):
    """A real daemon gives jobs to workers that only wait; its processor time and memory are measured."""
    numbers = tmp_path / "numbers.json"
    options = ("--simulated", 8, "--jobs", 20, "--frames", 300, "--runs", 1, "--cold", "--json", numbers)
    assert main(["cluster", *map(str, options)]) == 0, capsys.readouterr().err
    figures = {row["what"].partition(": ")[2]: row["values"] for row in json.loads(numbers.read_text())["figures"]}
    assert figures["processor time of the daemon a job"][0] > 0
    assert figures["memory of the daemon at the end"][0] > 20


def test_model_that_cannot_be_used_is_told(tmp_path, capsys):
    """The case with models ends with one line instead of a traceback; it is not among those that run unnamed."""
    (tmp_path / "net_00000.dcnm").write_bytes(b"nothing")
    assert main(["torch", "--model", str(tmp_path / "net_00000.dcnm"), "--cold", "--runs", "1"]) == 1
    assert "torch could not be measured: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "all but torch, cluster, live and guard" in " ".join(capsys.readouterr().out.split())


def test_cases_are_listed_and_unknown_ones_refused(capsys):
    """A wrong name is answered with the right ones."""
    assert main(["--list"]) == 0
    assert "rollmed" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["nonsense"])
    assert "unknown case 'nonsense'; there are main, tap, short" in capsys.readouterr().err
