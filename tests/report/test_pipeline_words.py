"""Pipeline IDs in words: every method and parameter of ours, and those of others as they are."""

from __future__ import annotations

import pytest

from dcnumd.feat.feat_background.base import BUILT_IN as BACKGROUNDS
from dcnumd.feat.feat_background.base import get_background
from dcnumd.meta.keywords import kwargs_to_ppid, method_keywords
from dcnumd.meta.ppid import feature_ppid, gate_ppid, get_data_ppid
from dcnumd.meta.registry import get_method
from dcnumd.report.pipeline_words import in_words, parts_in_words
from dcnumd.segm.segmenter import BUILT_IN as SEGMENTERS
from dcnumd.segm.segmenter import Segmenter


def ours():
    yield "data", get_data_ppid(0.2645), ["pixel_size", "index_mapping"]
    yield "feature", feature_ppid({}), ["brightness", "haralick", "volume"]
    yield "gate", gate_ppid({}), ["online_gates", "size_thresh_mask"]
    for code in BACKGROUNDS:
        method = get_background(code)
        names = [keyword.name for keyword in method_keywords(method, "check_user_kwargs")]
        yield "background", f"{code}:{kwargs_to_ppid(method, 'check_user_kwargs', {})}", names
    for code in SEGMENTERS:
        # also those that lack what they need on this computer
        method = get_method(code, "segmenter", "", Segmenter, SEGMENTERS)
        names = [k.name for part in ("segment_algorithm", "process_labels") for k in method_keywords(method, part)]
        texts = [kwargs_to_ppid(method, part, {}) for part in ("segment_algorithm", "process_labels")]
        yield "segmenter", f"{code}:{':'.join(texts)}", names


@pytest.mark.parametrize(("name", "code", "expected"), list(ours()))
def test_all_of_ours_is_known(name, code, expected):
    """A method or parameter that is added must be put into words, too."""
    part = in_words(name, code)
    assert "installed package" not in part.words
    assert "not part of" not in part.words
    assert [full for _, full, _, _ in part.parameters] == expected
    for key, full, value, words in part.parameters:
        assert full.startswith(key)
        assert f"{key}={value}" in code
        assert words.endswith(".")
        assert not words.startswith(f"{key} is"), "in words"


def test_values_are_told():
    part = in_words("background", "sparsemed:k=150^s=1^t=0^f=0.8^o=0")
    texts = [words for *_, words in part.parameters]
    assert "150 frames" in texts[0]
    assert "80 %" in texts[3]
    assert texts[4] == "Flicker is not corrected."


@pytest.mark.parametrize(
    ("frames", "expected"),
    [(16, "all 16 frames"), (199, "all 199 frames"), (200, "of 200 frames"), (None, "200 frames")],
)
def test_median_of_a_short_measurement_has_fewer_frames(frames, expected):
    part = parts_in_words({"pipeline:dcnum background": "sparsemed:k=200^s=1^t=0^f=0.8^o=1"}, frames)[0]
    assert expected in part.parameters[0][3]


@pytest.mark.parametrize(
    ("mapping", "expected"), [("0", "All"), ("500", "first 500"), ("n-9-2", ":9:2"), ("h-01234567", "01234567")]
)
def test_index_mappings(mapping, expected):
    assert expected in in_words("data", f"hdf:p=0.34^i={mapping}").parameters[1][3]


def test_longer_and_shorter_keys_are_known():
    part = in_words("segmenter", "thresh:thresh=-4:c=0^fill=1^closing_disk=3")
    assert [full for _, full, _, _ in part.parameters] == ["thresh", "clear_border", "fill_holes", "closing_disk"]


def test_methods_of_others_are_named_as_they_are():
    part = in_words("segmenter", "wow<b>:m=net.pt^x=3:cle=1^f=0^clo=2")
    assert part.method == "wow<b>"
    assert "'wow<b>'" in part.words
    assert part.parameters[:2] == (("m", "m", "net.pt", "m is net.pt."), ("x", "x", "3", "x is 3."))
    assert part.parameters[2][1] == "clear_border"


@pytest.mark.parametrize("code", ["", ":", "::", "^^=", "thresh:t", "x" * 10_000, "thresh:" + "a=1^" * 5000])
def test_nonsense_is_no_error(code):
    parts = parts_in_words({f"pipeline:dcnum {name}": code for name in ("data", "segmenter", "gate")})
    assert len(parts) == (3 if code else 0)
    assert all(len(part.code) <= 2000 and len(part.parameters) <= 50 for part in parts)


def test_model_is_told_with_what_the_log_of_the_result_knows():
    """The pipeline ID has only its file name, and the backend of some segmenters, which is not told twice."""
    meta = {"pipeline:dcnum segmenter": "torchuni:m=net_0a1b2.dcnm^b=torch.eager:cle=1^f=1^clo=0"}
    model = {
        "name": "Net",
        "date": "2026-11-29",
        "description": "Finds cells.",
        "md5": "0a1b2" + "0" * 27,
        "backend": "torch.eager",
        "device": "cpu",
        "unknown": "x",
    }
    (part,) = parts_in_words(meta, model=model)
    names = [name for _, name, _, _ in part.parameters]
    facts = ["model name", "model date", "model description", "model md5", "device"]
    assert names == ["model_file", *facts, "backend", "clear_border", "fill_holes", "closing_disk"]
    texts = [words for *_, words in part.parameters]
    assert texts[:3] == [
        "The model is the file net_0a1b2.dcnm.",
        'The model is called "Net".',
        "It was made on 2026-11-29.",
    ]
    assert "The MD5 of its file: 0a1b2" in texts[4]
    assert parts_in_words(meta)[0] == in_words("segmenter", meta["pipeline:dcnum segmenter"])
