"""The rule of the house: the same pipeline identifier means the same data as dcnum's, event by event."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import runpy
import shutil
import subprocess
import sys

import h5py
import pytest

from benchmarks.compare import differences
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement
from tests.support.parity import IN_THREADS, assert_equal_results

REAL = {
    "cytoshot": "fmt-hdf5_cytoshot_full-features_2023",
    "naiad": "fmt-hdf5_cytoshot_full-features_2024",
    "shapein": "fmt-hdf5_shapein_raw-with-variable-length-logs",
}
SIZES = {"80x320": (80, 320), "80x400": (80, 400), "100x1010": (100, 1010), "45x100": (45, 100)}
FRAMES = 210
"""More than the kernel of the usual background."""
CROWDS = {
    "sparse": {"density": 0.3, "frames": FRAMES},
    "dense": {"density": 5.0, "frames": 110},
    "flickering": {"density": 0.7, "flicker": 2.5, "frames": FRAMES},
}
SIMULATED = {
    f"{size}-{crowd}": MeasurementSpec(size=SIZES[size], seed=number, **CROWDS[crowd])
    for number, (size, crowd) in enumerate(itertools.product(SIZES, CROWDS))
}
SHORT = {f"{name}-short": dataclasses.replace(spec, frames=40) for name, spec in SIMULATED.items()}
"""For dcnum's rolling median, which takes its time for each frame, and for large frames."""
COMPARE_TOOL = pathlib.Path(__file__).parents[3] / "shared" / "tools" / "compare_rtdc.py"


@pytest.fixture(scope="module")
def measurement(tmp_path_factory, shared_data):
    """Return a function that gives the path of a real or simulated measurement by its name."""
    folder = tmp_path_factory.mktemp("measurements")

    def find(name):
        if name in REAL:
            return shared_data(REAL[name])
        path = folder / f"{name}.rtdc"
        if not path.exists():
            write_measurement(path, (SIMULATED | SHORT)[name])
        return path

    return find


@pytest.mark.parametrize("name", [*REAL, *(f"{name}-short" if "1010" in name else name for name in SIMULATED)])
def test_default_pipeline_equals_dcnum(name, measurement, oracle, tmp_path, monkeypatch):
    """Real files, with which dcnum works in several processes, and all simulated shapes and crowds give its events."""
    ours, reference = assert_equal_results(measurement(name), tmp_path, oracle, threads=name not in REAL)
    if COMPARE_TOOL.exists():
        monkeypatch.setattr(sys, "argv", [str(COMPARE_TOOL), str(ours), str(reference)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(COMPARE_TOOL), run_name="__main__")
        assert not ended.value.code


@pytest.mark.parametrize("name", ["cytoshot", "80x320-sparse", "45x100-dense"])
@pytest.mark.parametrize("background", ["sparsemed", "rollmed"])
def test_tap_equals_dcnum(name, background, measurement, oracle, tmp_path):
    """A result that refers to its input holds the same numbers."""
    kwargs = {"kernel_size": 10, "batch_size": 2000} if background == "rollmed" else {}
    short = f"{name}-short"
    assert_equal_results(
        measurement(short if background == "rollmed" and short in SHORT else name),
        tmp_path,
        oracle,
        basin_strategy="tap",
        background_code=background,
        background_kwargs=kwargs,
    )


def test_tap_refers_to_the_place_that_dcnum_refers_to(measurement, oracle, tmp_path):
    """Whatever is a symbolic link, the file, its folder or that of the results: the paths are those of dcnum."""
    raw, results = tmp_path / "disk" / "raw" / "0001.rtdc", tmp_path / "disk" / "far" / "away"
    raw.parent.mkdir(parents=True)
    results.mkdir(parents=True)
    shutil.copy(measurement("naiad"), raw)
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv" / "M001.rtdc").symlink_to("../disk/raw/0001.rtdc")
    (tmp_path / "acq").symlink_to("srv")
    (tmp_path / "results").symlink_to("disk/far/away")
    path, folder = tmp_path / "acq" / "M001.rtdc", tmp_path / "results"
    found = [basin_paths(result) for result in assert_equal_results(path, folder, oracle, basin_strategy="tap")]
    assert found[0] == found[1] == {(str(raw), "../../raw/0001.rtdc")}


def basin_paths(path):
    """Return the paths of all basins that are files."""
    with h5py.File(path, locking=False) as h5:
        basins = [json.loads(b"\n".join(lines[:])) for lines in h5["basins"].values()]
    return {tuple(basin["paths"]) for basin in basins if basin["type"] == "file"}


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("45x100-dense", {}),
        ("45x100-flickering", {"kernel_size": 20, "batch_size": 50}),
        ("80x320-flickering-short", {"kernel_size": 20}),
        ("100x1010-sparse-short", {"kernel_size": 20, "batch_size": 25}),
    ],
)
def test_rolling_median_equals_dcnum(name, kwargs, measurement, oracle, tmp_path):
    """A background image for each frame, with the kernel's tail at the end; in one batch, and in several."""
    assert_equal_results(measurement(name), tmp_path, oracle, background_code="rollmed", background_kwargs=kwargs)


@pytest.mark.parametrize("strategy", ["drain", "tap"])
@pytest.mark.parametrize("name", ["naiad", "cytoshot"])
def test_copied_background_equals_dcnum(name, strategy, measurement, oracle, tmp_path):
    """The input's own background images and offsets are taken over."""
    assert_equal_results(measurement(name), tmp_path, oracle, background_code="copy", basin_strategy=strategy)


@pytest.mark.parametrize(
    "background",
    [
        {"background_code": "sparsemed", "background_kwargs": {"offset_correction": False}},
        {"background_code": "rollmed", "background_kwargs": {"kernel_size": 10}},
    ],
    ids=["sparsemed", "rollmed"],
)
@pytest.mark.parametrize("strategy", ["drain", "tap"])
def test_offset_of_the_input_is_used_as_in_dcnum(background, strategy, measurement, oracle, tmp_path):
    """The input's bg_off counts also for a new background that comes without one: dcnum's fault, kept."""
    assert_equal_results(measurement("naiad"), tmp_path, oracle, basin_strategy=strategy, **background)


@pytest.mark.parametrize(
    "mapping",
    [37, slice(10, 150), slice(3, 190, 7), slice(0, FRAMES, 2), (4, 5, 9, 10, 11, 100, FRAMES - 1)],
    ids=str,
)
def test_index_mapping_equals_dcnum(mapping, measurement, oracle, tmp_path):
    """Only the chosen frames are processed, and events refer to the frames of the input."""
    assert_equal_results(measurement("45x100-flickering"), tmp_path, oracle, index_mapping=mapping)


@pytest.mark.parametrize("background", ["copy", "rollmed"])
def test_index_mapping_of_a_background_for_each_frame_equals_dcnum(background, measurement, oracle, tmp_path):
    """Background images of the chosen frames are used, computed from all frames."""
    assert_equal_results(
        measurement("cytoshot"),
        tmp_path,
        oracle,
        index_mapping=slice(5, 33, 3),
        background_code=background,
        background_kwargs={"kernel_size": 10} if background == "rollmed" else {},
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"feature_kwargs": {"haralick": False}, "compression": "none"},
        {"feature_kwargs": {"volume": False, "brightness": False}, "compression": "zstd-1"},
        {"segmenter_kwargs": {"thresh": -3}, "gate_kwargs": {"size_thresh_mask": 120}},
        {"segmenter_kwargs": {"thresh": -10.5}, "pixel_size": 0.34},
        {"mask_kwargs": {"clear_border": False}},
        {"mask_kwargs": {"fill_holes": False}},
        {"mask_kwargs": {"closing_disk": 0}, "gate_kwargs": {"online_gates": True}},
        {"mask_kwargs": {"closing_disk": 5}, "background_kwargs": {"offset_correction": False}},
        {"mask_kwargs": {"clear_border": False, "fill_holes": False, "closing_disk": 1}},
        {"background_kwargs": {"kernel_size": 50, "split_time": 0.02}},
        {"background_kwargs": {"kernel_size": 50, "split_time": 0.01, "thresh_cleansing": 10}},
        {"background_kwargs": {"kernel_size": 31, "split_time": 0.013, "frac_cleansing": 1.0}},
    ],
    ids=lambda settings: "-".join(f"{key}={value}" for key, value in settings.items()),
)
def test_other_settings_equal_dcnum(settings, measurement, oracle, tmp_path):
    """Every keyword that changes the numbers changes them as in dcnum."""
    assert_equal_results(measurement("45x100-flickering"), tmp_path, oracle, **settings)


def test_daemon_gives_the_same_as_dcnum(measurement, oracle, tmp_path):
    """What comes out of a watched folder is dcnum's, whatever the file is called."""
    watched = tmp_path / "Messungen März"
    watched.mkdir()
    path = watched / "Zellen Nr. 1 (größer).rtdc"
    shutil.copyfile(measurement("45x100-dense"), path)
    config = tmp_path / "config.toml"
    config.write_text(
        f'[watch]\nfolders = ["{watched}"]\nsettle_seconds = 0.2\n'
        f'[state]\nfolder = "{tmp_path / "state"}"\n[output]\nbasin_strategy = "drain"\n'
        # what other tests compute at the same time must not starve it
        "[resources]\nnice = 0\n[report]\nenabled = false\n"
    )
    command = [sys.executable, "-m", "dcnumd", "run", "--once", "-c", config]
    subprocess.run(command, check=True, timeout=120)
    reference = oracle.process(path, tmp_path / "dcnum.rtdc", **IN_THREADS)
    assert differences(path.with_name("Zellen Nr. 1 (größer)_dcn.rtdc"), reference) == []
