"""The documented interface of `feat_background.base`, line by line, beside dcnum's module."""

from __future__ import annotations

import abc
import inspect
import logging
import multiprocessing
import pathlib
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import dcnum.feat.feat_background.base as theirs
import dcnum.feat.feat_background.bg_roll_median as theirs_rollmed
import dcnum.feat.feat_background.bg_sparse_median as theirs_sparsemed
import h5py
import numpy as np
import pytest

from dcnumd.errors import FramesError, MethodError
from dcnumd.feat.feat_background import base as ours
from dcnumd.feat.feat_background.bg_roll_median import BackgroundRollMed
from dcnumd.feat.feat_background.bg_sparse_median import BackgroundSparseMed
from dcnumd.processes.processors import physical_cores
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.write.writer import HDF5Writer
from tests.feat.feat_background.conftest import draw_frames, read_background
from tests.support.api import kind_of, parameters

Make = Callable[..., pathlib.Path]


class BackgroundNoted(ours.Background):
    """A method that keeps the progress it makes, and what it was given."""

    def check_user_kwargs(self, *, level: int = 3, name: str = "plain") -> None:
        self.checked = {"level": level, "name": name}

    def process_approach(self) -> None:
        self.progress = [self.get_progress()]
        for number in range(self.image_count):
            self.writer.store_feature_chunk("image_bg", np.full((1, *self.image_shape), self.kwargs["level"], np.uint8))
            self.image_proc.value = (number + 1) / self.image_count
            self.progress.append(self.get_progress())


def keywords(method: type[Any]) -> dict[str, Any]:
    """Return what a background can be called with, by name, and the defaults."""
    given = (*parameters(method), *parameters(method.check_user_kwargs))
    return {name: default for name, kind, default in given if kind is not inspect.Parameter.VAR_KEYWORD}


@pytest.mark.parametrize(
    "name",
    [
        "__init__",
        "__enter__",
        "__exit__",
        "get_ppid",
        "get_ppid_code",
        "get_ppid_from_ppkw",
        "get_ppkw_from_ppid",
        "get_progress",
        "process",
        "process_approach",
    ],
)
def test_methods_have_the_documented_parameters(name: str) -> None:
    """Names, kinds and defaults are dcnum's, and so is how they are called."""
    assert parameters(getattr(ours.Background, name)) == parameters(getattr(theirs.Background, name))
    assert kind_of(ours.Background, name) == kind_of(theirs.Background, name)


def test_class_is_abstract() -> None:
    """A method has to check its keywords and to compute."""
    assert ours.Background.__bases__ == (abc.ABC,)
    assert ours.Background.__abstractmethods__ == theirs.Background.__abstractmethods__
    assert parameters(ours.Background) == parameters(theirs.Background)
    assert parameters(ours.Background.check_user_kwargs) == [
        ("kwargs", inspect.Parameter.VAR_KEYWORD, inspect.Parameter.empty)
    ]
    with pytest.raises(TypeError, match="abstract"):
        ours.Background("in", "out")  # type: ignore[abstract]


def test_module_has_a_context_and_a_list_of_methods() -> None:
    """Both are those documented; what is built in has dcnum's names and keywords."""
    assert ours.mp_spawn is theirs.mp_spawn is multiprocessing.get_context("spawn")
    methods = ours.get_available_background_methods()
    assert parameters(ours.get_available_background_methods) == []
    assert isinstance(methods, dict)
    assert methods["noted"] is BackgroundNoted
    for code, method in (
        ("rollmed", theirs_rollmed.BackgroundRollMed),
        ("sparsemed", theirs_sparsemed.BackgroundSparseMed),
    ):
        assert keywords(methods[code]) == keywords(method)
        assert parameters(methods[code].check_user_kwargs) == parameters(method.check_user_kwargs)


def test_attributes_for_a_file(make_measurement: Make, tmp_path: pathlib.Path) -> None:
    """Each has the documented type, and what it says of the input is so."""
    source, output = make_measurement(count=5, shape=(8, 9)), tmp_path / "out.rtdc"
    with BackgroundNoted(input_data=source, output_path=output, compress=True, num_cpus=2, level=7) as background:
        assert isinstance(background.logger, logging.Logger)
        assert background.output_path == output
        assert background.kwargs == background.checked == {"level": 7, "name": "plain"}
        assert background.num_cpus == 2
        assert isinstance(background.hdin, HDF5Data)
        assert isinstance(background.h5in, h5py.File)
        assert isinstance(background.h5out, h5py.File)
        assert (background.h5in.filename, background.h5out.filename) == (str(source), str(output))
        assert background.paths_ref == [source]
        assert (background.image_shape, background.image_count) == ((8, 9), 5)
        assert isinstance(background.image_shape, tuple)
        assert isinstance(background.writer, HDF5Writer)
        assert background.writer.h5 is background.h5out
        with background.image_proc.get_lock():
            assert background.image_proc.value == 0
        assert background.get_ppid() == BackgroundNoted.get_ppid_from_ppkw({"level": 7}) == "noted:l=7^n=plain"
        background.process()
        assert background.progress == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
        assert background.get_progress() == 1
        assert isinstance(background.get_progress(), float)
        files = background.h5in, background.h5out
    assert not any(files), "both are closed"


def test_attributes_in_place_and_for_an_array(make_measurement: Make, tmp_path: pathlib.Path) -> None:
    """In place there is one file, with no reference to itself; an array has no file at all."""
    path = make_measurement(count=5, shape=(8, 9))
    link = tmp_path / "link.rtdc"
    link.symlink_to(path)
    with BackgroundNoted(str(path), link) as background:
        assert background.h5in is background.h5out
        assert background.paths_ref == []
        assert background.num_cpus == physical_cores()
        background.process()
    with h5py.File(path) as h5:
        assert (h5["events/image_bg"][:] == 3).all()
    for frames in (np.zeros((5, 8, 9)), list(np.zeros((5, 8, 9), int))):
        with BackgroundNoted(frames, tmp_path / "array.rtdc") as background:
            assert background.hdin is None
            assert background.h5in is None
            assert background.paths_ref == []
            assert (background.image_shape, background.image_count) == ((8, 9), 5)
            background.process()
            assert isinstance(background.h5out, h5py.File)
            assert background.h5out["events/image_bg"].shape == (5, 8, 9)


def test_errors_in_a_block_pass_through(tmp_path: pathlib.Path) -> None:
    """The output is closed all the same."""
    background = BackgroundNoted(np.zeros((5, 8, 9)), tmp_path / "out.rtdc")
    background.kwargs.clear()
    assert background.h5out
    with pytest.raises(KeyError), background as entered:
        entered.process()
    assert entered is background
    assert not background.h5out


def test_method_written_for_dcnum_works_here(tmp_path: pathlib.Path) -> None:
    """Its check of the keywords is static, and its writing goes through the documented attributes."""

    def check_user_kwargs(*, level: int = 4) -> None:
        assert level > 0

    def process_approach(self: Any) -> None:
        images = np.full_like(self.input_data[:], self.kwargs["level"])
        self.writer.store_feature_chunk("image_bg", images)
        with self.image_proc.get_lock():
            self.image_proc.value += len(images) / self.image_count

    stored = []
    for base in (theirs.Background, ours.Background):
        methods = {"check_user_kwargs": staticmethod(check_user_kwargs), "process_approach": process_approach}
        path = tmp_path / f"{base.__module__}.rtdc"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # dcnum's, since there is no file to refer to
            with type("BackgroundLevel", (base,), methods)(FRAMES, path, level=9) as background:
                background.process()
                assert background.get_progress() == 1
        stored.append(read_background(path))
        with pytest.raises(AssertionError):
            type("BackgroundLevel", (base,), methods)(FRAMES, path, level=-1)
    np.testing.assert_array_equal(stored[1].image_bg, stored[0].image_bg)
    assert stored[1].image_bg.max() == 9
    assert stored[1].attributes == stored[0].attributes


@pytest.mark.parametrize("compress", [False, True])
def test_images_are_compressed_if_asked_for(tmp_path: pathlib.Path, compress: bool) -> None:
    """The data are the same; without compression they are stored as they are."""
    with BackgroundNoted(np.zeros((5, 8, 9)), tmp_path / "out.rtdc", compress) as background:
        background.process()
    with h5py.File(tmp_path / "out.rtdc") as h5:
        filters = h5["events/image_bg"]._filters
        assert ("32015" in filters) == compress
        assert (h5["events/image_bg"][:] == 3).all()


def test_progress_stays_between_0_and_1(tmp_path: pathlib.Path) -> None:
    """Whatever a method writes there."""
    with BackgroundNoted(np.zeros((5, 8, 9)), tmp_path / "out.rtdc") as background:
        for value, progress in ((0.25, 0.25), (1.5, 1.0), (-1, 0.0)):
            background.image_proc.value = value
            assert background.get_progress() == progress


@pytest.mark.parametrize(
    "ppid", ["noted:l=5^n=other", "rollmed:k=20^b=300", "sparsemed:k=30^s=2^t=0^f=0.5^o=0", "copy:"]
)
def test_identifiers_are_read_and_written_again(ppid: str) -> None:
    """Any class reads those of all, and the class that is meant writes them."""
    code = ppid.partition(":")[0]
    method = ours.get_available_background_methods()[code]
    for reader in (ours.Background, BackgroundNoted, method):
        assert method.get_ppid_from_ppkw(reader.get_ppkw_from_ppid(ppid)) == ppid
    assert method.get_ppid_code() == code


def test_errors_of_identifiers() -> None:
    """They are errors of values, as in dcnum."""
    for background in (ours.Background, theirs.Background):
        with pytest.raises(ValueError, match="base class"):
            background.get_ppid_code()
        with pytest.raises(ValueError, match="median"):
            background.get_ppkw_from_ppid("median:k=3")
        with pytest.raises(ValueError, match="x"):
            background.get_ppkw_from_ppid("rollmed:x=3")
    with pytest.raises(MethodError, match="no keyword 'size'"):
        BackgroundNoted.get_ppid_from_ppkw({"size": 3})


FRAMES = draw_frames(60, (24, 30), 3)
INPUTS = {
    "float64": FRAMES + 0.3,
    "float32, of another order": np.asfortranarray(FRAMES.astype(np.float32) * np.float32(0.9)),
    "int16 with negative numbers": FRAMES.astype(np.int16) * 3 - 100,
    "uint16, big-endian, above 255": FRAMES.astype(">u2") * 300,
    "bool": FRAMES > 150,
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize(
    ("mine", "other", "kwargs"),
    [
        (BackgroundSparseMed, theirs_sparsemed.BackgroundSparseMed, {"kernel_size": 10, "split_time": 0.004}),
        (BackgroundRollMed, theirs_rollmed.BackgroundRollMed, {"kernel_size": 10, "batch_size": 40}),
    ],
)
def test_arrays_of_any_numbers_give_dcnums_background(
    tmp_path: pathlib.Path, name: str, mine: type, other: type, kwargs: dict[str, Any]
) -> None:
    """Images are made of numbers that are converted to uint8, offsets of the numbers as they are."""
    stored = []
    for method in (mine, other):
        path = tmp_path / f"{method.__module__}.rtdc"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # dcnum's, since there is no file to refer to
            with method(INPUTS[name], path, num_cpus=1, **kwargs) as background:
                background.process()
        stored.append(read_background(path))
    got, expected = stored
    assert got.image_bg.dtype == expected.image_bg.dtype == np.uint8
    np.testing.assert_array_equal(got.image_bg, expected.image_bg)
    if expected.bg_off is None:
        assert got.bg_off is None
    else:
        assert got.bg_off is not None
        assert got.bg_off.dtype == expected.bg_off.dtype
        np.testing.assert_array_equal(got.bg_off, expected.bg_off)
    assert got.attributes == expected.attributes


@pytest.mark.parametrize("compress", [False, True])
def test_what_behaves_like_an_image_stack_is_taken(tmp_path: pathlib.Path, compress: bool) -> None:
    """A dataset of an open file and a list of images give what the array gives."""
    images = []
    with h5py.File(tmp_path / "frames.h5", "w") as h5:
        dataset = h5.create_dataset("frames", data=FRAMES.astype(np.float32), chunks=(7, 24, 30))
        for number, frames in enumerate((FRAMES, dataset, list(FRAMES), FRAMES.tolist())):
            path = tmp_path / f"{number}.rtdc"
            with BackgroundRollMed(frames, path, kernel_size=10, compress=compress) as background:
                background.process()
            images.append(read_background(path).image_bg)
    for image_bg in images[1:]:
        np.testing.assert_array_equal(image_bg, images[0])


def test_error_of_frames_is_an_error_of_values() -> None:
    """It is so after a way between processes, too."""
    error = pickle.loads(pickle.dumps(FramesError("three of them", "too_few_frames")))  # noqa: S301 -- from this line
    assert isinstance(error, ValueError)
    assert (type(error), str(error), error.reason) == (FramesError, "three of them", "too_few_frames")
