"""The rules of models, compared with measurements."""

from __future__ import annotations

import re

import numpy as np
import pytest

from dcnumd.segm.segm_torch import applicability
from dcnumd.segm.segm_torch.applicability import refusals, search_all
from dcnumd.segm.segm_torch.model_file import read_model
from tests.support.models import G1, G2, describe, save_1

CHANNEL = {"setup:chip region": "channel"}
RIVERCYTE = {"setup:identifier": "RC-1", "setup:channel width": 20.0}


def with_rule(folder, **rule):
    """Return a model with one rule."""
    return read_model(save_1(folder, describe(validation=[{"reason": "not for it", **rule}])))


def test_rules_for_attributes(shared_model):
    model = read_model(shared_model(G1))
    assert refusals(model, 1, CHANNEL, {}) == []
    assert refusals(model, 1, {"setup:chip region": "reservoir"}, {}) == [
        "only experiments in channel region supported"
    ]
    assert refusals(model, 1, {}, {}) == ["'setup:chip region' is missing in meta"]


def test_rules_for_logs(shared_model):
    model = read_model(shared_model(G1))
    log = ["dear user", "the measurement failed", "good bye"]
    assert refusals(model, 1, CHANNEL, {"testing-fail": log}) == ["measurement failed according to the logs"]
    assert refusals(model, 1, CHANNEL, {"testing-fail": log[::2]}) == []
    # each line has a beginning and an end
    model = read_model(shared_model(G2))
    log = ["{", '  "date": "2024-05-07",', "}"]
    assert refusals(model, 1, RIVERCYTE, {"dclab-compress": log}) == ["must not be compressed 2024-05-07"]
    assert refusals(model, 1, RIVERCYTE, {"dclab-compress": ["x", *log[1:2], "y"]}) != []
    assert refusals(model, 1, RIVERCYTE, {"dclab-compress": ["".join(log)]}) == []


def test_all_reasons_together(shared_model):
    model = read_model(shared_model(G2))
    found = refusals(model, 2, {"setup:channel width": 30.0, "setup:identifier": "ZMD-1"}, {})
    assert found == [
        f"{G2}.dcnm is a model of version 1, and the segmenter needs version 2",
        "must be a Rivercyte data file",
        "channel width must be 20 micrometers",
    ]


@pytest.mark.parametrize(
    ("value", "fits"),
    [(20.0, True), (20, True), (19.81, True), (19.79, False), (20.2, True), (20.3, False), (np.float32(20), True),
     (-20, False), (0, False), (float("nan"), False), (float("inf"), False), ("20", False), (None, False),
     (np.array([20, 20.1]), True), (np.array([20, 30]), False), ([], False)],
)  # fmt: skip
def test_values_within_one_percent_of_the_measurement(tmp_path, value, fits):
    model = with_rule(tmp_path, type="meta", key="a", value=20)
    assert refusals(model, 1, {"a": value}, {}) == ([] if fits else ["not for it"])


def test_values_agree_with_numpy(tmp_path):
    """Dcnum compares with `numpy.allclose`."""
    random = np.random.default_rng(3)
    for _ in range(100):
        wanted = round(float(random.uniform(-3, 3)), 3)
        value = wanted * random.choice([0.985, 0.9905, 1, 1.0095, 1.011])
        model = with_rule(tmp_path, type="meta", key="a", value=wanted)
        assert (refusals(model, 1, {"a": value}, {}) == []) == np.allclose(wanted, value, atol=0, rtol=0.01)


def test_a_list_of_values(tmp_path):
    model = with_rule(tmp_path, type="meta", key="a", value=[20, 30])
    assert refusals(model, 1, {"a": np.array([20, 30])}, {}) == []
    assert refusals(model, 1, {"a": np.array([20, 20])}, {}) == ["not for it"]
    assert refusals(model, 1, {"a": np.array([20, 30, 40])}, {}) == ["not for it"]
    assert refusals(model, 1, {"a": 20}, {}) == ["not for it"]


def test_rules_that_cannot_be_met(tmp_path):
    model = with_rule(tmp_path, type="weather", key="a")
    assert refusals(model, 1, {}, {}) == [f"{model.file_name} has a rule of the unknown type 'weather'"]
    model = with_rule(tmp_path, type="meta", key="a", regexp="(")
    # the name of the error depends on the version of Python
    assert re.search(r"cannot be evaluated: \w+: missing \)", refusals(model, 1, {"a": "x"}, {})[0])
    # a number is no text
    model = with_rule(tmp_path, type="meta", key="a", regexp="2")
    assert refusals(model, 1, {"a": 2.0}, {}) == ["not for it"]


def test_rules_that_may_lack_their_key_and_texts_of_any_kind(tmp_path):
    model = with_rule(tmp_path, **{"type": "logs", "key": "a", "allow-missing-key": True, "regexp": "µm\n"})
    assert refusals(model, 1, {}, {}) == []
    assert refusals(model, 1, {}, {"a": ["20 µm", "\udcff"]}) == []
    assert refusals(model, 1, {}, {"a": []}) == ["not for it"]
    model = read_model(save_1(tmp_path, describe(validation=[{"type": "meta", "key": "b\x1b[2J"}])))
    assert refusals(model, 1, {}, {}) == ["'b\\x1b[2J' is missing in meta"]


@pytest.mark.parametrize("pattern", ["(a+)+$", "(.*,){25}P", "a{1,60000}{1,60000}x"])
def test_expressions_that_never_end_are_ended(pattern):
    text = "a" * 40 + "," * 60 + "!"
    found = search_all([("a.", text), (pattern, text), ("a.", text)])
    assert found[0] is True
    assert isinstance(found[1], str)


def test_expressions_are_given_up_on_a_busy_computer(monkeypatch):
    monkeypatch.setattr(applicability, "REGEXP_WALL_SECONDS", 0.0)
    assert search_all([("a.", "ab")]) == ["its regular expression takes more than 2 s"]
