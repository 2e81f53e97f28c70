"""Making a report: which files appear, what is told of them, and what happens when something is wrong."""

from __future__ import annotations

import io
import json
import pathlib
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
from PIL import Image

from dcnumd.errors import DcnumdError, MeasurementError, ResultError
from dcnumd.logic.job import Job
from dcnumd.logic.process import engine, process_measurement
from dcnumd.report.make import make_report
from dcnumd.report.processing import read_run
from tests.support.daemon import draw_measurement
from tests.support.reports import Page, request_for, write_result

pytestmark = pytest.mark.slow


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_page_and_data_appear_beside_the_result(tmp_path):
    """The result stays as it is, nothing else is left; the summary says what the page says."""
    result = write_result(tmp_path / "M001_dcn.rtdc")
    before = result.read_bytes()
    summary = make_report(request_for(result))
    assert names_in(tmp_path) == ["M001_dcn.html", "M001_dcn.json", "M001_dcn.rtdc"]
    assert summary.paths == (tmp_path / "M001_dcn.html", tmp_path / "M001_dcn.json")
    assert result.read_bytes() == before
    assert (summary.events, summary.sample, summary.recorded) == (300, "blood", "2026-11-21 10:00:00")
    assert len(summary.warnings) == len(summary.texts)
    assert (summary.light == "green") == (not summary.warnings)
    page = Page(summary.paths[0].read_text("utf-8"))
    for text in summary.texts:
        assert text in page.text
    document = json.loads(summary.paths[1].read_text("utf-8"))
    assert (document["format"], document["version"]) == ("dcnumd-report", 1)


@pytest.mark.parametrize("formats", [("html",), ("json",), ("png",), ("png", "html"), ()])
def test_only_what_is_wanted(tmp_path, formats):
    """The page does not refer to data that are not there; the summary has its pictures all the same."""
    result = write_result(tmp_path / "M001_dcn.rtdc", 40)
    summary = make_report(request_for(result, formats=formats, gallery=3))
    assert sorted(path.suffix[1:] for path in summary.paths) == sorted(formats)
    assert len(names_in(tmp_path)) == len(formats) + 1
    assert Image.open(io.BytesIO(summary.plot)).size[0] == 900
    assert Image.open(io.BytesIO(summary.thumbnail)).size == (96, 64)
    if "html" in formats:
        assert ".json" not in (tmp_path / "M001_dcn.html").read_text("utf-8")


def test_older_report_is_replaced(tmp_path):
    """As a whole; a link is replaced and what it led to stays."""
    result = write_result(tmp_path / "M001_dcn.rtdc", 40)
    (tmp_path / "M001_dcn.html").write_text("old")
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "M001_dcn.json").symlink_to(tmp_path / "precious")
    make_report(request_for(result))
    assert (tmp_path / "M001_dcn.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    assert json.loads((tmp_path / "M001_dcn.json").read_text("utf-8"))
    assert (tmp_path / "precious").read_text() == "mine"


def test_the_same_result_gives_the_same_page(tmp_path):
    """Apart from the time at which it was made."""
    result = write_result(tmp_path / "M001_dcn.rtdc")
    pages = []
    for _ in range(2):
        text = make_report(request_for(result)).paths[0].read_text("utf-8")
        pages.append(re.sub(r"<footer>.*?</footer>", "", text, flags=re.DOTALL))
    assert pages[0] == pages[1]


def test_reports_go_where_they_are_asked_for(tmp_path):
    """The folder is made; a name with dots keeps them."""
    result = write_result(tmp_path / "M001.v2_dcn.rtdc", 40)
    request = request_for(result)
    request = type(request)(result, tmp_path / "deep" / "down" / "M001.v2_dcn")
    assert [path.name for path in make_report(request).paths] == ["M001.v2_dcn.html", "M001.v2_dcn.json"]
    assert names_in(tmp_path / "deep" / "down") == ["M001.v2_dcn.html", "M001.v2_dcn.json"]


def test_folder_that_cannot_be_written(tmp_path):
    """One clear error; the result stays, nothing is left behind."""
    result = write_result(tmp_path / "M001_dcn.rtdc", 40)
    (tmp_path / "file").write_text("no folder")
    request = type(request_for(result))(result, tmp_path / "file" / "M001_dcn")
    with pytest.raises(ResultError, match="M001_dcn"):
        make_report(request)
    assert names_in(tmp_path) == ["M001_dcn.rtdc", "file"]


def test_no_link_leads_a_report_out_of_its_root(tmp_path):
    """Who can write there could otherwise have anything replaced."""
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    result = write_result(tmp_path / "M001_dcn.rtdc", 40)
    (root / "reports").symlink_to(elsewhere)
    request = type(request_for(result))(result, root / "reports" / "M001_dcn", root=root)
    with pytest.raises(ResultError) as caught:
        make_report(request)
    assert caught.value.reason == "outside"
    assert names_in(elsewhere) == []


def test_zero_events(tmp_path):
    """Red or grey, no pictures, and still a page."""
    summary = make_report(request_for(write_result(tmp_path / "M001_dcn.rtdc", 0)))
    assert summary.light in {"red", "grey"}
    assert (summary.events, summary.plot, summary.thumbnail) == (0, b"", b"")
    assert len(summary.paths) == 2


def test_no_plot_to_save(tmp_path):
    """An empty picture would be worse than none."""
    nothing = np.full(20, np.nan)
    result = write_result(tmp_path / "M001_dcn.rtdc", 20, columns={"area_um": nothing})
    assert make_report(request_for(result, formats=("png", "json"))).paths == (tmp_path / "M001_dcn.json",)


def no_file(path):
    pass


def no_hdf5(path):
    path.write_bytes(b"no HDF5 at all" * 100)


def cut_off(path):
    write_result(path, 40)
    path.write_bytes(path.read_bytes()[:3000])


def foreign(path):
    with h5py.File(path, "w") as h5:
        h5["something/else"] = np.arange(3)


@pytest.mark.parametrize("make", [no_file, no_hdf5, cut_off, foreign])
def test_files_that_are_no_results(tmp_path, make):
    """One line that names the file; no report is begun."""
    path = tmp_path / "M001_dcn.rtdc"
    make(path)
    with pytest.raises(DcnumdError, match=r"M001_dcn\.rtdc") as caught:
        make_report(request_for(path))
    assert isinstance(caught.value, MeasurementError | ResultError)
    assert "\n" not in caught.value.message
    assert not [name for name in names_in(tmp_path) if name != path.name]


@pytest.mark.parametrize("strategy", ["drain", "tap"])
def test_results_of_the_pipeline(simulate, strategy):
    """Everything is shown, whether the images lie in the result or in the measurement."""
    summary = make_report(request_for(simulate(strategy=strategy), gallery=8))
    page = Page(summary.paths[0].read_text("utf-8"))
    assert summary.events > 100
    assert summary.frames == 600 or strategy == "drain", "only the measurement knows"
    assert len(page.of("li", "cell")) == len(page.of("path", "contour")) == 8
    assert len(page.of("img")) >= 1
    drawings = [values for values in page.of("svg") if values.get("role") == "img"]
    assert len(drawings) == 8 + 1 + 4 + 2, "cells, scatter plot, histograms, courses"
    assert "What this report cannot show" not in page.text


def test_measurement_that_is_gone(simulate, tmp_path):
    """A result that refers to it has numbers but no images: the page says which file is missing."""
    result = simulate(strategy="tap")
    measurement = result.with_name("usual-tap.rtdc")
    moved = tmp_path / "alone_dcn.rtdc"
    moved.write_bytes(result.read_bytes())
    hidden = measurement.rename(measurement.with_name("hidden"))
    try:
        summary = make_report(request_for(moved))
    finally:
        hidden.rename(measurement)
    page = Page(summary.paths[0].read_text("utf-8"))
    assert summary.plot
    assert not page.of("li", "cell")
    said = page.text[page.text.index("What this report cannot show") :]
    assert measurement.name in said


def test_features_that_a_missing_basin_has_are_named(tmp_path):
    """What the result lacks is told on the page and in the data, not only in the log of the run."""
    path = tmp_path / "M001.rtdc"
    draw_measurement(path)
    basin = {"type": "file", "format": "hdf5", "name": "away", "paths": ["gone.rtdc"], "features": ["temp"]}
    with h5py.File(path, "a") as h5:
        h5["basins/away"] = np.array([json.dumps(basin).encode()])
    result = process_measurement(Job(path, tmp_path / "M001_dcn.rtdc", num_workers=1)).path_out
    engine.close()
    summary = make_report(request_for(result))
    page, data = (file.read_text("utf-8") for file in summary.paths)
    (warning,) = (text for text in json.loads(data)["processing"]["warnings"] if "gone.rtdc" in text)
    assert warning.endswith("without it the result lacks temp")
    said = Page(page).text
    assert warning in said[said.index("Warnings of the processing") :]


def test_long_lists_of_warnings_are_cut():
    """A log with a line for each frame makes no page that nobody can open."""
    lines = [f"12:00:00 WARNING {number}: {'x' * 1000}" for number in range(100)]
    warnings = read_run({"dcnumd-log-2026": lines}).processing.warnings
    assert len(warnings) == 21
    assert max(map(len, warnings)) < 510
    assert warnings[-1] == "80 further warnings are in the log of the result."


@pytest.mark.parametrize(
    ("end", "further", "seconds", "speed"),
    [
        ("12:00:02", "INFO Run duration: 2.915 s, up to here", 2.915, pytest.approx(686.1, abs=0.1)),
        ("12:00:02", "INFO Run duration: 0:00:02", 2, None),
        ("12:00:02", "INFO", 2, None),
        ("12:00:20", "INFO", 20, 100),
    ],
)
def test_speed_is_computed_from_exact_times_only(end, further, seconds, speed):
    """Logs of dcnum and of earlier versions have whole seconds, which are too inexact for a short run."""
    lines = ["12:00:00 INFO Processing M001.rtdc (2000 frames) with 13", f"{end} {further}"]
    processing = read_run({"dcnumd-log-2026": lines}).processing
    assert (processing.seconds, processing.frames_per_second) == (seconds, speed)


def test_time_and_speed_of_a_run_are_those_of_its_result(tmp_path):
    """The command and the report tell the same, apart from the time that publishing takes."""
    draw_measurement(tmp_path / "M001.rtdc")
    result = process_measurement(Job(tmp_path / "M001.rtdc", tmp_path / "M001_dcn.rtdc", num_workers=1))
    engine.close()
    told = json.loads(make_report(request_for(result.path_out)).paths[1].read_text("utf-8"))["processing"]
    assert 0 < told["seconds"] <= result.seconds
    assert told["frames_per_second"] == pytest.approx(result.frames / told["seconds"])


def peak_memory(result: pathlib.Path) -> int:
    """Return the most that a new process takes to make a report [bytes]."""
    code = (
        "import pathlib, resource, sys; from dcnumd.report.make import make_report\n"
        "from dcnumd.report.request import ReportRequest\n"
        "result = pathlib.Path(sys.argv[1]); make_report(ReportRequest(result, result.with_suffix('')))\n"
        "assert 'dclab' not in sys.modules, 'without a known temperature, nothing of it is needed'\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, str(result)]
    return 1024 * int(subprocess.run(command, check=True, capture_output=True, timeout=200).stdout)


def test_memory_hardly_depends_on_the_number_of_events(tmp_path):
    """Of many features of very many events only some are held at a time, packed or unpacked."""
    features, events = 60, 2**17
    peaks = []
    for count in (100, events):
        result = write_result(tmp_path / f"{count}_dcn.rtdc", count, without=("image", "mask", "image_bg"))
        with h5py.File(result, "a") as h5:
            for number in range(features):
                values = np.random.default_rng(number).normal(size=count)
                h5.create_dataset(f"events/userdef{number}", data=values, chunks=(min(count, 1000),))
        peaks.append(peak_memory(result))
    assert peaks[1] - peaks[0] < features * events * 8 // 2
