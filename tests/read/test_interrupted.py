"""Interrupted recordings have the frames that all features have, if they may be read at all."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import shutil

import h5py
import numpy as np
import pytest

from dcnumd.errors import MeasurementError
from dcnumd.read.blank import is_blank
from dcnumd.read.content import content_digest
from dcnumd.read.frame_reader import FrameSource
from dcnumd.read.frame_scalars import frame_scalars
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.read.open_file import is_marked
from dcnumd.read.trust import Trust, trusting
from dcnumd.simulate.measurement import write_measurement
from dcnumd.simulate.scene import Scene
from dcnumd.simulate.spec import MeasurementSpec
from dcnumd.simulate.swmr import SwmrRecorder
from tests.support.swmr import DclabRecorder, crashed_recording

SPEC = MeasurementSpec(size=(45, 100), frames=900, rate=1000, seed=4)


@pytest.fixture(autouse=True)
def accepted():
    """Let the tests read interrupted recordings."""
    with trusting(Trust(interrupted=True)):
        yield


@pytest.fixture
def crashed(tmp_path):
    """Return a recording that ends in a chunk of the images, with features of several lengths."""
    path = tmp_path / "M001_data.rtdc"
    crashed_recording(path, SPEC, {"image": 517, "time": 620, "temp": 590, "frame": 700})
    return path


def test_without_permission_it_is_being_written(crashed):
    """By default nothing that may still grow is read."""
    with trusting(Trust()), pytest.raises(MeasurementError, match="marked as open for writing") as failure:
        HDF5Data(crashed)
    assert failure.value.reason == "being_written"


def test_all_features_have_the_frames_of_the_shortest(crashed):
    """Images and scalars are cut; the number of events, which the recorder did not write, does not count."""
    digest = hashlib.sha256(crashed.read_bytes()).digest()
    with HDF5Data(crashed) as data:
        image = data.check_frames()
        assert data.interrupted
        assert len(data) == len(image) == data.stored_frames == 517
        np.testing.assert_array_equal(data["time"], np.arange(517) / SPEC.rate)
        np.testing.assert_array_equal(image[500:600], Scene(SPEC).render(500, 517))
        with pytest.raises(IndexError):
            image[517]
        assert {name: len(stack) for name, stack in frame_scalars(data).items()} == dict.fromkeys(
            ("frame", "pressure", "temp", "time"), 517
        )
    assert hashlib.sha256(crashed.read_bytes()).digest() == digest


def test_images_may_be_the_longest(tmp_path):
    """Then they are cut to the scalar features, also in workers, and with an index mapping."""
    path = tmp_path / "M001_data.rtdc"
    crashed_recording(path, SPEC, {"image": 800, "time": 333, "frame": 400})
    with HDF5Data(path) as data, HDF5Data(path, index_mapping=slice(300, None)) as mapped:
        source = FrameSource.of(data.check_frames())
        assert source.frame_count == 333
        frames = np.empty((33, 45, 100), np.uint8)
        with source.open() as reader:
            reader.read_into(300, 333, frames)
        np.testing.assert_array_equal(frames, Scene(SPEC).render(300, 333))
        np.testing.assert_array_equal(mapped.check_frames()[:], frames)


def test_frames_that_only_hdf5_can_decode(tmp_path):
    """Workers open the file as well, in the same way."""
    path = tmp_path / "M001_data.rtdc"
    crashed_recording(path, SPEC, {"image": 300, "time": 250})
    with HDF5Data(path) as data:
        source = FrameSource.of(data.check_frames())
    by_hdf5 = FrameSource(**{**vars(source), "table": None})
    frames = np.empty((250, 45, 100), np.uint8)
    with by_hdf5.open() as reader:
        reader.read_into(0, 250, frames)
    np.testing.assert_array_equal(frames, Scene(SPEC).render(0, 250))


def test_frames_that_were_never_written_do_not_count(tmp_path):
    """A recorder may make room for frames before it writes them; then HDF5 would read zeros."""
    path, whole = tmp_path / "M001_data.rtdc", tmp_path / "whole.rtdc"
    spec = dataclasses.replace(SPEC, chunk=100)
    with SwmrRecorder(whole, spec) as recorder:
        recorder.append(700, "image")
        recorder.append(900, "time", "frame")
        recorder.datasets["image"].resize(2000, axis=0)
        recorder.flush()
        shutil.copy(whole, path)
    with HDF5Data(path) as data:
        assert len(data.check_frames()) == 700
        assert not is_blank(data)


def test_content_covers_all_that_is_stored(crashed, tmp_path):
    """If the recorder comes back, the content is another one, even if the frames in common are the same."""
    with HDF5Data(crashed) as data:
        before = content_digest(data)
    longer = tmp_path / "longer.rtdc"
    crashed_recording(longer, SPEC, {"image": 517, "time": 621, "temp": 590, "frame": 700})
    with HDF5Data(longer) as data:
        assert content_digest(data) != before


def test_complete_files_are_read_as_ever(tmp_path):
    """The permission changes nothing for them: features of other lengths are an error."""
    path = tmp_path / "M001_data.rtdc"
    write_measurement(path, MeasurementSpec(size=(45, 100), frames=50))
    with h5py.File(path, "r+") as h5:
        h5["events/time"].resize(49, axis=0)
    with HDF5Data(path) as data:
        assert not data.interrupted
        with pytest.raises(MeasurementError, match="events/time has 49 values"):
            data.check_frames()


def test_no_frames_are_an_error_that_says_so(tmp_path):
    """The recorder crashed before it wrote the first images."""
    path = tmp_path / "M001_data.rtdc"
    crashed_recording(path, SPEC, {"image": 0, "time": 10})
    with HDF5Data(path) as data, pytest.raises(MeasurementError, match="interrupted before all features") as failure:
        data.check_frames()
    assert failure.value.reason == "no_frames"


def test_no_images_are_an_error_that_says_so(tmp_path):
    """The recorder crashed before it created the dataset."""
    path, whole = tmp_path / "M001_data.rtdc", tmp_path / "whole.rtdc"
    with h5py.File(whole, "w", libver="v110") as h5:
        h5["events/time"] = np.arange(3.0)
        h5.swmr_mode = True
        shutil.copy(whole, path)
    with HDF5Data(path) as data, pytest.raises(MeasurementError, match="no events/image") as failure:
        data.check_frames()
    assert failure.value.reason == "no_images"


def test_other_recordings_than_in_swmr_mode_are_incomplete(tmp_path):
    """HDF5 does not keep their files consistent, so they are not read."""
    path, whole = tmp_path / "M001_data.rtdc", tmp_path / "whole.rtdc"
    with h5py.File(whole, "w", libver="v110") as h5:
        h5["events/image"] = np.zeros((3, 45, 100), np.uint8)
        h5.flush()
        shutil.copy(whole, path)
    assert is_marked(path)
    with pytest.raises(MeasurementError, match="not in SWMR mode") as failure:
        HDF5Data(path)
    assert failure.value.reason == "incomplete"
    assert not failure.value.transient


def test_recordings_of_dclab(tmp_path):
    """They have the frames that all features have, as well."""
    path, whole = tmp_path / "M001_data.rtdc", tmp_path / "whole.rtdc"
    with DclabRecorder(whole, SPEC, first=100) as recorder:
        recorder.append(400)
        recorder.append(450, "time", "temp")
        shutil.copy(whole, path)
    with HDF5Data(path) as data:
        np.testing.assert_array_equal(data.check_frames()[390:], Scene(SPEC).render(390, 400))
        assert len(data["time"]) == 400


def test_a_missing_file_is_unreadable(tmp_path):
    """As for any other measurement."""
    with pytest.raises(MeasurementError) as failure:
        is_marked(pathlib.Path(tmp_path, "missing.rtdc"))
    assert failure.value.reason == "unreadable"


def test_parts_that_are_missing_are_an_error_at_once(crashed, tmp_path):
    """HDF5 would try again and again to read metadata that may just be being written, and never end."""
    content = crashed.read_bytes()
    failures = set()
    for share in np.linspace(0.1, 0.95, 18):
        path = tmp_path / f"cut_{share:.2f}.rtdc"
        path.write_bytes(content[: int(share * len(content))])
        try:
            with HDF5Data(path) as data:
                image = data.check_frames()
                image[len(image) - 1]
        except MeasurementError as failure:
            failures.add(failure.reason)
    assert "damaged" in failures
