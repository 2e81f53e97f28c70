"""The background of an input that is a result is kept where it is the wanted one, as dcnum keeps it."""

from __future__ import annotations

import h5py
import hdf5plugin  # noqa: F401 -- registers the Zstandard filter
import numpy as np
import pytest

from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.process import process_measurement
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement
from dcnumd.write.writer import HDF5Writer
from tests.support.parity import assert_equal_results

pytestmark = pytest.mark.slow

ROLLMED = {"background_code": "rollmed", "background_kwargs": {"kernel_size": 40, "batch_size": 100}}
SPARSEMED = {"background_code": "sparsemed", "background_kwargs": {"kernel_size": 50}}


@pytest.fixture(scope="module")
def processed(tmp_path_factory):
    """Return a function that gives our result of one measurement, of a strategy and with a background."""
    folder = tmp_path_factory.mktemp("processed")
    write_measurement(folder / "M.rtdc", MeasurementSpec(size=(45, 100), frames=140, density=1.5, seed=3))

    def result(strategy, settings):
        path = folder / f"{strategy}_{settings['background_code']}.rtdc"
        if not path.exists():
            job = Job(folder / "M.rtdc", path, PipelineSettings(**settings), basin_strategy=strategy, num_workers=1)
            process_measurement(job)
        return path

    return result


def test_same_background_is_kept_as_in_dcnum(processed, oracle, tmp_path):
    """Only what comes after it is computed, here with another threshold."""
    path = processed("drain", ROLLMED)
    settings = {**ROLLMED, "segmenter_kwargs": {"thresh": -8}}
    ours, _ = assert_equal_results(path, tmp_path, oracle, basin_strategy="drain", **settings)
    with h5py.File(path) as before, h5py.File(ours) as after:
        frames = after["events/basinmap0"][:]
        assert len(frames)
        np.testing.assert_array_equal(after["events/image_bg"][:], before["events/image_bg"][:][frames])


def test_another_background_is_computed_as_in_dcnum(processed, oracle, tmp_path):
    """Another keyword, or another pixel size, makes it another one."""
    path = processed("drain", ROLLMED)
    settings = {**ROLLMED, "background_kwargs": {"kernel_size": 30, "batch_size": 100}}
    assert_equal_results(path, tmp_path, oracle, basin_strategy="drain", **settings)


@pytest.mark.parametrize("strategy", ["tap", "drain"])
def test_background_in_a_basin_is_kept(strategy, processed, tmp_path):
    """Dcnum fails with a result of its own sparsemed."""
    path = processed(strategy, SPARSEMED)
    settings = PipelineSettings(**SPARSEMED, segmenter_kwargs={"thresh": -8})
    result = process_measurement(Job(path, tmp_path / "M_dcn.rtdc", settings, basin_strategy="drain", num_workers=1))
    with h5py.File(path) as before, h5py.File(result.path_out) as after:
        frames = after["events/basinmap0"][:]
        assert len(frames)
        np.testing.assert_array_equal(after["basin_events/image_bg"][:], before["basin_events/image_bg"][:])
        np.testing.assert_array_equal(after["events/basinmap1"][:], before["events/basinmap1"][:][frames])
        np.testing.assert_array_equal(after["events/bg_off"][:], before["events/bg_off"][:][frames])


@pytest.mark.parametrize("kind", ["f2", "f4", ">f4", "f8", "i2"])
def test_copied_background_is_stored_as_in_dcnum(kind, oracle, tmp_path):
    """Images that frames share stay shared, offsets keep their type, and the basin its name."""
    path = tmp_path / "M.rtdc"
    write_measurement(path, MeasurementSpec(size=(45, 100), frames=60, density=1.5, seed=4))
    with h5py.File(path, "r+") as h5:
        frames = h5["events/image"][:]
        h5["events/bg_off"] = np.linspace(-2, 2, len(frames)).astype(kind)
        with HDF5Writer(h5) as writer:
            images = np.array([np.median(part, axis=0) for part in np.split(frames, 4)]).astype(np.uint8)
            mapping = np.repeat(np.arange(4), len(frames) // 4)
            writer.store_basin(
                "light", description="of four parts", internal_data={"image_bg": images}, mapping=mapping
            )
    ours, _ = assert_equal_results(path, tmp_path, oracle, basin_strategy="drain", background_code="copy")
    with h5py.File(ours) as h5:
        assert len(h5["events/bg_off"])
        assert h5["events/bg_off"].dtype == np.dtype(kind)
        assert len(h5["basin_events/image_bg"]) == 4
        assert "image_bg" not in h5["events"]
