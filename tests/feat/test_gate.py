"""The gate against dcnum's."""

from __future__ import annotations

import pathlib

import h5py
import numpy as np
import pytest
from dcnum.feat.gate import Gate as GateOfDcnum
from dcnum.read import HDF5Data
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcnumd.errors import MeasurementError
from dcnumd.feat.events import FEATURES
from dcnumd.feat.gate import Gate

PIXEL_SIZE = 0.2645


def gate_of_dcnum(folder: pathlib.Path, meta: dict[str, object], **kwargs: object) -> GateOfDcnum:
    """Let dcnum read its gate from a measurement with these attributes."""
    path = folder / "measurement.rtdc"
    with h5py.File(path, "w") as h5:
        h5["events/image"] = np.zeros((2, 8, 8), np.uint8)
        h5.require_group("logs")
        h5.attrs["imaging:pixel size"] = PIXEL_SIZE
        for key, value in meta.items():
            h5.attrs[key] = value
    with HDF5Data(path) as data:
        return GateOfDcnum(data, **kwargs)


def both_gates(folder: pathlib.Path, meta: dict[str, object], **kwargs: object) -> tuple[Gate, GateOfDcnum]:
    return Gate({"imaging:pixel size": PIXEL_SIZE, **meta}, **kwargs), gate_of_dcnum(folder, meta, **kwargs)


def limits(feature: str, lower: object = None, upper: object = None, soft: object = None) -> dict[str, object]:
    """Return the attributes of one online gate; None leaves an attribute out."""
    given_values = {"min": lower, "max": upper, "soft limit": soft}
    return {f"online_filter:{feature} {key}": value for key, value in given_values.items() if value is not None}


META = {
    "none": {},
    "hard": limits("area_um", 10.0, 30.0, soft=False),
    "minimum": limits("area_um", lower=10.0, soft=0),
    "maximum": limits("area_um", upper=30, soft=np.bool_(False)),
    "soft": limits("area_um", 10.0, 30.0, soft=True),
    "unsaid": limits("area_um", 10.0, 30.0),
    "text": limits("area_um", 10.0, 30.0, soft="False"),
    "zero": limits("tilt", 0.0, 0.0, soft=False),
    "reversed": limits("deform", 1.0, 0.0, soft=False),
    "infinite": limits("deform", -np.inf, np.inf, soft=False),
    "float32": limits("deform", np.float32(0.1), np.float32(0.3), soft=False),
    "integers": limits("area_um", np.uint16(10), 30, soft=np.int8(0)),
    "size": {**limits("size_x", 10.0, 30.0, soft=False), **limits("size_y", 0.1, 3.0, soft=False)},
    "several": {**limits("bright_avg", 80, 120, soft=False), **limits("deform", upper=0.3, soft=False)},
    "unrelated": {"online_filter:target duration": 10, "online_filter:target event count": 5},
    "pair": {"online_filter:area_um,deform soft limit": False},
    "contour": {"online_contour:bin area min": 25},
    "contour zero": {"online_contour:bin area min": 0},
}


@pytest.mark.parametrize("online_gates", [False, True])
@pytest.mark.parametrize("size_thresh_mask", [None, 0, 5, 40])
@pytest.mark.parametrize("meta", META.values(), ids=META)
def test_gate_of_measurement_equals_dcnum(
    tmp_path: pathlib.Path, meta: dict[str, object], size_thresh_mask: int | None, online_gates: bool
):
    """Limits and size threshold are dcnum's for whatever the measurement says."""
    gate, expected = both_gates(tmp_path, meta, online_gates=online_gates, size_thresh_mask=size_thresh_mask)
    boxes = {name: list(box) for name, box in gate.box_gates.items()}
    np.testing.assert_equal(boxes, {name: list(box) for name, box in expected.box_gates.items()})
    assert gate.features == expected.features
    assert gate.size_thresh_mask == expected.kwargs["size_thresh_mask"]
    mask = np.zeros((8, 8), bool)
    mask.flat[: gate.size_thresh_mask] = True
    assert not expected.gate_mask(mask)
    mask.flat[gate.size_thresh_mask] = True
    assert expected.gate_mask(mask)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(st.sampled_from([np.nan, -1.0, 0.0, 9.99, 10.0, 20.0, 30.0, 30.01, np.inf]), min_size=1),
    lower=st.sampled_from([None, 0.0, 10.0, 30.0]),
    upper=st.sampled_from([None, 0.0, 10.0, 30.0]),
)
def test_accept_values_at_and_beyond_limits_equals_dcnum(
    tmp_path: pathlib.Path, values: list[float], lower: float | None, upper: float | None
):
    """Limits are inclusive, and NaN passes none."""
    gate, expected = both_gates(tmp_path, limits("area_um", lower, upper, soft=False), online_gates=True)
    table = np.full((len(values), len(FEATURES)), 100.0)
    table[:, FEATURES.index("area_um")] = values
    accepted = gate.accept(table, FEATURES)
    if "area_um" in gate.features:
        assert accepted.tolist() == np.asarray(expected.gate_feature("area_um", np.array(values))).tolist()
    else:
        assert accepted.all()


def test_accept_narrow_event_goes():
    """With online gates an event is at least three pixels wide and high; exactly three will do."""
    gate = Gate({"imaging:pixel size": PIXEL_SIZE}, online_gates=True)
    table = np.array([[3, 3], [2, 9], [9, 2], [3, 9]]) * PIXEL_SIZE
    assert gate.accept(table, ["size_x", "size_y"]).tolist() == [True, False, False, True]
    assert Gate({}).accept(table, ["size_x", "size_y"]).all()


def test_gate_pixel_size_override_counts():
    """The pixel size in use decides what three pixels are, with 8 decimals as in the pipeline identifier."""
    gate = Gate({"imaging:pixel size": PIXEL_SIZE}, online_gates=True, pixel_size=0.5)
    assert gate.box_gates["size_x"] == (1.5, None)
    for size in (np.float32(0.34), 0.3400000035762787):
        assert Gate({"imaging:pixel size": size}, online_gates=True).box_gates["size_x"] == (3 * 0.34, None)


@pytest.mark.parametrize(
    ("kwargs", "ppid"),
    [
        ({}, "norm:o=0^s=10"),
        ({"online_gates": True}, "norm:o=1^s=10"),
        ({"size_thresh_mask": None}, "norm:o=0^s=10"),
        ({"size_thresh_mask": 25}, "norm:o=0^s=25"),
    ],
)
def test_get_ppid_shows_the_settings_as_given(kwargs: dict[str, object], ppid: str):
    """The identifier follows the settings, not what the measurement makes of them."""
    meta = {"imaging:pixel size": PIXEL_SIZE, "online_contour:bin area min": 60}
    assert Gate(meta, **kwargs).get_ppid() == ppid


@pytest.mark.parametrize(
    ("meta", "found"),
    [
        ({"online_filter:area_um,deform polygon points": np.zeros((3, 2))}, "polygon"),
        (limits("deform", "much", soft=False), "much"),
        ({"online_contour:bin area min": "few"}, "few"),
        ({"online_contour:bin area min": "1_0"}, "1_0"),
        (limits("deform", upper=np.nan, soft=False), "deform max, got nan"),
        ({"online_contour:bin area min": np.nan}, "bin area min, got nan"),
        ({"online_contour:bin area min": np.inf}, "bin area min, got inf"),
        ({"imaging:pixel size": None}, "pixel size"),
        ({"imaging:pixel size": np.nan}, "pixel size"),
        ({"imaging:pixel size": 0.0}, "pixel size"),
    ],
)
def test_gate_unusable_online_gates_are_refused(meta: dict[str, object], found: str):
    """What cannot be applied is an error of the measurement that names the attribute, and only if it is asked for."""
    attributes = {"imaging:pixel size": PIXEL_SIZE, **meta}
    with pytest.raises(MeasurementError, match=found) as caught:
        Gate(attributes, online_gates=True)
    assert caught.value.reason == "online_gates"
    assert "\n" not in str(caught.value)
    assert Gate(attributes).features == []


def test_accept_limit_on_feature_that_is_not_computed_is_refused():
    """A limit on a feature that is switched off is an error, not a gate left open."""
    gate = Gate({"imaging:pixel size": 1.0, **limits("bright_avg", 80.0, soft=False)}, online_gates=True)
    with pytest.raises(MeasurementError, match="bright_avg"):
        gate.accept(np.ones((1, 2)), ["size_x", "size_y"])
