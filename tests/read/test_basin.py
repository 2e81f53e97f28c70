"""Features that are kept elsewhere."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from dcnum import write as dcnum_write

from dcnumd.errors import MeasurementError
from dcnumd.read.frame_reader import FrameReader, FrameSource
from dcnumd.read.hdf5_data import HDF5Data


@pytest.fixture
def base(write_measurement, frames):
    """Return a measurement that others refer to; its identifier is "test-run"."""
    return write_measurement(frames, name="base.rtdc", features={"time": np.arange(43.0), "deform": np.arange(43) / 7})


@pytest.fixture
def refer(tmp_path):
    """Return a function that lets dcnum write a file of `count` events with one basin."""

    def write(count, name="referring.rtdc", **basin):
        path = tmp_path / name
        with dcnum_write.HDF5Writer(path, "w") as writer:
            writer.h5.attrs["imaging:pixel size"] = 0.34
            writer.h5.attrs["experiment:event count"] = count
            writer.store_feature_chunk("area_um", np.arange(float(count)))
            writer.store_basin(name="elsewhere", **basin)
        return path

    return write


MAPPING = np.array([40, 3, 3, 17, 0, 42])


@pytest.mark.parametrize(
    ("count", "basin"),
    [
        (43, {"paths": ["base.rtdc"]}),
        (43, {"paths": ["nothing.rtdc", "base.rtdc"], "identifier": "test-run"}),
        (43, {"paths": ["base.rtdc"], "features": ["image"]}),
        (6, {"paths": ["base.rtdc"], "features": ["image", "time"], "mapping": MAPPING}),
        (
            6,
            {
                "internal_data": {"image": np.eye(6, dtype="u1")[:4, None] * np.ones((4, 8, 6), "u1")},
                "mapping": MAPPING % 4,
            },
        ),
        (6, {"internal_data": {"image_bg": np.ones((6, 8, 9), "u1")}}),
    ],
)
# dcnum sorts a list of indices before it looks into a mapped basin (not elsewhere), so only sorted lists are compared.
@pytest.mark.parametrize("mapping", [None, 4, [0, 2, 3]])
def test_basin_equals_dcnum(base, refer, open_in_dcnum, count, basin, mapping):
    """Features from basins, mapped or not, are what dcnum makes of them, also through an index mapping."""
    path = refer(count, **basin)
    oracle = open_in_dcnum(path, index_mapping=mapping)
    with HDF5Data(path, index_mapping=mapping) as ours:
        assert ours.keys() == sorted(oracle.keys())
        assert ours.features_scalar_frame == oracle.features_scalar_frame
        assert len(ours) == len(oracle)
        for feature in ours.keys():  # noqa: SIM118 -- the method is under test
            values = np.asarray(ours[feature])
            assert np.array_equal(values, np.asarray(oracle[feature][:])), feature


def test_basin_with_absolute_path(base, refer):
    """Absolute paths work from anywhere."""
    with HDF5Data(refer(43, paths=[base])) as data:
        assert np.array_equal(data["time"], np.arange(43.0))


def test_basin_frames_are_read_by_workers(base, refer, frames):
    """A worker reads mapped frames straight from the basin's file."""
    with HDF5Data(refer(6, paths=["base.rtdc"], mapping=MAPPING), index_mapping=[5, 1, 2]) as data:
        source = FrameSource.of(data.check_frames())
    assert source.path == str(base)
    out = np.empty((3, 80, 250), np.uint8)
    with FrameReader(source) as reader:
        reader.read_into(0, 3, out)
    assert np.array_equal(out, frames[MAPPING[[5, 1, 2]]])


def test_basin_in_a_basin(base, refer, frames):
    """A basin may have basins; the mappings follow each other."""
    refer(6, name="middle.rtdc", paths=["base.rtdc"], mapping=MAPPING)
    path = refer(2, paths=["middle.rtdc"], mapping=np.array([5, 0]))
    with HDF5Data(path) as data:
        assert np.array_equal(data.image[:], frames[[42, 40]])
        assert data["time"].tolist() == [42, 40]


def test_basins_in_a_circle_end(refer):
    """Two files that refer to each other are not followed for ever."""
    refer(3, name="one.rtdc", paths=["two.rtdc"])
    path = refer(3, name="two.rtdc", paths=["one.rtdc"])
    with HDF5Data(path) as data:
        assert data.keys() == ["area_um"]


@pytest.mark.parametrize(
    ("basin", "text"),
    [
        ({"paths": ["gone.rtdc"]}, "gone.rtdc"),
        ({"paths": ["gone.rtdc"], "features": ["image"]}, "gone.rtdc"),
        (
            {"paths": ["base.rtdc"], "identifier": "other-run"},
            "base.rtdc is measurement 'test-run', expected 'other-run'",
        ),
    ],
)
def test_unusable_basin_matters_when_needed(base, refer, basin, text):
    """A missing basin, or one of another measurement, is an error only for a feature that would come from it."""
    path = refer(3, **basin)
    with HDF5Data(path) as data:
        assert data.keys() == ["area_um"]
        assert data["area_um"].tolist() == [0, 1, 2]
        assert data.features_scalar_frame == []
        assert data.image_bg is None
        with pytest.raises(MeasurementError, match=text) as caught:
            data.check_frames()
    assert caught.value.reason == "basin"
    assert "\n" not in str(caught.value)


def test_basin_without_its_mapping(base, refer):
    """A mapping that is missing is an error that names it."""
    path = refer(3, paths=["base.rtdc"], features=["image"], mapping=np.arange(3))
    with h5py.File(path, "a") as h5:
        del h5["events/basinmap0"]
    with HDF5Data(path) as data, pytest.raises(MeasurementError, match="events/basinmap0"):
        data.check_frames()


def test_basin_mapping_past_the_end(base, refer):
    """A mapping that refers to events that do not exist is an error."""
    path = refer(2, paths=["base.rtdc"], features=["image"], mapping=np.array([1, 43]))
    with HDF5Data(path) as data, pytest.raises(MeasurementError, match="event 43"):
        data.check_frames()


def test_basin_that_is_not_json(write_measurement, frames):
    """A definition that cannot be understood is an error that names it."""
    path = write_measurement(frames)
    with h5py.File(path, "a") as h5:
        h5["basins/abc"] = np.array([b"{"])
    with HDF5Data(path) as data, pytest.raises(MeasurementError, match="basins/abc"):
        data["deform"]


@pytest.mark.parametrize(
    "stored",
    [
        "/srv/gone/base.rtdc",
        r"C:\data\2026\base.rtdc",
        r"\\server\share\base.rtdc",
        "../elsewhere/base.rtdc",
        r"..\elsewhere\base.rtdc",
    ],
)
def test_basin_is_looked_for_beside_the_file_that_refers_to_it(base, refer, frames, stored):
    """Both were copied together; the identifier says that it is the right one."""
    path = refer(43, paths=[stored], identifier="test-run")
    with HDF5Data(path) as data:
        np.testing.assert_array_equal(data.image[:5], frames[:5])
        assert data.open_basin(data.basins[0]).path == base


def test_another_file_of_that_name_is_no_basin(base, refer):
    """Without an identifier, or with another one, its name alone means nothing."""
    for identifier, problem in ((None, "no such file|No such file"), ("another", "expected 'another'")):
        path = refer(43, name=f"{identifier}.rtdc", paths=["/srv/gone/base.rtdc"], identifier=identifier)
        with HDF5Data(path) as data, pytest.raises(MeasurementError, match=problem) as caught:
            data.check_frames()
        assert caught.value.reason == "basin"


def test_relative_path_of_windows_is_understood(base, refer, frames):
    """Its folder is separated from its name by a backslash."""
    (base.parent / "deep").mkdir()
    base.rename(base.parent / "deep" / "base.rtdc")
    with HDF5Data(refer(43, paths=[r"deep\base.rtdc"])) as data:
        np.testing.assert_array_equal(data.image[:5], frames[:5])


def test_first_basin_by_name_wins(write_measurement, refer, frames, open_in_dcnum, tmp_path):
    """Where several have a feature, dcnum takes the first by name, and by key among equal names."""
    for number in range(3):
        write_measurement(np.full_like(frames, number), name=f"{number}.rtdc")
    for names, expected in ((("zeta", "alpha", "Beta"), 2), (("a", "a", "b"), 0), (("b", "a", "a"), 1)):
        path = tmp_path / f"{'-'.join(names)}.rtdc"
        with h5py.File(path, "w") as h5:
            h5.attrs.update({"experiment:event count": 43, "imaging:pixel size": 0.34})
            h5["events/area_um"] = np.arange(43.0)
            for number, name in enumerate(names):
                basin = {
                    "name": name,
                    "type": "file",
                    "format": "hdf5",
                    "paths": [f"{number}.rtdc"],
                    "features": ["image"],
                }
                h5[f"basins/k{number}"] = np.array([line.encode() for line in json.dumps(basin, indent=1).splitlines()])
        with HDF5Data(path) as data:
            assert data.image[0].max() == expected
        assert open_in_dcnum(path)["image"][0].max() == expected
