"""The sparse median, held against dcnum's."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import scipy.ndimage

from dcnumd.errors import MethodError
from dcnumd.feat.feat_background.bg_sparse_median import (
    BackgroundSparseMed,
    Medians,
    median_image,
    running_median,
    sparse_median_images,
)
from dcnumd.feat.feat_background.offset import background_offset, wall_brightness
from dcnumd.feat.feat_background.time_axis import frame_rate, nominal_time, time_axis, time_axis_ends
from dcnumd.read.hdf5_data import HDF5Data
from tests.parity.stored_kinds import FLOATS, WHOLE

dcnum_module = pytest.importorskip("dcnum.feat.feat_background.bg_sparse_median")
dcnum_read = pytest.importorskip("dcnum.read")

Make = Callable[..., pathlib.Path]
JITTER = np.random.default_rng(5).normal(0, 0.0005, 200)

pytestmark = pytest.mark.timeout(100)


def medians_of(frames: npt.NDArray[np.uint8]) -> Medians:
    """Return what computes the medians of windows of some frames."""

    def medians(starts: npt.NDArray[np.int64], kernel_size: int) -> npt.NDArray[np.uint8]:
        return np.stack([median_image(frames[start : start + kernel_size]) for start in starts])

    return medians


@pytest.mark.parametrize(
    ("measurement", "kwargs"),
    [
        ({"count": 130, "shape": (80, 320)}, {"kernel_size": 30, "split_time": 0.004}),
        ({"count": 200, "shape": (45, 100), "flicker": 9.0}, {"kernel_size": 21, "split_time": 0.005}),
        ({"count": 150, "shape": (30, 33)}, {"kernel_size": 20, "split_time": 0.003, "frac_cleansing": 0.5}),
        ({"count": 150, "shape": (15, 40)}, {"kernel_size": 7, "split_time": 0.002, "thresh_cleansing": 0.4}),
        ({"count": 150, "shape": (100, 60)}, {"kernel_size": 9, "split_time": 0.002, "thresh_cleansing": 300.0}),
        ({"count": 300, "shape": (30, 33)}, {"kernel_size": 270, "split_time": 0.02, "frac_cleansing": 1}),
        ({"count": 90, "shape": (21, 50)}, {"offset_correction": False}),
        ({"count": 2, "shape": (30, 33)}, {"kernel_size": 1}),
    ],
)
def test_sparse_median_equals_dcnum(
    measurement: dict[str, Any],
    kwargs: dict[str, Any],
    make_measurement: Make,
    assert_equals_dcnum: Callable[..., Any],
) -> None:
    """Images, offsets and attributes are dcnum's for many shapes, kernels, split times and cleansing settings."""
    source = make_measurement(seed=len(str(kwargs)), **measurement)
    assert_equals_dcnum(BackgroundSparseMed, dcnum_module.BackgroundSparseMed, source, **kwargs)


@pytest.mark.parametrize(
    "measurement",
    [
        {"time": (np.arange(200) / 3000 + 100.3).astype(np.float32)},
        {"time": np.arange(200) / 3000 + JITTER},
        {"time": np.repeat(np.arange(50) / 800, 4)},
        {"drop": ("events/time",)},
        {"drop": ("events/time", "events/frame", "imaging:frame rate")},
    ],
    ids=["float32", "unsorted", "repeated", "from frame", "nominal"],
)
def test_time_axis_equals_dcnum(
    measurement: dict[str, Any], make_measurement: Make, assert_equals_dcnum: Callable[..., Any]
) -> None:
    """Whatever the file tells about time, each frame gets the same image as with dcnum."""
    source = make_measurement(count=200, shape=(24, 40), seed=3, **measurement)
    assert_equals_dcnum(BackgroundSparseMed, dcnum_module.BackgroundSparseMed, source, kernel_size=12, split_time=0.005)


COUNTER = np.sort(np.random.default_rng(1).integers(0, 800, 200)) + 8_000_003
"""Frame numbers with gaps, in which float32 has no room for fractions when they are divided by a frame rate."""
STORED_RATES = {
    "float64": 3001.7,
    "float32": np.float32(3000.1),
    "float16": np.float16(3000),
    "int64": 3001,
    "uint16": np.uint16(3001),
    "one in an array": np.array([3001.7]),
}


def stored_times(feature: str, kind: str) -> npt.NDArray[Any]:
    """Return frame numbers or times [s] as some program stores them."""
    whole = np.dtype(kind).kind in "iu"
    if feature == "frame":
        return (COUNTER - (0 if np.dtype(kind).itemsize > 2 else COUNTER[0])).astype(kind)
    return (COUNTER // 20 - 400_000 if whole else (COUNTER - COUNTER[0]) / 3001.7 + 100).astype(kind)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("feature", "kind", "rate"),
    [
        *(("frame", kind, "float64") for kind in ("float32", "float16", "uint64", "int32")),
        *(("frame", "float32", rate) for rate in STORED_RATES if rate != "float64"),
        *(("time", kind, "float64") for kind in (*FLOATS, *WHOLE)),
    ],
)
def test_time_axis_has_the_precision_of_dcnum(
    feature: str, kind: str, rate: str, make_measurement: Make, assert_equals_dcnum: Callable[..., Any]
) -> None:
    """Numbers are computed with in the types in which they are stored, down to the last digit that decides."""
    time = stored_times("time", kind) if feature == "time" else None
    source = make_measurement(count=200, shape=(3, 4), seed=8, time=time)
    with h5py.File(source, "r+") as h5:
        h5.attrs["imaging:frame rate"] = STORED_RATES[rate]
        if feature == "frame":
            del h5["events/time"], h5["events/frame"]
            h5["events/frame"] = stored_times("frame", kind)
    split_time = 1 if np.dtype(kind).kind in "iu" and feature == "time" else 0.002
    settings = {"kernel_size": 1, "frac_cleansing": 1, "split_time": split_time}
    assert_equals_dcnum(BackgroundSparseMed, dcnum_module.BackgroundSparseMed, source, **settings)


@pytest.mark.slow
def test_falling_times_without_a_sign_are_taken_as_in_dcnum(
    make_measurement: Make, assert_equals_dcnum: Callable[..., Any]
) -> None:
    """The difference of small numbers is wrong, but a possible duration."""
    time = np.linspace(100, 20, 200).astype("uint8")
    source = make_measurement(count=200, shape=(3, 4), seed=8, time=time)
    settings = {"kernel_size": 1, "frac_cleansing": 1, "split_time": 1}
    assert_equals_dcnum(BackgroundSparseMed, dcnum_module.BackgroundSparseMed, source, **settings)


@pytest.mark.parametrize("rate", ["float64", "float32", "float16", "uint16"])
def test_time_made_up_has_the_precision_of_dcnum(
    rate: str, make_measurement: Make, assert_equals_dcnum: Callable[..., Any]
) -> None:
    """The last digit of the duration decides how many background images there are."""
    source = make_measurement(count=200, shape=(3, 4), seed=8, drop=("events/time", "events/frame"))
    with h5py.File(source, "r+") as h5:
        h5.attrs["imaging:frame rate"] = STORED_RATES[rate]
    # four times so much is less than the duration by so little that float32 does not show it
    split_time = 200 / float(STORED_RATES[rate]) * 1.5 / 4 * (1 - 1e-8)
    settings = {"kernel_size": 1, "frac_cleansing": 1, "split_time": split_time}
    assert_equals_dcnum(BackgroundSparseMed, dcnum_module.BackgroundSparseMed, source, **settings)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        *((value, value) for value in STORED_RATES.values() if not isinstance(value, np.ndarray)),
        (np.array([3001.7], np.float32), np.float32(3001.7)),
        ("3001.7", 3001.7),
        (np.bytes_(b"3001.7"), 3001.7),
        *((value, None) for value in (0, 0.0, -5.0, np.nan, np.inf, "", "fast", "3_001.7", [1.0, 2.0], 1j)),
    ],
    ids=repr,
)
def test_frame_rate_keeps_its_type(stored: Any, expected: Any, make_measurement: Make) -> None:
    """A number stays as it is stored; what is no positive number counts as unknown, where dcnum fails."""
    source = make_measurement(count=20, shape=(3, 4), drop=("events/time", "imaging:frame rate"))
    with h5py.File(source, "r+") as h5:
        h5.attrs["imaging:frame rate"] = stored
    with HDF5Data(source) as data:
        rate = frame_rate(data)
        assert rate == expected
        if isinstance(expected, np.generic):
            assert rate.dtype == expected.dtype
        feature, first, last = time_axis_ends(data)
        assert feature == ("imaging:frame rate" if expected is None else "events/frame")
        assert time_axis(data)[-1] == pytest.approx(last - first, rel=1e-2)


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "int64", "uint16"])
def test_search_for_the_nearest_frame_is_that_of_all_frames(kind: str) -> None:
    """The search in ascending times finds what looking at all of them finds, in whatever type they are."""
    time = stored_times("time", kind)
    time = time - time[0]
    frames = np.random.default_rng(0).integers(0, 256, (200, 2, 3), dtype=np.uint8)
    split_time = float(time[-1]) / 30
    settings = {"kernel_size": 1, "frac_cleansing": 1, "split_time": split_time}
    images, index = sparse_median_images(medians_of(frames), 200, time, **settings)
    steps = np.arange(0, time[-1] - time[0], split_time)
    starts = [np.argmin(np.abs(time - step)) for step in steps]
    np.testing.assert_array_equal(images, frames[starts])
    ends = [np.argmin(np.abs(time - step - split_time / 2)) for step in steps]
    expected = np.searchsorted(np.maximum.accumulate(ends), np.arange(200), side="right")
    np.testing.assert_array_equal(index, np.minimum(expected, len(steps) - 1))


@pytest.mark.parametrize(
    "name", ["fmt-hdf5_cytoshot_full-features_2023", "fmt-hdf5_shapein_raw-with-variable-length-logs"]
)
def test_real_measurements_equal_dcnum(
    name: str,
    shared_data: Callable[[str], pathlib.Path],
    assert_equals_dcnum: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Real measurements, with fewer frames than the kernel, come out as with dcnum; a warning says so."""
    source = shared_data(name)
    with HDF5Data(source) as data:
        split_time = float(time_axis(data)[-1]) / 7
    assert_equals_dcnum(BackgroundSparseMed, dcnum_module.BackgroundSparseMed, source, split_time=split_time)
    assert "kernel_size 200 is larger than" in caplog.text


def test_array_goes_to_a_new_file(tmp_path: pathlib.Path, make_measurement: Make) -> None:
    """Frames in an array give the images that the same frames give in a file without time."""
    drop = ("events/time", "events/frame", "imaging:frame rate")
    source = make_measurement(count=120, shape=(24, 40), drop=drop)
    with h5py.File(source, "r") as h5:
        frames = h5["events/image"][:]
    outputs = []
    for number, data in enumerate((source, frames)):
        output = tmp_path / f"{number}.rtdc"
        with BackgroundSparseMed(data, output, kernel_size=10, split_time=0.01, num_cpus=2) as background:
            background.process()
        with HDF5Data(output) as result:
            assert result.image_bg is not None
            outputs.append((result.image_bg[:], result["bg_off"]))
    np.testing.assert_array_equal(outputs[0][0], outputs[1][0])
    np.testing.assert_array_equal(outputs[0][1], outputs[1][1])


@pytest.mark.parametrize("time", [np.zeros(1), np.zeros(6), np.arange(6.0)[::-1] - 5])
def test_frames_without_duration_share_one_image(
    time: npt.NDArray[np.float64], caplog: pytest.LogCaptureFixture
) -> None:
    """One frame is its own background; frames whose time does not advance have one image (dcnum fails on both)."""
    frames = np.random.default_rng(0).integers(0, 256, (len(time), 5, 7), dtype=np.uint8)
    with caplog.at_level(logging.WARNING):
        images, index = sparse_median_images(medians_of(frames), len(time), time)
    assert index.tolist() == [0] * len(time)
    np.testing.assert_array_equal(images, np.sort(frames, axis=0)[len(time) // 2][np.newaxis])


def test_function_equals_class(make_measurement: Make, tmp_path: pathlib.Path) -> None:
    """Without a file in between the images, the index and the offsets are those of the class."""
    source = make_measurement(count=150, flicker=8.0)
    kwargs: dict[str, Any] = {"kernel_size": 20, "split_time": 0.005}
    with HDF5Data(source) as data:
        assert data.image is not None
        frames = data.image[:]
        images, index = sparse_median_images(medians_of(frames), len(data), time_axis(data), **kwargs)
    with BackgroundSparseMed(source, tmp_path / "out.rtdc", **kwargs) as background:
        background.process()
    with HDF5Data(tmp_path / "out.rtdc") as result:
        assert result.image_bg is not None
        np.testing.assert_array_equal(result.image_bg[:], images[index])
        np.testing.assert_array_equal(result["bg_off"], background_offset(frames, wall_brightness(images), index))
    assert index.dtype == np.int64
    assert np.all(np.diff(index) >= 0)


def test_nominal_time_leaves_room_for_lost_frames() -> None:
    """Times that are made up end at 1.5 times the duration of the frames."""
    time = nominal_time(300, 100.0)
    assert time[[0, -1]].tolist() == [0, 4.5]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"kernel_size": 0}, "kernel_size is 0, expected a whole number of at least 1"),
        ({"kernel_size": 10.5}, "kernel_size is 10.5"),
        ({"split_time": 0}, "split_time is 0, expected more than 0 seconds"),
        ({"split_time": float("nan")}, "split_time is nan"),
        ({"thresh_cleansing": -1}, "thresh_cleansing is -1"),
        ({"frac_cleansing": 0}, "frac_cleansing is 0"),
        ({"frac_cleansing": 1.5}, "frac_cleansing is 1.5"),
        ({"offset_correction": "auto"}, "must be resolved before"),
    ],
)
def test_keywords_out_of_range_are_refused(kwargs: dict[str, Any], message: str, tmp_path: pathlib.Path) -> None:
    """A value that makes no sense is named before any file is touched."""
    with pytest.raises(MethodError, match=message):
        BackgroundSparseMed(np.zeros((3, 4, 5), np.uint8), tmp_path / "out.rtdc", **kwargs)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9, 10, 11, 37])
def test_running_median_is_that_of_scipy(count):
    """The numpy version equals the filter that it stands in for, also for series shorter than its window."""
    signal = np.random.default_rng(count).normal(size=count)
    np.testing.assert_array_equal(running_median(signal, 10), scipy.ndimage.median_filter(signal, size=10))
