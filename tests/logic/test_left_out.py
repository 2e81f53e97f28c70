"""No sound measurement is refused for what nobody computes with: it is copied, or left out with a warning."""

from __future__ import annotations

import json
import pathlib

import h5py
import hdf5plugin  # noqa: F401 -- registers the Zstandard filter
import numpy as np
import pytest

from dcnumd.errors import MeasurementError
from dcnumd.logic.inspect import inspect_measurement
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.process import engine, process_measurement
from dcnumd.read.hdf5_data import HDF5Data
from dcnumd.write.log_lines import unfold
from tests.support.daemon import draw_measurement

pytestmark = pytest.mark.slow

FRAMES = 20


@pytest.fixture(scope="module", autouse=True)
def stop_workers():
    """End the engine's workers after the last test of this module."""
    yield
    engine.close()


ATTRIBUTES = {
    "null text": h5py.Empty("S1"),
    "null number": h5py.Empty("f4"),
    "no elements": np.array([]),
    "no elements of text": np.array([], "S3"),
    "complex number": 1 + 2j,
    "compound": np.array((1, 2.0), "i4,f8"),
    "boolean": np.True_,
    "list of texts": np.array(["a", "b"], h5py.string_dtype()),
}
FEATURES = {
    "userdef0": np.array([b"abc"] * FRAMES),
    "userdef1": np.arange(FRAMES) * 1j,
    "userdef2": np.arange(FRAMES, dtype="u1"),
}


def process(tmp_path, change, strategy="drain"):
    """Process a small measurement that was changed; return its result, and what the run's log warns of."""
    path = tmp_path / "M.rtdc"
    draw_measurement(path, frames=FRAMES)
    with h5py.File(path, "r+") as h5:
        h5["logs/run"] = np.array([b"line"])
        h5["tables/monitor"] = np.ones(5, [("a", "f8")])
        change(h5)
    result = process_measurement(Job(path, tmp_path / "M_dcn.rtdc", basin_strategy=strategy, num_workers=1))
    assert (result.outcome, result.frames) == ("done", FRAMES)
    with HDF5Data(result.path_out) as data:
        (log,) = (lines for name, lines in data.logs.items() if name.startswith("dcnumd-log-"))
    return path, result.path_out, [line for line in unfold(log) if "WARNING" in line]


def stored(h5, name):
    """Return values and attributes of an object, in a form that can be compared."""
    item = h5[name]
    values = () if isinstance(item, h5py.Group) else np.asarray(item[()]).tolist()
    return values, {key: repr(value) for key, value in item.attrs.items() if key != "software"}


@pytest.mark.parametrize("strategy", ["tap", "drain"])
def test_odd_parts_are_copied_as_they_are(strategy, tmp_path):
    """What HDF5 gives is taken over; nobody needs to understand it."""

    def change(h5):
        for item in (h5, h5["events/image"], h5["logs/run"], h5["tables/monitor"]):
            item.attrs.update({f"user:{name}": value for name, value in ATTRIBUTES.items()})
        h5.attrs["experiment:sample"] = h5py.Empty("S1")
        for name, values in FEATURES.items():
            h5[f"events/{name}"] = values
        h5["logs/one"] = "a text"
        h5["logs/odd"] = np.arange(3)
        h5["tables/odd"] = np.array([b"a", b"b"])

    path, result, warnings = process(tmp_path, change, strategy)
    assert not [line for line in warnings if "left out" in line]
    with h5py.File(path) as before, h5py.File(result) as after:
        for group in ("logs", "tables"):
            for name in before[group]:
                ours, theirs = stored(after, f"{group}/{name}"), stored(before, f"{group}/{name}")
                assert np.ravel(ours[0]).tolist() == np.ravel(theirs[0]).tolist()
                assert ours[1] == theirs[1]
        for key in ("experiment:sample", *(f"user:{name}" for name in ATTRIBUTES)):
            assert repr(after.attrs[key]) == repr(before.attrs[key])
        frames = after["events/basinmap0"][:]
        for name in FEATURES if strategy == "drain" else ():
            assert after[f"events/{name}"][:].tolist() == before[f"events/{name}"][:][frames].tolist()


def test_parts_that_cannot_be_taken_over_are_left_out_with_a_warning(tmp_path):
    """The measurement is processed, and the run's log says what its result lacks."""

    def change(h5):
        h5["events"].create_dataset("userdef0", (FRAMES,), h5py.string_dtype())
        h5["events/userdef1"] = np.zeros((FRAMES, 2))
        h5.attrs["user:reference"] = h5["events"].ref
        h5["tables/odd"] = np.array([h5["events"].ref], h5py.ref_dtype)

    _, result, warnings = process(tmp_path, change)
    for name in ("userdef0", "userdef1", "user:reference", "odd"):
        assert [line for line in warnings if name in line and "left out" in line]
        with h5py.File(result) as h5:
            assert name not in h5["events"]
            assert name not in h5.attrs
            assert name not in h5["tables"]


def test_log_of_many_short_lines_and_a_long_one_is_copied(tmp_path):
    """What is limited is what is stored, not the number of lines times the longest."""
    lines = [f"12:00:00 WARNING line {number:06d} ".ljust(60, "x") for number in range(60_000)] + ["y" * 5000]

    def add(h5):
        h5.create_dataset("logs/long", data=lines, dtype=h5py.string_dtype())

    _, result, warnings = process(tmp_path, add)
    assert [line for line in warnings if "logs/long" in line]
    with HDF5Data(result) as data:
        log = data.logs["long"]
    assert "".join(lines) in "".join(log)
    assert max(map(len, log)) <= 100
    assert result.stat().st_size < 10_000_000


REPLACED = {
    "text": np.array([b"x"] * FRAMES),
    "too few": np.zeros(FRAMES - 3),
    "none": np.zeros(0),
    "two for each frame": np.zeros((FRAMES, 2)),
}


@pytest.mark.parametrize("strategy", ["tap", "drain"])
@pytest.mark.parametrize("offset", REPLACED.values(), ids=REPLACED)
def test_offset_that_is_computed_anew_need_not_be_sound(offset, strategy, tmp_path):
    """The input's is left out with one warning; the result has the one of its own background."""
    _, result, warnings = process(tmp_path, lambda h5: h5["events"].__setitem__("bg_off", offset), strategy)
    assert len([line for line in warnings if "events/bg_off" in line and "left out" in line]) == 1
    with h5py.File(result) as h5:
        assert h5["events/bg_off"].dtype == np.float64
        assert len(h5["events/bg_off"]) == len(h5["events/area_um"])


@pytest.mark.parametrize(
    "settings",
    [
        {"background_code": "copy"},
        {"background_code": "rollmed", "background_kwargs": {"kernel_size": 4}},
        {"background_kwargs": {"offset_correction": False}},
    ],
)
@pytest.mark.parametrize("offset", [REPLACED["text"], REPLACED["too few"]], ids=["text", "too few"])
def test_offset_that_is_computed_with_must_be_sound(offset, settings, tmp_path):
    """Backgrounds without an offset of their own use the input's."""
    path = tmp_path / "M.rtdc"
    draw_measurement(path, frames=FRAMES)
    with h5py.File(path, "r+") as h5:
        h5["events/image_bg"] = h5["events/image"][:]
        h5["events/bg_off"] = offset
    job = Job(path, tmp_path / "M_dcn.rtdc", PipelineSettings(**settings), num_workers=1)
    with pytest.raises(MeasurementError, match="events/bg_off"):
        inspect_measurement(job)


@pytest.mark.parametrize("strategy", ["tap", "drain"])
@pytest.mark.parametrize("count", [FRAMES - 5, FRAMES + 5])
def test_user_defined_feature_of_another_length_is_left_out(count, strategy, tmp_path):
    """It says nothing of the recording, unlike what the instrument writes with each frame."""
    values = np.arange(float(count))
    _, result, warnings = process(tmp_path, lambda h5: h5["events"].__setitem__("userdef0", values), strategy)
    assert len([line for line in warnings if f"events/userdef0 has {count} values" in line]) == 1
    with HDF5Data(result) as data:
        assert "userdef0" not in data.keys()  # noqa: SIM118 -- also not promised by a basin
        assert not any("userdef0" in (basin.features or ()) for basin in data.basins)


@pytest.mark.parametrize("name", ["time", "frame", "temp", "pressure"])
def test_broken_off_recording_is_told(name, tmp_path):
    """What is written with each frame has to be as much as there are frames."""
    path = tmp_path / "M.rtdc"
    draw_measurement(path, frames=FRAMES)
    with h5py.File(path, "r+") as h5:
        h5["events"].pop(name, None)
        h5["events"][name] = np.arange(FRAMES - 1.0)
    with pytest.raises(MeasurementError, match=f"events/{name} has 19 values") as caught:
        inspect_measurement(Job(path, tmp_path / "M_dcn.rtdc", num_workers=1))
    assert caught.value.reason == "event_count"


@pytest.mark.parametrize("time", [True, False], ids=["with time", "without"])
def test_only_what_the_time_axis_comes_from_must_be_numbers(time, tmp_path):
    """Frame numbers that are text do no harm beside times, and are copied."""
    texts = np.array([b"x%d" % number for number in range(FRAMES)])

    def change(h5):
        for name in ("time", "frame"):
            h5["events"].pop(name, None)
        h5["events/frame"] = texts
        if time:
            h5["events/time"] = np.arange(FRAMES) / 10

    if time:
        _, result, _ = process(tmp_path, change)
        with h5py.File(result) as h5:
            assert h5["events/frame"][:].tolist() == texts[h5["events/basinmap0"][:]].tolist()
    else:
        with pytest.raises(
            MeasurementError, match=r"events/frame is \|S3 with 1 axes, expected a number for each frame"
        ):
            process(tmp_path, change)


NOWHERE = {
    "soft": h5py.SoftLink("/nowhere"),
    "file": h5py.ExternalLink("nothing.h5", "/x"),
    "object": h5py.ExternalLink("other.h5", "/x"),
    "itself": None,
}


def link(h5, name, target):
    """Put a link that leads nowhere in the place of a feature."""
    folder = pathlib.Path(h5.filename).parent
    h5py.File(folder / "other.h5", "w").close()
    h5["events"].pop(name, None)
    h5["events"][name] = target or h5py.SoftLink(f"/events/{name}")


@pytest.mark.parametrize("strategy", ["tap", "drain"])
@pytest.mark.parametrize("target", NOWHERE.values(), ids=NOWHERE)
def test_links_to_nothing_that_are_not_needed_are_left_out(target, strategy, tmp_path):
    """The measurement is processed, with one warning for each."""
    names = ("pressure", "userdef0", "unknown", "bg_off", "image_bg")

    def change(h5):
        for name in names:
            link(h5, name, target)
        h5["logs/odd"] = h5py.SoftLink("/nowhere")

    _, result, warnings = process(tmp_path, change, strategy)
    for name in names:
        assert len([line for line in warnings if name in line and "left out" in line]) == 1
    assert [line for line in warnings if "logs/odd is a link to nothing" in line]
    with HDF5Data(result) as data:
        assert not {"pressure", "userdef0", "unknown"}.intersection(data.keys())


@pytest.mark.parametrize("target", NOWHERE.values(), ids=NOWHERE)
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("image", {}),
        ("time", {}),
        ("frame", {}),
        ("image_bg", {"background_code": "copy"}),
        ("bg_off", {"background_kwargs": {"offset_correction": False}}),
    ],
)
def test_links_to_nothing_that_are_needed_are_damage(name, settings, target, tmp_path):
    """What would be computed with is missing."""
    path = tmp_path / "M.rtdc"
    draw_measurement(path, frames=FRAMES)
    with h5py.File(path, "r+") as h5:
        h5["events"].pop("time", None)
        link(h5, name, target)
    with pytest.raises(MeasurementError, match=name) as caught:
        process_measurement(Job(path, tmp_path / "M_dcn.rtdc", PipelineSettings(**settings), num_workers=1))
    assert caught.value.reason == "damaged"


def defined(**definition):
    return [json.dumps({"name": "x", "type": "file", "format": "hdf5", "features": ["image", "temp"], **definition})]


MISUNDERSTOOD = {
    "no JSON": ["not JSON"],
    "no lines": [],
    "no object": ["[1]"],
    "no paths": defined(paths=None),
    "list as mapping": defined(paths=["M.rtdc"], mapping=["basinmap0"]),
}


@pytest.mark.parametrize("strategy", ["tap", "drain"])
def test_basins_that_nobody_understands_are_left_out(strategy, tmp_path):
    """The images are in the file itself; one warning names each definition."""

    def change(h5):
        for name, lines in MISUNDERSTOOD.items():
            h5[f"basins/{name}"] = np.array(lines, "S200")

    _, _, warnings = process(tmp_path, change, strategy)
    for name in MISUNDERSTOOD:
        assert len([line for line in warnings if f"basins/{name} is not a basin definition" in line]) == 1


@pytest.mark.parametrize("needed", ["image", "image_bg"])
@pytest.mark.parametrize("lines", MISUNDERSTOOD.values(), ids=MISUNDERSTOOD)
def test_basin_that_nobody_understands_is_told_where_something_is_missing(lines, needed, tmp_path):
    """It may have been in there."""
    path = tmp_path / "M.rtdc"
    draw_measurement(path, frames=FRAMES)
    with h5py.File(path, "r+") as h5:
        h5["events"].pop(needed, None)
        h5["basins/odd"] = np.array(lines, "S200")
    job = Job(path, tmp_path / "M_dcn.rtdc", PipelineSettings(background_code="copy"), num_workers=1)
    with pytest.raises(MeasurementError, match="basins/odd is not a basin definition"):
        process_measurement(job)
