"""Whatever kind of number an attribute is stored as, dcnumd computes with it what dcnum does."""

from __future__ import annotations

import functools
import shutil

import h5py
import numpy as np
import pytest

from benchmarks.compare import differences
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.process import process_measurement
from dcnumd.simulate.measurement import MeasurementSpec, write_measurement
from tests.parity.stored_kinds import FLOATS, TEXTS, WHOLE, store_number, store_text
from tests.support.parity import IN_THREADS, assert_equal_results, dcnum_arguments

FRAMES = 60
COMPUTED_WITH = {
    "imaging:frame rate": 100,
    "imaging:pixel size": 1,
    "online_contour:bin area min": 30,
    "online_filter:area_um min": 2,
    "online_filter:area_um max": 110,
    "online_filter:area_um soft limit": 0,
    "online_filter:deform max": 1,
    "online_filter:deform soft limit": 0,
    "online_filter:size_x min": 6,
    "online_filter:size_x soft limit": 0,
}
"""All attributes that numbers or events depend on, with values that are whole and fit into 8 bits."""
FRACTIONS = {"imaging:frame rate": 1000 / 3, "online_filter:area_um min": 20.1, "online_filter:deform max": 0.333}
"""Values that are another number in each kind of float."""
SETTINGS = {
    "gate_kwargs": {"online_gates": True},
    "background_kwargs": {"kernel_size": 10, "split_time": 0.05},
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Return a measurement whose times follow from its frame rate, and that has all attributes."""
    path = tmp_path_factory.mktemp("plain") / "M.rtdc"
    write_measurement(path, MeasurementSpec(size=(45, 100), frames=FRAMES, density=1.5, flicker=2.5, seed=4))
    with h5py.File(path, "r+") as h5:
        del h5["events/time"]
        h5["events/frame"][:] = np.arange(FRAMES) * 0.3
        h5.attrs.update(COMPUTED_WITH)
    return path


@pytest.fixture
def changed(plain, tmp_path):
    """Return a function that changes attributes and features of a copy of the measurement, and gives its path."""

    def change(store, features=()):
        path = tmp_path / "M.rtdc"
        shutil.copy(plain, path)
        with h5py.File(path, "r+") as h5:
            store(h5.attrs)
            for name in features:
                h5["events"].pop(name, None)
                h5["events"][name] = features[name]
        return path

    return change


@pytest.fixture(scope="module")
def reference(plain, oracle, tmp_path_factory):
    """Return a function that gives dcnum's result of the measurement as it is, made once for each settings."""
    folder = tmp_path_factory.mktemp("references")

    @functools.cache
    def find(**settings):
        path = folder / f"plain {settings}.rtdc"
        return oracle.process(plain, path, **dcnum_settings(plain, settings))

    return find


def dcnum_settings(path, settings):
    """Return what dcnum is told."""
    job = Job(path, path, PipelineSettings(**SETTINGS, **settings), basin_strategy="drain")
    return {**dcnum_arguments(job), **IN_THREADS}


def process(path, **settings):
    """Return dcnumd's result of a measurement."""
    job = Job(path, path.with_name("ours.rtdc"), PipelineSettings(**SETTINGS, **settings), basin_strategy="drain")
    return process_measurement(job)


@pytest.mark.parametrize("kind", [*FLOATS, *WHOLE, "bool"])
def test_numbers_of_a_kind_equal_dcnum(kind, changed, oracle, tmp_path):
    """All attributes and features of frames are of one kind, as far as dcnum takes it; for times see the background."""
    values, features = dict(COMPUTED_WITH), {}
    if kind != "bool":
        columns = {"frame": np.arange(FRAMES), "bg_off": np.arange(FRAMES) % 2, "temp": np.linspace(22, 24, FRAMES)}
        features = {name: column.astype(kind) for name, column in columns.items()}
    if kind in WHOLE:
        values["experiment:event count"] = FRAMES
    elif kind in FLOATS:
        values |= FRACTIONS
        # dcnum cannot write its log with a pixel size of the others
        values["imaging:pixel size"] = 0.3400000035762787 if kind.endswith("f8") else None
    else:
        values = {key: value for key, value in values.items() if value in {0, 1}}

    def store(attributes):
        for key, value in values.items():
            if value is not None:
                store_number(attributes, key, value, kind)

    settings = {"background_kwargs": {**SETTINGS["background_kwargs"], "offset_correction": kind == "bool"}}
    ours, _ = assert_equal_results(changed(store, features), tmp_path, oracle, **(SETTINGS | settings))
    with h5py.File(ours) as h5:
        assert h5.attrs["pipeline:dcnum yield"]


@pytest.mark.parametrize("key", list(COMPUTED_WITH))
def test_missing_number_equals_dcnum(key, changed, oracle, tmp_path):
    """Without an attribute, what dcnum takes instead is taken; one without a value counts as missing."""
    settings = {"pixel_size": 0.34} if key == "imaging:pixel size" else {}
    path = changed(lambda attributes: attributes.pop(key))
    ours, expected = assert_equal_results(path, tmp_path, oracle, **SETTINGS, **settings)
    ours.unlink()
    path = changed(lambda attributes: attributes.create(key, h5py.Empty("f8")))
    assert differences(process(path, **settings).path_out, expected) == []


@pytest.mark.parametrize("kind", TEXTS)
def test_numbers_as_text_count_as_these_numbers(kind, changed, reference):
    """Dcnum computes with numbers only."""

    def store(attributes):
        for key, value in COMPUTED_WITH.items():
            # a text is true for dcnum, whatever it says
            if not key.endswith("soft limit"):
                store_text(attributes, key, str(value), kind)

    result = process(changed(store))
    found = differences(result.path_out, reference())
    assert [line for line in found if not line.startswith("attribute imaging:frame rate")] == []
    assert result.events


@pytest.mark.parametrize("kind", ["f2", "f4", ">f4", *TEXTS])
def test_pixel_size_of_a_kind_that_dcnum_cannot_log(kind, changed, reference):
    """It is the one that dcnum computes with if it is told that number."""

    def store(attributes):
        if kind in TEXTS:
            store_text(attributes, "imaging:pixel size", "0.34", kind)
        else:
            store_number(attributes, "imaging:pixel size", 0.34, kind)

    number = 0.34 if kind in TEXTS else float(np.dtype(kind).type(0.34))
    result = process(changed(store))
    expected = reference(pixel_size=number)
    assert differences(result.path_out, expected) == []
    with h5py.File(expected, locking=False) as h5:
        assert result.pphash == h5.attrs["pipeline:dcnum hash"]
