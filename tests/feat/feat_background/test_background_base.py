"""What every background does: identifiers, files, registry, progress."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest

from dcnumd.errors import FramesError, MeasurementError, MethodError
from dcnumd.feat.feat_background import base
from dcnumd.feat.feat_background.base import Background, get_available_background_methods, get_background
from dcnumd.feat.feat_background.bg_roll_median import BackgroundRollMed
from dcnumd.feat.feat_background.bg_sparse_median import BackgroundSparseMed
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.write.writer import HDF5Writer

Make = Callable[..., pathlib.Path]


class BackgroundFirstFrame(Background):
    """A background as somebody else might write it: the first frame, brightened."""

    def check_user_kwargs(self, *, brightening: int = 0, mode="plain") -> None:
        if brightening < 0 or mode != "plain":
            raise MethodError("brightening must not be negative, mode must be plain")

    def process_approach(self) -> None:
        image = self.input_data[0] + np.uint8(self.kwargs["brightening"])
        for _ in range(self.image_count):
            self.writer.store_feature_chunk("image_bg", image[np.newaxis])
            self.image_proc.value += 1 / self.image_count


def test_methods_are_found_by_code() -> None:
    """The built-in methods are there, and an unknown one is answered with their names."""
    available = get_available_background_methods()
    assert {"copy", "rollmed", "sparsemed"} <= set(available)
    for code, method in available.items():
        assert method.get_ppid_code() == code
    assert get_background("rollmed") is BackgroundRollMed
    assert available["firstframe"] is BackgroundFirstFrame, "it is merely defined"
    with pytest.raises(MethodError, match=r"unknown background 'median', available are copy, .*rollmed, sparsemed"):
        get_background("median")


def test_methods_of_installed_packages_are_found(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package's entry point adds its method; one that is no background is refused."""
    (tmp_path / "their_module.py").write_text(
        "from dcnumd.feat.feat_background.bg_copy import BackgroundCopy\n"
        "class BackgroundTheirs(BackgroundCopy):\n    pass\n"
    )
    metadata = tmp_path / "theirs-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{base.ENTRY_POINT_GROUP}]\ntheirs = their_module:BackgroundTheirs\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert get_background("theirs").get_ppid_from_ppkw({}) == "theirs:"
    assert Background.get_ppkw_from_ppid("theirs:") == {}
    (metadata / "entry_points.txt").write_text(f"[{base.ENTRY_POINT_GROUP}]\ntheirs = pathlib:Path\n")
    with pytest.raises(MethodError, match="expected a subclass of Background"):
        get_available_background_methods()
    (metadata / "entry_points.txt").write_text(f"[{base.ENTRY_POINT_GROUP}]\ntheirs = no_such_module:Background\n")
    with pytest.raises(MethodError, match="cannot be loaded"):
        get_available_background_methods()


@pytest.mark.parametrize(
    ("text", "kwargs"),
    [
        ("rollmed:k=20", {"kernel_size": 20, "batch_size": 10000}),
        ("rollmed:kernel_size=20^batch=300", {"kernel_size": 20, "batch_size": 300}),
        ("copy:", {}),
        (
            "sparsemed:k=30^o=0",
            {
                "kernel_size": 30,
                "split_time": 1.0,
                "thresh_cleansing": 0,
                "frac_cleansing": 0.8,
                "offset_correction": False,
            },
        ),
    ],
)
def test_identifier_gives_keywords_of_any_method(text: str, kwargs: dict[str, Any]) -> None:
    """The code in an identifier tells the method whose keywords the rest stands for."""
    assert Background.get_ppkw_from_ppid(text) == kwargs
    method = get_background(text.partition(":")[0])
    assert method.get_ppkw_from_ppid(method.get_ppid_from_ppkw(kwargs)) == kwargs


def test_base_class_reads_identifiers_but_has_none() -> None:
    """The base class is no method."""
    text = "sparsemed:k=30^s=1^t=0^f=0.8^o=0"
    kwargs = Background.get_ppkw_from_ppid(text)
    assert get_background("sparsemed").get_ppid_from_ppkw(kwargs) == text
    with pytest.raises(ValueError, match="no method"):
        Background.get_ppid_from_ppkw(kwargs)


def test_third_party_method_in_a_new_file(make_measurement: Make, tmp_path: pathlib.Path) -> None:
    """A subclass with keywords of its own is documented, identified, run and marked like the built-in ones."""
    source, output = make_measurement(count=6, shape=(8, 9)), tmp_path / "Ärger mit Namen.rtdc"
    with BackgroundFirstFrame(str(source), str(output), num_cpus=1, brightening=3) as background:
        assert background.kwargs == {"brightening": 3, "mode": "plain"}
        assert background.get_ppid() == "firstframe:b=3^m=plain"
        assert background.get_progress() == 0
        assert (background.image_count, background.image_shape) == (6, (8, 9))
        assert background.output_path == output
        assert background.paths_ref == [source]
        assert background.h5in is not None
        assert background.h5in is not background.h5out
        background.process()
        assert background.get_progress() == 1
    with HDF5Data(output) as result, HDF5Data(source) as data:
        assert result.image_bg is not None
        assert data.image is not None
        assert result.image is not None
        np.testing.assert_array_equal(result.image_bg[5], data.image[0] + 3)
        np.testing.assert_array_equal(result.image[:], data.image[:])
        assert result.meta == data.meta
        assert result.image_bg.attrs["dcnum ppid background"] == "firstframe:b=3^m=plain"
        assert result.image_bg.attrs["dcnum ppid generation"] == "13"
    with pytest.raises(MethodError, match="has no keyword 'bogus', expected one of brightening, mode"):
        BackgroundFirstFrame(source, output, bogus=1)
    with pytest.raises(MethodError, match="must not be negative"):
        BackgroundFirstFrame(source, output, brightening=-1)
    with pytest.raises(MethodError, match="num_cpus is 0"):
        BackgroundFirstFrame(source, output, num_cpus=0)


def test_process_removes_the_older_background(make_measurement: Make, tmp_path: pathlib.Path) -> None:
    """Whatever background was in the file before, afterwards there is exactly one; other basins stay."""
    path = pathlib.Path(shutil.copy(make_measurement(count=60, shape=(24, 30)), tmp_path))
    with HDF5Writer(path) as writer:
        writer.store_basin("elsewhere", paths=["other.rtdc"], features=["deform", "image_bg"])
        writer.store_basin("only background", paths=["other.rtdc"], features=["image_bg"])
        writer.store_feature_chunk("bg_off", np.ones(60))
    for method, kwargs in (
        (BackgroundSparseMed, {"kernel_size": 10, "split_time": 0.004}),
        (BackgroundSparseMed, {"kernel_size": 60, "offset_correction": False}),
        (BackgroundRollMed, {"kernel_size": 10}),
        (BackgroundSparseMed, {"kernel_size": 20}),
    ):
        with method(path, path, **kwargs) as background:
            assert background.h5in is background.h5out
            background.process()
            expected = background.get_ppid()
        with h5py.File(path, "r") as h5:
            stored = [h5[name] for name in ("events/image_bg", "basin_events/image_bg") if name in h5]
            assert [image_bg.attrs["dcnum ppid background"] for image_bg in stored] == [expected]
            assert ("bg_off" in h5["events"]) == background.kwargs.get("offset_correction", False)
        with HDF5Data(path) as data:
            assert sorted(basin.kind for basin in data.basins) == sorted(
                ["file", "internal"] if method is BackgroundSparseMed else ["file"]
            )
            assert {"deform"} in [basin.features for basin in data.basins]
            mappings = [name for name in data.h5["events"] if name.startswith("basinmap")]
            assert len(mappings) == (method is BackgroundSparseMed)


@pytest.mark.parametrize("options", [{"compression": "gzip", "chunks": (5, 10, 15)}, {"compression": None}])
def test_layout_of_the_input_does_not_matter(
    options: dict[str, Any], make_measurement: Make, tmp_path: pathlib.Path
) -> None:
    """Frames that are packed otherwise, or not at all, give the same background."""
    images = []
    for number, packing in enumerate(({}, options)):
        source = make_measurement(count=60, shape=(24, 40), **packing)
        output = tmp_path / f"{number}.rtdc"
        with BackgroundSparseMed(source, output, kernel_size=10, split_time=0.004, compress=False) as background:
            background.process()
        with HDF5Data(output) as result:
            assert result.image_bg is not None
            images.append(result.image_bg[:])
    np.testing.assert_array_equal(images[0], images[1])


def test_input_without_frames_is_refused(make_measurement: Make, tmp_path: pathlib.Path) -> None:
    """No frames, no images, or frames of another type are an error with a reason; nothing is written."""
    output = tmp_path / "out.rtdc"
    for count, drop, reason in ((0, (), "no_frames"), (3, ("events/image",), "no_images")):
        with pytest.raises(MeasurementError) as caught:
            BackgroundSparseMed(make_measurement(count=count, drop=drop), output)
        assert caught.value.reason == reason
    for frames, reason, message in (
        (np.zeros((3, 4, 5), complex), "image_type", "frames are complex128 of shape .* expected numbers"),
        (np.zeros((3, 4), np.uint8), "image_type", r"with the axes \(frame, y, x\)"),
        ([], "image_type", r"of shape \(0,\)"),
        (np.zeros((0, 4, 5)), "no_frames", "no frames"),
    ):
        with pytest.raises(FramesError, match=message) as refused:
            BackgroundSparseMed(frames, output)
        assert refused.value.reason == reason
    assert not output.exists()
