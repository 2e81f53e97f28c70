"""The benchmark's judgement and bookkeeping; the runs themselves are too long for a test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from benchmarks.compare import differences
from benchmarks.memory import PeakMemory, process_tree, pss_bytes
from benchmarks.report import fill_section, markdown


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
    """The README's text around the section stays."""
    readme = "before\n<!-- benchmark: begin -->\nold\n<!-- benchmark: end -->\nafter\n"
    filled = fill_section(readme, "new")
    assert filled == "before\n<!-- benchmark: begin -->\nnew\n<!-- benchmark: end -->\nafter\n"
    assert fill_section(filled, "new") == filled
    with pytest.raises(ValueError, match="no section"):
        fill_section("nothing", "new")


def test_report_has_ratios_with_their_spread():
    """The table holds median, minimum and maximum of both programs and of the ratio, pair by pair."""

    def run(seconds):
        return {"seconds": seconds, "cpu_seconds": 1.0, "frames_per_second": 100 / seconds, "stages": {"load": 1.0}}

    results = {
        "options": {
            "frames": 100, "size": "80x320", "compression": "none", "output_compression": "zstd-5",
            "strategy": "drain", "background": "sparsemed", "runs": 3,
        },
        "machine": {
            "processor": "P", "cores": 2, "memory_gb": 1.0, "python": "3.11", "load": 0.0, "dcnumd": "1", "dcnum": "2",
        },
        "events_per_frame": 0.7,
        "runs": {"dcnumd": [run(1.0), run(2.0), run(4.0)], "dcnum": [run(10.0), run(10.0), run(10.0)]},
        "memory": {"dcnumd": {"peak_bytes": 2**20}, "dcnum": {"peak_bytes": 2**22}},
        "warm": [{"seconds": 9.0}, {"seconds": 0.5}],
        "differences": [],
    }  # fmt: skip
    report = markdown(results)
    assert "| wall time [s] | 2.00 (1.00 to 4.00) | 10.00 (10.00 to 10.00) | 5.0 (2.5 to 10.0)x |" in report
    assert "| 1 | 4 | 4.0x |" in report
    assert "| wall time in a running daemon [s] | 0.50 (0.50 to 0.50) | - | 20.0x |" in report
    assert "Differences between the results: 0." in report
