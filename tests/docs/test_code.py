"""The programs in the documents run, and do what is said of them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys

import h5py
import hdf5plugin  # noqa: F401 -- registers Zstandard
import numpy as np
import pytest

from benchmarks.compare import differences
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement

TOP = pathlib.Path(__file__).parents[2]
DOCS = TOP / "docs"
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DOCS.exists(), reason="the documents are not part of an installation"),
]


def program(document, word):
    """Return the one program in a document that has a word."""
    (found,) = [code for code in PYTHON.findall((DOCS / document).read_text("utf-8")) if word in code]
    return found


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Return a small simulated measurement."""
    path = tmp_path_factory.mktemp("recording") / "M001_data.rtdc"
    write_measurement(path, MeasurementSpec(size=(60, 160), frames=250, density=0.8, seed=5))
    return path


def run(*command, seconds=90, **environment):
    """Run a program and what it starts; return what it prints. None if it hangs."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    with subprocess.Popen([sys.executable, *map(str, command)], env=environment, **options) as process:
        try:
            output, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output + errors
    return output


def test_the_comparison_with_dcnum(recording, tmp_path):
    """A reader who holds a result against dcnum finds that they are the same, and would see a difference."""
    script = tmp_path / "check_with_dcnum.py"
    script.write_text(program("scientist.md", "DCNumJobRunner"))
    output = None
    for attempt in range(2):  # dcnum hangs now and then
        folder = tmp_path / f"compared{attempt}"
        folder.mkdir()
        if output := run(script, recording, folder, PYTHONPATH=str(TOP)):
            break
    assert output is not None
    assert output.splitlines()[-1] == "the same"
    with h5py.File(folder / "M001_data_dcn.rtdc", "r+") as h5:
        h5["events/area_um"][0] += 1
    (found,) = differences(folder / "M001_data_dcn.rtdc", folder / "by_dcnum.rtdc")
    assert "events/area_um: 1 of" in found


@pytest.fixture(scope="module")
def result(recording, tmp_path_factory):
    """Process the measurement with the background of the developer's guide, installed under its entry point."""
    folder = tmp_path_factory.mktemp("result")
    site = folder / "site"
    described = site / "our_backgrounds-1.0.dist-info"
    described.mkdir(parents=True)
    (site / "our_backgrounds.py").write_text(program("developer.md", "BackgroundFirstMed"))
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: our-backgrounds\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[dcnumd.backgrounds]\nfirstmed = our_backgrounds:BackgroundFirstMed\n")
    settings = ["pipeline.background.code=firstmed", "pipeline.background.kernel_size=50", "report.enabled=false"]
    options = [part for setting in settings for part in ("--set", setting)]
    run("-m", "dcnumd", "process", recording, "-o", folder, *options, PYTHONPATH=str(site))
    return folder / "M001_data_dcn.rtdc"


def test_the_background_of_the_developers_guide(recording, result):
    """It is used by name, and each event has the median of the first frames."""
    with h5py.File(recording, locking=False) as h5:
        expected = np.median(h5["events/image"][:50], axis=0).astype(np.uint8)
    with h5py.File(result, "r", locking=False) as h5:
        assert h5.attrs["pipeline:dcnum background"] == "firstmed:k=50"
        assert h5["events/area_um"].shape[0] > 50
        np.testing.assert_array_equal(h5["basin_events/image_bg"][:], [expected])
        assert not h5["events/basinmap1"][:].any()


def test_statistics_with_dclab(result):
    """A reader who opens a result with dclab sees events with images."""
    output = run("-c", program("scientist.md", "statistics"), result)
    with h5py.File(result, "r", locking=False) as h5:
        area, segmenter = np.mean(h5["events/area_um"][:]), h5.attrs["pipeline:dcnum segmenter"]
    assert f"{area:.6g}" in output
    assert output.splitlines()[-1].startswith(segmenter)
    assert output.splitlines()[-1].endswith("60, 160)")
