"""A measurement as dcnum sees it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib

import dclab
import h5py
import numpy as np
import pytest
from dcnum import read as dcnum_read

from dcnumd.errors import ConfigError, MeasurementError
from dcnumd.read.frame_reader import FrameReader, FrameSource
from dcnumd.read.hdf5_data import FRAME_SCALARS, HDF5Data
from dcnumd.read.pixel_size import PixelSizeWarning

MEASUREMENTS = [
    "fmt-hdf5_cytoshot_full-features_2023",
    "fmt-hdf5_cytoshot_full-features_2024",
    "fmt-hdf5_shapein_raw-with-variable-length-logs",
]


def assert_same_features(ours, oracle):
    """All features have the same values as in dcnum, whole and in part."""
    assert ours.keys() == sorted(oracle.keys())
    for feature in ours.keys():  # noqa: SIM118 -- the method is under test
        if feature in {"image", "image_bg", "mask"}:
            stack = getattr(ours, feature)
            expected = np.asarray(getattr(oracle, feature)[:])
            assert stack.shape == expected.shape
            assert stack[:].dtype == stack.dtype == expected.dtype
            assert np.array_equal(stack[:], expected)
            assert np.array_equal(stack[1], expected[1])
            assert np.array_equal(stack[np.array([2, 0])], expected[[2, 0]])
        else:
            assert np.array_equal(ours[feature], oracle[feature][:], equal_nan=True)


@pytest.mark.parametrize("name", MEASUREMENTS)
@pytest.mark.parametrize("mapping", [None, 5, slice(1, 9, 2), [7, 2, 3]])
def test_data_equals_dcnum(shared_data, open_in_dcnum, name, mapping):
    """Attributes, logs, features, pixel size and identifiers of real measurements are those of dcnum."""
    path = shared_data(name)
    oracle = open_in_dcnum(path, index_mapping=mapping)
    with HDF5Data(path, index_mapping=mapping) as ours:
        assert ours.meta == dict(oracle.meta)
        assert {type(value) for value in ours.meta.values()} <= {str, int, float, bool}
        assert ours.logs == oracle.logs
        assert ours.pixel_size == oracle.pixel_size
        assert ours.features_scalar_frame == oracle.features_scalar_frame
        assert ours.md5_5m == oracle.md5_5m
        assert ours.get_ppid() == oracle.get_ppid()
        assert len(ours) == len(oracle)
        assert_same_features(ours, oracle)
        assert ours.is_identified_by(dcnum_read.get_measurement_identifier(oracle.h5))


def test_frame_scalars_are_dcnums():
    """The features that are copied, never computed, are those of dcnum."""
    assert set(FRAME_SCALARS) == set(dcnum_read.PROTECTED_FEATURES)


@pytest.mark.parametrize(
    "attributes",
    [
        {"experiment:run identifier": ""},
        {"experiment:run identifier": "", "experiment:time": "12:00:00", "experiment:date": "2026-01-02"},
        {
            "experiment:run identifier": "",
            "experiment:time": "12:00:00",
            "experiment:date": "2026-01-02",
            "setup:identifier": "ZMD",
        },
        {"experiment:run identifier": "abc"},
    ],
)
def test_measurement_identifier_equals_dcnum(write_measurement, frames, attributes):
    """The identifier is that of dcnum, whichever attributes exist."""
    path = write_measurement(frames, attributes=attributes)
    with HDF5Data(path) as data:
        assert data.measurement_identifier == (dcnum_read.get_measurement_identifier(data.h5) or None)


@pytest.mark.filterwarnings("ignore:Type of configuration key", "ignore:Empty value for")
@pytest.mark.parametrize("key", ["experiment:time", "experiment:date", "setup:identifier", "experiment:run identifier"])
@pytest.mark.parametrize(
    "value",
    [
        *("ab", " ab ", np.bytes_("ab"), np.bytes_(""), 5, 0, np.float32(2.7), True, np.array([b"ab"]), ["a", "b"]),
        *(h5py.Empty("S3"), h5py.Empty("f8"), np.zeros(0)),
    ],
    ids=repr,
)
def test_measurement_identifier_equals_dclab(write_measurement, frames, key, value):
    """However attributes are stored, the identifier is that of dclab, which refuses a basin with another."""
    stored = {"experiment:time": "12:00:00", "experiment:date": "2026-01-02", "setup:identifier": "ZMD", key: value}
    path = write_measurement(frames, attributes={"experiment:run identifier": ""} | stored)
    with dclab.new_dataset(path) as dataset, HDF5Data(path) as data:
        assert data.measurement_identifier == dataset.get_measurement_identifier()


@pytest.mark.parametrize("kind", [np.bytes_, str, np.float32])
def test_identifiers_of_dcnum_are_known(write_measurement, frames, kind):
    """A result of dcnum opens, whatever dcnum has made of the attributes; other measurements do not take its place."""
    stored = {"experiment:time": kind("12.7"), "experiment:date": kind("1.7"), "setup:identifier": kind("3.1")}
    path = write_measurement(frames, attributes={"experiment:run identifier": "", **stored})
    with HDF5Data(path) as data:
        given = dcnum_read.get_measurement_identifier(data.h5)
        assert data.is_identified_by(given)
        assert data.is_identified_by(data.measurement_identifier)
        assert (given == data.measurement_identifier) is (kind is str)
        assert not data.is_identified_by("other")
    with h5py.File(path.with_name("referring.rtdc"), "w") as h5:
        for name, identifier in (("good", given), ("bad", given[::-1])):
            basin = {"type": "file", "paths": [path.name], "features": ["image"], "identifier": identifier}
            h5[f"{name}/basins/x"] = np.array([json.dumps(basin).encode()])
        h5["basins"] = h5["good/basins"]
    with HDF5Data(path.with_name("referring.rtdc")) as data:
        assert np.array_equal(data["image"][:], frames)
    with h5py.File(path.with_name("referring.rtdc"), "a") as h5:
        del h5["basins"]
        h5["basins"] = h5["bad/basins"]
    with HDF5Data(path.with_name("referring.rtdc")) as data, pytest.raises(MeasurementError, match="is measurement"):
        data.find("image")
    with h5py.File(path, "a") as h5:
        h5.attrs["experiment:run identifier"] = "named since"
    with HDF5Data(path) as data:
        assert not data.is_identified_by(given)


def test_pixel_size_override_wins(write_measurement, frames):
    """A given pixel size replaces the stored one, also in the identifier."""
    with HDF5Data(write_measurement(frames), pixel_size=0.5) as data:
        assert data.pixel_size == 0.5
        assert data.get_ppid() == "hdf:p=0.5^i=0"


@pytest.mark.parametrize(
    "stored",
    [0.34, np.float32(0.34), np.float16(0.34), float(np.float32(0.34)), 0.123456789123, 5.1e-9, 1, np.uint8(2)],
    ids=repr,
)
@pytest.mark.parametrize("given", [False, True], ids=["stored", "given"])
def test_pixel_size_is_the_number_in_the_identifier(write_measurement, frames, open_in_dcnum, stored, given):
    """Of whatever type it is and wherever it comes from, the 8 decimals in dcnum's identifier are computed with."""
    path = write_measurement(frames, attributes={"imaging:pixel size": 0.2 if given else stored})
    options = {"pixel_size": stored} if given else {}
    expected = open_in_dcnum(path, **options).get_ppid()
    with HDF5Data(path, **options) as data:
        assert data.get_ppid() == expected
        assert expected == f"hdf:p={np.format_float_positional(data.pixel_size)}^i=0"
        assert type(data.pixel_size) is float


def test_pixel_size_stored_as_text_counts(write_measurement, frames):
    """What some programs store as text is the number that it spells out; dcnum fails."""
    for stored in ("0.34", np.bytes_(b"0.3400000035762787"), np.array([0.34], np.float32)):
        with HDF5Data(write_measurement(frames, attributes={"imaging:pixel size": stored})) as data:
            assert data.pixel_size == 0.34


@pytest.mark.parametrize("identifier", ["AB-1", "RC-1"])
@pytest.mark.parametrize(
    ("stored", "found"),
    [
        (None, "missing"),
        (0, "0"),
        (0.0, "0.0"),
        (4e-9, "4e-09"),
        (-0.34, "-0.34"),
        (np.float32(np.nan), "nan"),
        (np.inf, "inf"),
        ("unknown", "'unknown'"),
        ("0.3_4", "'0.3_4'"),
        ([0.3, 0.4], r"\[0.3, 0.4\]"),
    ],
    ids=str,
)
def test_pixel_size_that_is_none_is_refused(write_measurement, frames, stored, found, identifier):
    """Without a size of pixels there are no areas: the message says what is stored, and the cure."""
    path = write_measurement(frames, attributes={"setup:identifier": identifier})
    with h5py.File(path, "a") as h5:
        del h5.attrs["imaging:pixel size"]
        if stored is not None:
            h5.attrs["imaging:pixel size"] = stored
    message = rf"measurement.rtdc: imaging:pixel size is {found}, expected .* set pipeline.pixel_size"
    with HDF5Data(path) as data, pytest.raises(MeasurementError, match=message) as caught:
        _ = data.pixel_size
    assert caught.value.reason == "input"
    with HDF5Data(path, pixel_size=0.34) as data:
        assert data.pixel_size == 0.34


@pytest.mark.parametrize("given", [0, -1.0, np.nan, np.inf, 4e-9])
def test_pixel_size_given_that_is_none_is_refused(write_measurement, frames, given):
    """What is to replace the stored one must be one."""
    with pytest.raises(ConfigError, match=r"pipeline.pixel_size is .* expected a size"):
        HDF5Data(write_measurement(frames), pixel_size=given)


def test_bytes_attributes_are_text(write_measurement, frames):
    """Attributes come as plain Python values, however they are stored."""
    attributes = {
        "a:bytes": np.bytes_("µm".encode()),
        "a:text": "µm",
        "a:int": np.int32(3),
        "a:float": np.float32(0.5),
        "a:long": np.longdouble(0.25),
        "a:bool": np.bool_(True),
        "a:one": np.array([2.5]),
        "a:many": np.array([1, 2]),
    }
    with HDF5Data(write_measurement(frames, attributes=attributes)) as data:
        assert {key: data.meta[key] for key in attributes} == {
            "a:bytes": "µm",
            "a:text": "µm",
            "a:int": 3,
            "a:float": 0.5,
            "a:long": 0.25,
            "a:bool": True,
            "a:one": 2.5,
            "a:many": [1, 2],
        }


def test_attributes_that_are_not_utf8(write_measurement, frames):
    """Text in another encoding is read as far as possible, for the ledger too; for a copy it stays what it was."""
    path = write_measurement(frames, attributes={"experiment:run identifier": b"caf\xe9", "a:good": "\u00b5"})
    with h5py.File(path, "a") as h5:
        h5.attrs.create("a:many", [b"\xff", "y"], dtype=h5py.string_dtype())
    with HDF5Data(path) as data:
        assert data.measurement_identifier == "caf\ufffd"
        assert (data.meta["a:many"], data.meta["a:good"]) == (["\ufffd", "y"], "\u00b5")
        stored = data.attributes
    with h5py.File(path.with_name("copy.h5"), "w") as copy:
        copy.attrs.update(stored)
        assert copy.attrs["experiment:run identifier"].encode(errors="surrogateescape") == b"caf\xe9"
        assert copy.attrs["a:many"][0].encode(errors="surrogateescape") == b"\xff"


def test_names_that_are_not_utf8(write_measurement, frames):
    """Names in another encoding are no obstacle."""
    path = write_measurement(frames, attributes={"a:qqqq": 1}, features={"qqqq": np.arange(43)})
    with h5py.File(path, "a") as h5:
        h5["logs/qqqq"] = np.array([b"line"])
        h5["tables/qqqq"] = np.array([(1, 2.0)], dtype="i4,f8")
        h5["basins/qqqq"] = h5["basins/other"] = np.array([b'{"type": "file", "paths": ["nothing"]}'])
    path.write_bytes(path.read_bytes().replace(b"qqqq", b"q\xff\xfeq"))
    with HDF5Data(path) as data:
        name = "q\ufffd\ufffdq"
        assert data.meta["a:" + name] == 1
        assert (list(data.logs), list(data.tables)) == ([name], [name])
        assert [basin.key for basin in data.basins] == ["other", name]
        assert len(data.check_frames()) == 43
        assert data.features_scalar_frame == []


def test_logs_of_every_kind(write_measurement, frames):
    """Fixed and variable-length strings and empty logs are lists of lines."""
    path = write_measurement(frames)
    with h5py.File(path, "a") as h5:
        h5["logs/fixed"] = np.array([b"one", b"two  "])
        h5.create_dataset("logs/variable", data=["eins", "zwei µ"], dtype=h5py.string_dtype())
        h5.create_dataset("logs/empty", shape=(0,), dtype=h5py.string_dtype())
        h5.create_dataset("logs/null", data=h5py.Empty("S1"))
        h5["logs/latin"] = np.array(["µ".encode("latin-1")])
    with HDF5Data(path) as data:
        assert data.logs == {
            "fixed": ["one", "two  "],
            "variable": ["eins", "zwei µ"],
            "empty": [],
            "null": [],
            "latin": ["\ufffd"],
        }


def test_tables_are_structured_arrays(write_measurement, frames):
    """Tables keep their columns."""
    path = write_measurement(frames)
    table = np.array([(1, 0.5), (2, 1.5)], dtype=[("frame", "i4"), ("flow", "f8")])
    with h5py.File(path, "a") as h5:
        h5["tables/flow"] = table
    with HDF5Data(path) as data:
        assert np.array_equal(data.tables["flow"], table)


def test_stack_behaves_like_an_array(write_measurement, frames):
    """Numbers, slices, lists, masks and tuples index frames as numpy does, with and without mapping."""
    path = write_measurement(frames)
    chosen = np.r_[5:40:2, 3]
    for mapping, array in ((None, frames), (chosen, frames[chosen])):
        with HDF5Data(path, index_mapping=mapping) as data:
            image = data.image
            assert (image.shape, image.dtype, image.ndim, len(image)) == (array.shape, np.uint8, 3, len(array))
            selections = [
                3, -1, np.int64(2), slice(2, 9), slice(None, None, 4), slice(None, None, -3), slice(9, 2),
                [4, 1, 1], np.array([], int), np.arange(len(array)) % 2 == 0,
                (slice(2, 5), slice(0, 10)), (4, 5), (2, slice(3), 7),
            ]  # fmt: skip
            for selection in selections:
                assert np.array_equal(image[selection], array[selection]), selection
            assert np.array_equal(np.asarray(image), array)
            for wrong in (len(array), -len(array) - 1, [0, len(array)]):
                with pytest.raises(IndexError, match=f"{len(array)} events"):
                    image[wrong]


def test_mapping_out_of_range_is_refused(write_measurement, frames):
    """An index mapping that does not fit the file is a clear error."""
    with pytest.raises(ConfigError, match="events 0 to 42"):
        HDF5Data(write_measurement(frames), index_mapping=[3, 43])


def test_use_after_close_is_refused(write_measurement, frames):
    """Closed data says so instead of opening the file again."""
    data = HDF5Data(write_measurement(frames))
    data.close()
    with pytest.raises(ValueError, match="is closed"):
        data["frame"]
    with pytest.raises(ValueError, match="is closed"):
        data.logs  # noqa: B018 -- reading is what is tested


def test_unknown_feature_is_a_key_error(write_measurement, frames):
    """A feature that does not exist is named."""
    with HDF5Data(write_measurement(frames)) as data, pytest.raises(KeyError, match="deform"):
        data["deform"]


def test_reading_leaves_the_instrument_alone(write_measurement, frames):
    """While we read, another program can open the file for writing."""
    path = write_measurement(frames)
    with HDF5Data(path):
        # HDF5 refuses mixed modes within a process, a lock on the descriptor is what another process would meet.
        import fcntl  # noqa: PLC0415 -- only here

        with path.open("r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def reason_of(path, **kwargs):
    with pytest.raises(MeasurementError) as caught, HDF5Data(path, **kwargs) as data:
        data.check_frames()
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return caught.value.reason


def test_missing_file_is_unreadable(tmp_path):
    """A file that does not exist is unreadable, and may come back."""
    with pytest.raises(MeasurementError, match="No such file") as caught:
        HDF5Data(tmp_path / "nothing.rtdc")
    assert (caught.value.reason, caught.value.transient) == ("unreadable", True)


def test_file_without_permission_is_unreadable(write_measurement, frames, monkeypatch):
    """A file that we may not read is unreadable until a human helps."""
    path = write_measurement(frames)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(MeasurementError, match=os.strerror(errno.EACCES)) as caught:
        HDF5Data(path)
    assert (caught.value.reason, caught.value.transient) == ("unreadable", False)


def test_folder_is_unreadable(tmp_path):
    """A folder is not a measurement."""
    assert reason_of(tmp_path) == "unreadable"


@pytest.mark.parametrize("content", [b"", b"hello", b"x" * 5000])
def test_other_content_is_not_hdf5(tmp_path, content):
    """What is not HDF5 is named so."""
    path = tmp_path / "text.rtdc"
    path.write_bytes(content)
    assert reason_of(path) == "not_hdf5"


def test_half_a_file_is_truncated(write_measurement, frames):
    """A file that was copied in part is truncated, and may be completed."""
    path = write_measurement(frames)
    os.truncate(path, path.stat().st_size * 2 // 3)
    assert reason_of(path) == "truncated"


def test_file_without_images(write_measurement, frames):
    """A file with scalars only has no images."""
    assert reason_of(write_measurement(None, features={"deform": np.arange(3.0)})) == "no_images"
    assert reason_of(write_measurement(None, name="bare.rtdc")) == "no_images"


def test_file_without_frames(write_measurement, frames):
    """An empty image dataset has no frames."""
    assert reason_of(write_measurement(frames[:0])) == "no_frames"


def test_real_measurement_without_frames(shared_data):
    """An empty measurement of an instrument is read, and has no frames."""
    path = shared_data("fmt-hdf5_shapein_empty")
    with HDF5Data(path) as data:
        assert len(data) == 0
        assert data.meta["experiment:event count"] == 0
    assert reason_of(path) == "no_frames"


def test_event_count_must_agree(write_measurement, frames):
    """An event count or a frame-wise scalar that disagrees with the frames is an error."""
    wrong = {"experiment:event count": 40}
    assert reason_of(write_measurement(frames, attributes=wrong)) == "event_count"
    assert reason_of(write_measurement(frames, features={"time": np.arange(42.0)})) == "event_count"


def test_event_count_may_be_missing(write_measurement, frames):
    """Without an event count the frames count."""
    path = write_measurement(frames)
    with h5py.File(path, "a") as h5:
        del h5.attrs["experiment:event count"]
    with HDF5Data(path) as data:
        assert len(data.check_frames()) == len(data) == 43


def test_event_count_that_is_no_number_counts_as_missing(write_measurement, frames):
    """Python alone takes 4_4 for 44."""
    for stored in ("many", "4_4"):
        path = write_measurement(frames, attributes={"experiment:event count": stored})
        with HDF5Data(path) as data:
            assert len(data.check_frames()) == len(data) == 43


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int8])
def test_images_must_be_8_bit(write_measurement, frames, dtype):
    """Other pixel types are refused."""
    assert reason_of(write_measurement(frames.astype(dtype))) == "image_type"


def test_images_must_be_grey(write_measurement, frames):
    """Colour images are refused."""
    assert reason_of(write_measurement(np.stack([frames] * 3, axis=-1))) == "image_type"


def test_unknown_filter_is_named(tmp_path):
    """A filter that does not exist here is named by its number."""
    path = tmp_path / "filter.rtdc"
    with h5py.File(path, "w") as h5:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((5, 8, 10))
        properties.set_filter(31999, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((10, 8, 10))
        h5py.h5d.create(h5.create_group("events").id, b"image", h5py.h5t.STD_U8LE, space, properties)
    with HDF5Data(path) as data, pytest.raises(MeasurementError, match="filter 31999") as caught:
        data.check_frames()
    assert caught.value.reason == "unsupported_filter"


def test_relative_path_is_read(write_measurement, frames, monkeypatch):
    """A relative path works, also after the working folder changed."""
    path = write_measurement(frames)
    monkeypatch.chdir(path.parent)
    with HDF5Data(pathlib.Path(path.name)) as data:
        assert len(data.check_frames()) == 43


@pytest.mark.parametrize(
    ("stored", "log", "expected"),
    [
        (0.34, None, 0.2645),
        (0.34, "Device name: naiad 1.0", 0.2645),
        (0.34, "Device name: naiad 1.1", 0.2675),
        (0.2, "Device name: naiad 1.1", 0.2675),
        (0.26, "Device name: naiad 1.1", 0.26),
        (np.float32(0.255), None, 0.255),
        (0.27500000001, None, 0.275),
    ],
)
def test_known_camera_fault_is_corrected(write_measurement, frames, stored, log, expected):
    """Impossible pixel sizes of RC- devices are replaced, with a warning."""
    path = write_measurement(frames, attributes={"imaging:pixel size": stored, "setup:identifier": "RC-1234"})
    if log:
        with h5py.File(path, "a") as h5:
            h5["logs/cytoshot-acquisition"] = np.array([b"something", log.encode()])
    with HDF5Data(path) as data:
        if round(float(stored), 7) == expected:
            assert data.pixel_size == expected
        else:
            with pytest.warns(PixelSizeWarning, match="known camera fault"):
                assert data.pixel_size == expected


def test_file_name_that_is_not_utf8(write_measurement, frames, tmp_path):
    """Names that are no valid UTF-8 are read, also by workers."""
    path = tmp_path / os.fsdecode(b"caf\xe9.rtdc")
    write_measurement(frames).rename(path)
    with HDF5Data(path) as data:
        source = FrameSource.of(data.check_frames())
    out = np.empty((1, 80, 250), np.uint8)
    with FrameReader(source) as reader:
        reader.read_into(0, 1, out)
    assert np.array_equal(out, frames[:1])


def test_damaged_scalars_are_named(tmp_path):
    """A scalar feature that cannot be decoded is an error with its name."""
    path = tmp_path / "damaged.rtdc"
    with h5py.File(path, "w") as h5:
        dataset = h5.create_dataset("events/time", data=np.arange(100.0), chunks=(100,), fletcher32=True)
        dataset.id.write_direct_chunk((0,), b"\x01" * 804)
    with HDF5Data(path) as data, pytest.raises(MeasurementError, match="events/time is damaged") as caught:
        data["time"]
    assert caught.value.reason == "damaged"


@pytest.mark.parametrize("seed", range(40))
def test_damaged_file_is_named(write_measurement, frames, seed):
    """Wherever a file is damaged, the fault is found or harmless; it is never a crash or another kind of error."""
    layout = {"chunks": (10, 80, 250), "compression": "gzip", "fletcher32": True}
    path = write_measurement(frames[:20], features={"time": np.arange(20.0)}, **layout)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    start = int(rng.integers(rng.choice([500, 5000, len(content)])))
    size = int(rng.choice([1, 8, 4096, len(content)]))
    content[start : start + size] = bytes(len(content[start : start + size]))
    path.write_bytes(content)
    with contextlib.suppress(MeasurementError), HDF5Data(path) as data:
        source = FrameSource.of(data.check_frames())
        image = np.empty((source.frame_count, *source.frame_shape), np.uint8)
        with FrameReader(source) as reader:
            reader.read_into(0, source.frame_count, image)
        data["time"]
