"""The short version of `python -m tests.parity.many`: measurements drawn at random have dcnum's results."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from tests.parity import many
from tests.parity.drawn import draw
from tests.support.compared import result_differences

pytestmark = pytest.mark.timeout(600)


@pytest.mark.slow
def test_random_measurements_equal_dcnum(tmp_path):
    """Whatever is stored in whichever way, and whatever is set: events, metadata and logs are the same."""
    tally = many.run(tmp_path, count=12, seed=2)
    assert tally.faults == []
    assert tally.compared >= 10
    assert tally.events


def test_equal_seeds_give_equal_measurements(tmp_path):
    """What is told of a seed can be repeated."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = (draw(tmp_path / name, 3) for name in ("one", "two"))
    assert one.settings == two.settings
    with h5py.File(one.path) as first, h5py.File(two.path) as second:
        assert (first["events/image"][:] == second["events/image"][:]).all()


def change_value(h5):
    h5["events/deform"][0] *= 1 + 1e-8


def change_attribute(h5):
    h5.attrs["experiment:sample"] = "another"


def change_log(h5):
    h5["logs/run"][0] = b"other"


def drop_table(h5):
    del h5["tables/monitor"]


@pytest.mark.parametrize("change", [change_value, change_attribute, change_log, drop_table])
def test_comparison_sees_a_difference(change, tmp_path):
    """Each kind of difference is told."""
    for name in ("one.rtdc", "two.rtdc"):
        with h5py.File(tmp_path / name, "w") as h5:
            h5["events/deform"] = np.linspace(0.1, 0.2, 5)
            h5["events/nevents"] = np.ones(5, int)
            h5["logs/run"] = np.array([b"lines"])
            h5["tables/monitor"] = np.ones(3, [("a", "f8")])
            h5.attrs.update({"experiment:sample": "beads", "experiment:event count": 5})
    assert result_differences(tmp_path / "one.rtdc", tmp_path / "two.rtdc") == []
    with h5py.File(tmp_path / "two.rtdc", "r+") as h5:
        change(h5)
    assert result_differences(tmp_path / "one.rtdc", tmp_path / "two.rtdc")
