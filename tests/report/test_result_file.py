"""Opening results: what can be reached, what cannot and why, and what is no result."""

from __future__ import annotations

import shutil

import h5py
import pytest

from dcnumd.errors import MeasurementError
from dcnumd.report.request import ReportRequest
from dcnumd.report.result_file import open_result
from dcnumd.simulate.measurement import write_measurement
from dcnumd.simulate.spec import MeasurementSpec
from tests.support.reports import write_result


def opened(path, **request):
    return open_result(ReportRequest(path, path.with_suffix(""), **request))


@pytest.mark.parametrize("strategy", ["tap", "drain"])
def test_pictures_are_reached(simulate, strategy):
    with opened(simulate(strategy=strategy)) as data:
        assert data.has_images
        assert data.image(0).shape == data.mask(0).shape == data.background(0).shape == data.frame_size == (80, 320)
        assert data.mask(len(data) - 1).any()
        assert len(data.source_frames) == 600


def test_measurement_that_is_gone_is_named(simulate, tmp_path):
    copy = shutil.copy(simulate(), tmp_path / "copy_dcn.rtdc")
    original = simulate().with_name("usual-tap.rtdc")
    hidden = original.rename(original.with_suffix(".away"))
    try:
        with opened(copy) as data:
            assert data.image(0) is None
            assert data.mask(0) is not None
            assert len(data.missing) == 1
            assert original.name in data.missing[0]
    finally:
        hidden.rename(original)


def test_untrusted_basin_is_not_opened(simulate, tmp_path):
    copy = shutil.copy(simulate(), tmp_path / "copy_dcn.rtdc")
    with opened(copy, trusted_folders=(tmp_path,), trust_basins=False) as data:
        assert not data.has_images
        assert data.source_frames is None
        assert "outside" in data.missing[0]


def no_result(path):
    write_measurement(path, MeasurementSpec(frames=20, size=(40, 80)))


def truncated(path):
    write_result(path, 40)
    path.write_bytes(path.read_bytes()[:5000])


def without_events(path):
    with h5py.File(path, "w") as h5:
        h5.attrs["pipeline:dcnum hash"] = "0" * 32


@pytest.mark.parametrize("make", [no_result, truncated, without_events])
def test_no_result_is_one_line(tmp_path, make):
    path = tmp_path / "M001_dcn.rtdc"
    make(path)
    with pytest.raises(MeasurementError, match=r"M001_dcn\.rtdc") as caught, opened(path):
        pass
    assert "\n" not in caught.value.message


def test_wrong_event_count_is_told(tmp_path):
    path = write_result(tmp_path / "M001_dcn.rtdc", 30)
    with h5py.File(path, "r+") as h5:
        h5.attrs["experiment:event count"] = 31
    with opened(path) as data:
        assert len(data) == 30
        assert data.missing == ["The file says that it has 31 events, but there are 30."]
