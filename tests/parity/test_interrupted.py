"""An interrupted recording has the result that dcnum makes of it after it was repaired and cut to the common length."""

from __future__ import annotations

import hashlib
import shutil

import dclab
import h5py
import pytest

from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.process import process_measurement
from dcnumd.simulate.measurement import MeasurementSpec
from tests.support.compared import identify_as_dclab
from tests.support.parity import IN_THREADS, assert_equals_reference, dcnum_arguments
from tests.support.swmr import DclabRecorder, crashed_recording, cut_copy

pytestmark = pytest.mark.slow

SPEC = MeasurementSpec(size=(45, 100), frames=900, rate=400, density=1.0, seed=11)
ROLLMED = {"background_code": "rollmed", "background_kwargs": {"kernel_size": 40, "batch_size": 100}}
CASES = {
    "images shortest": ({"image": 517, "time": 620, "frame": 700}, "drain", {}),
    "images longest": ({"image": 800, "time": 433, "temp": 500}, "tap", {}),
    "equal": ({"image": 466}, "tap", ROLLMED),
    "inside a chunk": ({"image": 801, "frame": 437}, "drain", ROLLMED),
}


@pytest.mark.parametrize("case", CASES)
def test_the_result_is_that_of_the_repaired_and_cut_file(case, oracle, tmp_path):
    """Every dataset, attribute and log, but for intended differences; the recording itself is not changed."""
    frames, strategy, settings = CASES[case]
    path = tmp_path / "M001_data.rtdc"
    crashed_recording(path, SPEC, frames)
    count = min(frames.values())
    digest = hashlib.sha256(path.read_bytes()).digest()
    job = Job(
        path,
        tmp_path / "M001_data_dcn.rtdc",
        PipelineSettings(**settings),
        basin_strategy=strategy,
        num_workers=2,
        interrupted=True,
    )
    result = process_measurement(job)
    assert result.frames == count
    assert hashlib.sha256(path.read_bytes()).digest() == digest
    with dclab.new_dataset(result.path_out) as dataset:
        assert dataset["image"][0].shape == SPEC.size
    with h5py.File(result.path_out) as h5:
        warnings = [line for log in h5["logs"].values() for line in log if b"WARNING" in line]
        assert len(warnings) == 1
        assert h5["events"].attrs["dcnumd input interrupted"]
    # the same path, because a result names it
    path.rename(tmp_path / "crashed.rtdc")
    cut_copy(tmp_path / "crashed.rtdc", path, count)
    reference = oracle.process(path, tmp_path / "dcnum.rtdc", **dcnum_arguments(job), **IN_THREADS)
    identify_as_dclab(reference, path)
    assert_equals_reference(result, reference)


def test_a_recording_of_dclab(oracle, tmp_path):
    """The same for the file of another writer, which was killed between two features."""
    path, whole = tmp_path / "M001_data.rtdc", tmp_path / "whole.rtdc"
    with DclabRecorder(whole, SPEC, first=100) as recorder:
        recorder.append(400)
        recorder.append(450, "time", "temp")
        shutil.copy(whole, path)
    job = Job(path, tmp_path / "M001_data_dcn.rtdc", basin_strategy="drain", num_workers=2, interrupted=True)
    result = process_measurement(job)
    path.rename(tmp_path / "crashed.rtdc")
    cut_copy(tmp_path / "crashed.rtdc", path, 400)
    reference = oracle.process(path, tmp_path / "dcnum.rtdc", **dcnum_arguments(job), **IN_THREADS)
    identify_as_dclab(reference, path)
    assert_equals_reference(result, reference)
