"""What was drawn is found again: the whole pipeline against known cells."""

from __future__ import annotations

import h5py
import hdf5plugin  # noqa: F401 -- registers Zstandard
import pytest

from dcnumd.logic.job import Job
from dcnumd.logic.process import engine, process_measurement
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement
from dcnumd.simulate.truth import find_cells, read_truth


@pytest.fixture(scope="module", autouse=True)
def _workers():
    """Stop the workers after the last test of this module."""
    yield
    engine.close()


@pytest.mark.parametrize(
    "options",
    [
        {"size": (80, 320), "frames": 900},
        {"size": (80, 320), "frames": 500, "flicker": 4.0},
        {"size": (80, 400), "frames": 400, "density": 2.0},
        {"size": (100, 1010), "frames": 300, "density": 2.0},
        {"size": (45, 100), "frames": 1500},
    ],
    ids=["80x320", "80x320-flicker", "80x400-dense", "100x1010", "45x100"],
)
def test_isolated_cells_are_found_within_a_pixel(tmp_path, options):
    """At least 99 % of the isolated cells inside the channel are found, each centre within 1 px."""
    path = tmp_path / "M001_data.rtdc"
    write_measurement(path, MeasurementSpec(seed=21, **options), truth=tmp_path / "truth.json")
    result = process_measurement(Job(path, tmp_path / "M001_data_dcn.rtdc", num_workers=1))
    cells = [cell for cell in read_truth(tmp_path / "truth.json") if cell.isolated and cell.inside]
    with h5py.File(result.path_out, "r", locking=False) as h5:
        pixel_size, events = h5.attrs["imaging:pixel size"], h5["events"]
        found = find_cells(
            cells, events["basinmap0"][:], events["pos_x"][:] / pixel_size, events["pos_y"][:] / pixel_size
        )
    assert len(cells) > 150
    assert found.mean() >= 0.99
