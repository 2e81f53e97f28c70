"""Inspection of interrupted recordings before they are queued."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from dcnumd.errors import MeasurementError
from dcnumd.logic.inspect import inspect_measurement
from dcnumd.logic.job import Job
from dcnumd.simulate.spec import MeasurementSpec
from tests.support.swmr import crashed_recording, tear_last_chunk

SPEC = MeasurementSpec(size=(45, 100), frames=900, rate=400, seed=11, chunk=100)


def job_for(path: pathlib.Path) -> Job:
    """Return a job that accepts interrupted recordings."""
    return Job(path, path.with_name("M_dcn.rtdc"), interrupted=True)


def test_it_has_the_frames_that_all_features_have(tmp_path):
    """And the same pipeline identifier as any other measurement."""
    path = tmp_path / "M.rtdc"
    crashed_recording(path, SPEC, {"image": 550, "time": 610})
    found = inspect_measurement(job_for(path))
    assert found.interrupted
    assert found.frames == 550
    assert found.ppid.startswith("13|hdf:p=0.2645^i=0|")


@pytest.mark.parametrize(("damage", "compression", "reason"), [(1, "zstd-1", "checksum"), (0, "gzip", "damaged")])
def test_a_torn_last_chunk_is_found(damage, compression, reason, tmp_path):
    """The message says which chunk it is, and that the recording was interrupted."""
    path = tmp_path / "M.rtdc"
    spec = dataclasses.replace(SPEC, compression=compression, fletcher32=bool(damage))
    crashed_recording(path, spec, {"image": 550})
    tear_last_chunk(path)
    with pytest.raises(MeasurementError, match=r"chunk \(5, 0, 0\).*interrupted while it was written") as failure:
        inspect_measurement(job_for(path))
    assert failure.value.reason == reason
    assert not failure.value.transient
