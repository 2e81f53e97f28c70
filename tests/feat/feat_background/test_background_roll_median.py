"""The rolling median, held against dcnum's."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest

from dcnumd.errors import MeasurementError, MethodError
from dcnumd.feat.feat_background.bg_roll_median import BackgroundRollMed, RollingMedianSource, rolling_median
from dcnumd.read.frame_reader import FrameSource
from dcnumd.read.hdf5_data import HDF5Data

dcnum_module = pytest.importorskip("dcnum.feat.feat_background.bg_roll_median")

Make = Callable[..., pathlib.Path]

pytestmark = pytest.mark.timeout(100)


@pytest.mark.parametrize(
    ("measurement", "kwargs"),
    [
        ({"count": 60, "shape": (80, 320)}, {"kernel_size": 20, "batch_size": 50}),
        ({"count": 90, "shape": (45, 100), "flicker": 9.0}, {"kernel_size": 30, "batch_size": 31}),
        ({"count": 61, "shape": (30, 33)}, {"kernel_size": 60, "batch_size": 1000}),
        ({"count": 130, "shape": (15, 40)}, {}),
    ],
)
def test_rolling_median_equals_dcnum(
    measurement: dict[str, Any],
    kwargs: dict[str, int],
    make_measurement: Make,
    assert_equals_dcnum: Callable[..., Any],
) -> None:
    """Images and attributes are dcnum's, whatever the shape, the kernel and the batch size."""
    source = make_measurement(seed=len(str(kwargs)), **measurement)
    assert_equals_dcnum(BackgroundRollMed, dcnum_module.BackgroundRollMed, source, **kwargs)


def test_real_measurement_equals_dcnum(
    shared_data: Callable[[str], pathlib.Path], assert_equals_dcnum: Callable[..., Any]
) -> None:
    """A real measurement comes out as with dcnum."""
    source = shared_data("fmt-hdf5_cytoshot_full-features_2023")
    assert_equals_dcnum(BackgroundRollMed, dcnum_module.BackgroundRollMed, source, kernel_size=10, batch_size=20)


def test_arrays_that_do_not_fit_are_refused() -> None:
    """Shapes are checked before a kernel could read beyond an array."""
    with pytest.raises(ValueError, match="do not fit kernel_size 4"):
        rolling_median(np.zeros((10, 3, 3), np.uint8), 4, np.zeros((8, 3, 3), np.uint8))
    rolling_median(np.zeros((3, 3, 3), np.uint8), 4, np.zeros((0, 3, 3), np.uint8))


@pytest.mark.parametrize("compress", [True, False])
def test_long_measurement_is_seamless(compress: bool, tmp_path: pathlib.Path) -> None:
    """Where one batch ends and the next begins nothing is lost, and HDF5 reads the packed chunks."""
    rng = np.random.default_rng(0)
    frames = (rng.integers(0, 30, (4321, 6, 8)) + np.arange(4321)[:, np.newaxis, np.newaxis] // 40).astype(np.uint8)
    output = tmp_path / "out.rtdc"
    kernel_size = 50
    with BackgroundRollMed(frames, output, kernel_size=kernel_size, compress=compress, num_cpus=2) as background:
        background.process()
        assert background.get_progress() == 1
    windows = np.lib.stride_tricks.sliding_window_view(frames, kernel_size, axis=0)[: 4321 - kernel_size]
    expected = np.partition(windows, kernel_size // 2, axis=-1)[..., kernel_size // 2]
    with h5py.File(output, "r") as h5:
        stored = h5["events/image_bg"]
        assert (stored.compression_opts is not None or "32015" in stored._filters) == compress
        np.testing.assert_array_equal(stored[: len(expected)], expected)
        np.testing.assert_array_equal(stored[len(expected) :], np.repeat(expected[-1:], kernel_size, axis=0))


def test_as_many_frames_as_the_kernel_share_one_image(make_measurement: Make, tmp_path: pathlib.Path) -> None:
    """With a single window all frames get its median (dcnum writes nothing then)."""
    source = make_measurement(count=40, shape=(9, 11))
    with BackgroundRollMed(source, tmp_path / "out.rtdc", kernel_size=40) as background:
        background.process()
    with HDF5Data(source) as data, HDF5Data(tmp_path / "out.rtdc") as result:
        assert data.image is not None
        assert result.image_bg is not None
        median = np.partition(data.image[:], 20, axis=0)[20]
        np.testing.assert_array_equal(result.image_bg[:], np.repeat(median[np.newaxis], 40, axis=0))


def test_fewer_frames_than_the_kernel_are_refused(make_measurement: Make, tmp_path: pathlib.Path) -> None:
    """The error names both numbers, and what to do."""
    source = make_measurement(count=20, shape=(9, 11))
    output = tmp_path / "out.rtdc"
    for frames, name in ((source, source.name), (np.zeros((20, 9, 11)), "input")):
        with pytest.raises(MeasurementError, match=f"{name}: 20 frames are fewer than the kernel_size 100") as caught:
            BackgroundRollMed(frames, output)
        assert caught.value.reason == "too_few_frames"
        assert isinstance(caught.value, ValueError), "as in dcnum"
        assert not output.exists()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"kernel_size": 21}, "kernel_size is 21, expected an even number"),
        ({"kernel_size": 0}, "kernel_size is 0"),
        ({"kernel_size": 70000, "batch_size": 80000}, "from 2 to 65534"),
        ({"kernel_size": 20, "batch_size": 20}, "batch_size is 20, expected more than the kernel_size of 20"),
        ({"batch_size": 200.5}, "batch_size is 200.5, expected a whole number"),
    ],
)
def test_keywords_out_of_range_are_refused(kwargs: dict[str, Any], message: str, tmp_path: pathlib.Path) -> None:
    """A value that makes no sense is named before any file is touched."""
    with pytest.raises(MethodError, match=message):
        BackgroundRollMed(np.zeros((300, 4, 5), np.uint8), tmp_path / "out.rtdc", **kwargs)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "mapping",
    [
        None,
        slice(0, 60),
        slice(3, None, 2),
        slice(0, None, 17),
        [5, 4, 3, 90, 90, 0, 119],
        [119],
        [0, 1, 2, 5, 50, 51],
        [7, 7, 9],
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", [1, 7, 200])
def test_images_computed_where_they_are_needed_equal_those_of_the_class(
    mapping: Any, batch: int, make_measurement: Make, tmp_path: pathlib.Path
) -> None:
    """Whatever frames are asked for, in whatever batches, each has the image that the class writes for it."""
    source = make_measurement(count=120, shape=(24, 40), seed=7)
    with BackgroundRollMed(source, tmp_path / "out.rtdc", kernel_size=20, batch_size=50) as background:
        background.process()
    with HDF5Data(tmp_path / "out.rtdc", index_mapping=mapping) as result, HDF5Data(source) as data:
        assert result.image_bg is not None
        recipe = RollingMedianSource(FrameSource.of(data.check_frames()), 20, result.index_mapping)
        out = np.zeros(result.image_bg.shape, np.uint8)
        with contextlib.closing(recipe.open()) as reader:
            for start in range(0, len(out), batch):
                stop = min(start + batch, len(out))
                reader.read_into(start, stop, out[start:stop])
            assert reader.bytes_read > 0
        np.testing.assert_array_equal(out, result.image_bg[:])
