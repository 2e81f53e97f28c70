"""Copying a background."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Callable

import h5py
import numpy as np
import pytest

from dcnumd.errors import MeasurementError, MethodError
from dcnumd.feat.feat_background.bg_copy import BackgroundCopy
from dcnumd.feat.feat_background.bg_sparse_median import BackgroundSparseMed
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.write.writer import HDF5Writer

dcnum_module = pytest.importorskip("dcnum.feat.feat_background.bg_copy")

Make = Callable[..., pathlib.Path]


@pytest.fixture
def with_background(make_measurement: Make, tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a measurement with a sparse median background in it."""
    path = pathlib.Path(shutil.copy(make_measurement(count=80, shape=(24, 40)), tmp_path))
    with BackgroundSparseMed(path, path, kernel_size=10, split_time=0.005) as background:
        background.process()
    return path


def assert_same_background(got: pathlib.Path, expected: pathlib.Path) -> None:
    with HDF5Data(got) as new, HDF5Data(expected) as old:
        assert new.image_bg is not None
        assert old.image_bg is not None
        np.testing.assert_array_equal(new.image_bg[:], old.image_bg[:])
        assert dict(new.image_bg.attrs) == dict(old.image_bg.attrs)
        np.testing.assert_array_equal(new["bg_off"], old["bg_off"])
        stacks = new.find("bg_off"), old.find("bg_off")
        assert stacks[0] is not None
        assert stacks[1] is not None
        assert dict(stacks[0].attrs) == dict(stacks[1].attrs)


def test_copy_of_internal_basin(with_background: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Images in an internal basin are copied as such, with offsets and the attributes of their origin."""
    output = tmp_path / "out.rtdc"
    with BackgroundCopy(with_background, output) as background:
        background.process()
        assert background.get_progress() == 1
        assert background.get_ppid() == "copy:"
    assert_same_background(output, with_background)
    with h5py.File(output, "r") as h5, h5py.File(with_background, "r") as source:
        assert "image_bg" not in h5["events"]
        assert h5["basin_events/image_bg"].shape == source["basin_events/image_bg"].shape
        attributes = h5["basin_events/image_bg"].attrs
        assert attributes["dcnum ppid background"] == "sparsemed:k=10^s=0.005^t=0^f=0.8^o=1"


def test_copy_of_stored_images_equals_dcnum(shared_data: Callable[[str], pathlib.Path], tmp_path: pathlib.Path) -> None:
    """Images that a real measurement stores in its events come out as dcnum copies them."""
    source = shared_data("fmt-hdf5_cytoshot_full-features_2023")
    outputs = tmp_path / "dcnumd.rtdc", tmp_path / "dcnum.rtdc"
    for method, output in zip((BackgroundCopy, dcnum_module.BackgroundCopy), outputs, strict=True):
        with method(source, output) as background:
            background.process()
    with h5py.File(outputs[0], "r") as ours, h5py.File(outputs[1], "r") as theirs:
        np.testing.assert_array_equal(ours["events/image_bg"][:], theirs["events/image_bg"][:])
        assert dict(ours["events/image_bg"].attrs) == dict(theirs["events/image_bg"].attrs)
        assert ("bg_off" in ours["events"]) == ("bg_off" in theirs["events"])


def test_copy_from_mapped_file_basin(with_background: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A file that refers to some events of another one gets the background of these events."""
    source, output = tmp_path / "referring.rtdc", tmp_path / "out.rtdc"
    chosen = np.array([3, 40, 41, 79])
    with HDF5Writer(source, "w") as writer:
        writer.h5.attrs["experiment:event count"] = len(chosen)
        writer.store_basin("origin", paths=[with_background.name], mapping=chosen)
    with BackgroundCopy(source, output) as background:
        background.process()
    with HDF5Data(output) as new, HDF5Data(with_background) as old:
        assert new.image_bg is not None
        assert old.image_bg is not None
        np.testing.assert_array_equal(new.image_bg[:], old.image_bg[chosen])
        np.testing.assert_array_equal(new["bg_off"], np.asarray(old["bg_off"])[chosen])


def test_copy_in_place_changes_nothing(with_background: pathlib.Path) -> None:
    """In place the background is already there."""
    before = with_background.read_bytes()
    with BackgroundCopy(with_background, with_background) as background:
        background.process()
    with h5py.File(with_background, "r") as h5:
        assert "dcnum ppid background" in h5["basin_events/image_bg"].attrs
    assert len(with_background.read_bytes()) == len(before)


def test_copy_replaces_an_older_background(with_background: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """What the output had before is gone."""
    output = tmp_path / "out.rtdc"
    with BackgroundSparseMed(with_background, output, kernel_size=80, split_time=0.01) as background:
        background.process()
    with BackgroundCopy(with_background, output) as background:
        background.process()
    assert_same_background(output, with_background)


def test_missing_background_is_refused(make_measurement: Make, tmp_path: pathlib.Path) -> None:
    """A measurement without background fails with a reason; an array cannot be copied from."""
    with (
        BackgroundCopy(make_measurement(count=5), tmp_path / "a.rtdc") as background,
        pytest.raises(MeasurementError, match="no image_bg") as caught,
    ):
        background.process()
    assert caught.value.reason == "no_background"
    with (
        BackgroundCopy(np.zeros((3, 4, 5), np.uint8), tmp_path / "b.rtdc") as background,
        pytest.raises(MethodError, match="needs a file"),
    ):
        background.process()
