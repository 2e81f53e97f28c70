"""The examples of docs/examples are installed as anybody would, and used by their names."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys

import h5py
import hdf5plugin  # noqa: F401 -- registers Zstandard
import pytest

from dcnumd.simulate.measurement import MeasurementSpec, write_measurement
from dcnumd.simulate.truth import find_cells, read_truth

EXAMPLES = pathlib.Path(__file__).parents[2] / "docs" / "examples"
NAMES = ("dcnumd-adaptive", "dcnumd-network")

pytestmark = pytest.mark.skipif(not EXAMPLES.exists(), reason="the documents are not part of an installation")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Build and install the examples with pip into a folder; return an environment in which they are found."""
    folder = tmp_path_factory.mktemp("example")
    # a build leaves files beside the sources
    sources = [shutil.copytree(EXAMPLES / name, folder / name) for name in NAMES]
    options = ["-q", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", folder / "site", *sources]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": str(folder / "site"), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Return a simulated measurement and its cells."""
    path = tmp_path_factory.mktemp("recording") / "M001_data.rtdc"
    truth = path.with_name("truth.json")
    write_measurement(path, MeasurementSpec(frames=600, density=0.8, seed=21), truth=truth)
    return path, read_truth(truth)


def process(path, folder, environment, *overrides, code="adaptive"):
    """Process a measurement on the command line with an example's segmenter; return what it says and the result."""
    command = [sys.executable, "-m", "dcnumd", "process", path, "-o", folder, "--json", "--set", "report.enabled=false"]
    for override in (f"pipeline.segmenter.code={code}", *overrides):
        command += ["--set", override]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), h5py.File(folder / "M001_data_dcn.rtdc", "r", locking=False)


def found_cells(h5, cells):
    """Return the share of the isolated cells inside the channel that have an event within a pixel."""
    cells = [cell for cell in cells if cell.isolated and cell.inside]
    assert len(cells) > 150
    pixel_size, events = h5.attrs["imaging:pixel size"], h5["events"]
    columns, rows = (events[name][:] / pixel_size for name in ("pos_x", "pos_y"))
    return find_cells(cells, events["basinmap0"][:], columns, rows).mean()


def test_it_finds_the_cells_in_several_processes(installed, recording, tmp_path):
    """Two workers load it, and what was drawn is found; the pipeline ID names it with its defaults."""
    path, cells = recording
    done, h5 = process(path, tmp_path, installed, "resources.num_workers=2")
    with h5:
        assert len(set(done["worker_pids"])) == 2
        assert done["ppid"].split("|")[3] == "adaptive:n=4^l=3:cle=1^f=1^clo=2"
        assert h5.attrs["pipeline:dcnum segmenter"] == "adaptive:n=4^l=3:cle=1^f=1^clo=2"
        assert h5.attrs["experiment:event count"] == done["events"] == h5["events/mask"].shape[0]
        assert found_cells(h5, cells) >= 0.99


def test_its_settings_come_from_the_configuration(installed, recording, tmp_path):
    """Keywords reach the method, and the pipeline ID says so; too large a factor finds nothing."""
    path, cells = recording
    overrides = ("pipeline.segmenter.noise_factor=50.5", "pipeline.segmenter.mask.closing_disk=1")
    done, h5 = process(path, tmp_path, installed, *overrides)
    with h5:
        assert done["ppid"].split("|")[3] == "adaptive:n=50.5^l=3:cle=1^f=1^clo=1"
        assert found_cells(h5, cells) < 0.5


def test_network_finds_the_cells_where_it_is_made_for_the_measurement(installed, recording, tmp_path):
    """Its file is found by its name; what it is not made for is left to the fallback."""
    path, cells = recording
    program = f"from dcnumd_network.network import write_network; print(write_network({str(tmp_path)!r}).name)"
    written = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=installed, check=True)
    model = written.stdout.strip()
    overrides = (f"models.folders=['{tmp_path}']", f"pipeline.segmenter.model_file={model}")
    done, h5 = process(path, tmp_path / "network", installed, *overrides, code="network")
    with h5:
        assert done["ppid"].split("|")[3] == f"network:m={model}^l=0.5:cle=1^f=1^clo=2"
        assert found_cells(h5, cells) >= 0.99
        (job,) = [lines[:] for name, lines in h5["logs"].items() if name.startswith("dcnumd-job-")]
        assert b'"description": "Smooths, and takes what differs from the background."' in b"".join(job)
    other = shutil.copy(path, tmp_path)
    with h5py.File(other, "r+") as changed:
        changed.attrs["setup:chip region"] = "reservoir"
    overrides = (*overrides, "pipeline.segmenter.fallback=thresh")
    done, h5 = process(other, tmp_path / "fallback", installed, *overrides, code="network")
    with h5:
        assert done["ppid"].split("|")[3] == "thresh:t=-6:cle=1^f=1^clo=2"


@pytest.mark.parametrize("name", NAMES)
def test_its_own_tests_pass(installed, name):
    """They are part of what is to be copied."""
    tests = EXAMPLES / name / "tests"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", tests]
    options = {"cwd": tests.parent, "env": installed, "capture_output": True, "text": True, "timeout": 120}
    done = subprocess.run(command, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_in_nobodys_way(recording):
    """Without the installation there is no such segmenter, so the tests above did use it."""
    names = {entry.name for entry in importlib.metadata.entry_points(group="dcnumd.segmenters")}
    assert not {"adaptive", "network"} & names
