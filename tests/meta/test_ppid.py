"""Pipeline identifiers, held against dcnum's."""

from __future__ import annotations

import pathlib
import random
import subprocess
import sys
import typing
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import h5py
import numpy as np
import pytest

from dcnumd.errors import ConfigError, MethodError
from dcnumd.meta import ppid

dcnum_ppid = pytest.importorskip("dcnum.meta.ppid")

NUMBER_OF_SETTINGS = 240


class SparseMedian:
    """The keywords of the method of that name."""

    @staticmethod
    def check(
        *,
        kernel_size: int = 200,
        split_time: float = 1.0,
        thresh_cleansing: float = 0,
        frac_cleansing: float = 0.8,
        offset_correction: bool = True,
    ) -> None:
        """Take keywords."""


class Threshold:
    """The keywords of the method of that name."""

    @staticmethod
    def segment(image: object, *, thresh: float = -6) -> None:
        """Take keywords."""

    @staticmethod
    def process_labels(
        labels: object, *, clear_border: bool = True, fill_holes: bool = True, closing_disk: int = 2
    ) -> None:
        """Take keywords."""


class ThirdParty:
    """A class as somebody else might write it."""

    @classmethod
    def get_ppid_code(cls) -> str:
        return "thirdparty"

    @staticmethod
    def annotated(
        *,
        kernel_size: int = 200,
        kern: float = 1.0,
        flag: bool = True,
        option: int | None = None,
        path: pathlib.Path = pathlib.Path("model.pt"),
        name: str = "x",
        either: int | float = 3,
    ) -> None:
        """Take keywords."""

    @staticmethod
    def bare(*, alpha=1, beta=2.5, gamma=True, delta=None, epsilon="x", zeta=(1, 2.0)) -> None:
        """Take keywords without annotations."""

    @staticmethod
    def demanding(*, alpha: int, mode: Literal["fast", "slow"] = "fast") -> None:
        """Take a keyword that has no default."""

    @staticmethod
    def unresolved(*, alpha: NotImported = 3) -> None:  # noqa: F821 -- as under `if TYPE_CHECKING`
        """Take a keyword whose annotation cannot be resolved."""


@pytest.fixture(scope="module")
def measurement(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return a small measurement for dcnum's job."""
    path = tmp_path_factory.mktemp("ppid") / "measurement.rtdc"
    with h5py.File(path, "w") as h5:
        h5["events/image"] = np.zeros((12, 20, 30), np.uint8)
        h5.attrs["imaging:pixel size"] = 0.34
        h5.attrs["experiment:event count"] = 12
    return path


def generate_settings(seed: int) -> Iterator[dict[str, Any]]:
    """Yield settings as keyword arguments of dcnum's job, some keywords left out."""
    rng = random.Random(seed)

    def some(**kwargs: Any) -> dict[str, Any]:
        return {key: value for key, value in kwargs.items() if rng.random() < 0.6}

    def number(low: float, high: float) -> float:
        value = rng.choice([rng.uniform(low, high), round(rng.uniform(low, high), 2), rng.randint(0, 9)])
        return value if rng.random() < 0.9 else float(round(value))

    for _ in range(NUMBER_OF_SETTINGS):
        background = rng.choice(["sparsemed", "rollmed", "copy"])
        start = rng.randrange(6)
        yield {
            "data_kwargs": {
                "pixel_size": rng.choice([0.2645, 0.34, 1, 1 / 3, rng.uniform(0.1, 2), 1e-7]),
                "index_mapping": rng.choice(
                    [
                        None,
                        rng.randint(1, 12),
                        slice(start, start + 5, rng.choice([None, 1, 3])),
                        sorted(rng.sample(range(12), rng.randint(1, 9))),
                    ]
                ),
            },
            "background_code": background,
            "background_kwargs": {
                "sparsemed": some(
                    kernel_size=rng.randint(1, 400),
                    split_time=number(0.1, 10),
                    thresh_cleansing=number(0, 3),
                    frac_cleansing=rng.choice([0.5, 1, 1.0, rng.random()]),
                    offset_correction=rng.random() < 0.5,
                ),
                "rollmed": some(kernel_size=2 * rng.randint(1, 100), batch_size=rng.randint(201, 99999)),
                "copy": {},
            }[background],
            "segmenter_code": "thresh",
            "segmenter_kwargs": {
                "thresh": -number(0, 20),
                "kwargs_mask": some(
                    clear_border=rng.random() < 0.5,
                    fill_holes=rng.random() < 0.5,
                    closing_disk=rng.randint(0, 7),
                ),
            },
            "feature_kwargs": some(
                brightness=rng.random() < 0.5, haralick=rng.random() < 0.5, volume=rng.random() < 0.5
            ),
            "gate_kwargs": some(online_gates=rng.random() < 0.5, size_thresh_mask=rng.choice([None, 0, 10, 35, 12.5])),
        }


def background_keywords(code: str) -> tuple[type, str]:
    """Return the class and method that stand for a background here."""

    class RollingMedian:
        @staticmethod
        def check(*, kernel_size: int = 100, batch_size: int = 10000) -> None: ...

    class Copy:
        @staticmethod
        def check() -> None: ...

    return {"sparsemed": SparseMedian, "rollmed": RollingMedian, "copy": Copy}[code], "check"


def identify(settings: dict[str, Any]) -> ppid.PipelineID:
    """Return our identifier of settings for dcnum's job."""
    code = settings["background_code"]
    segmenter = dict(settings["segmenter_kwargs"])
    mask = ppid.kwargs_to_ppid(Threshold, "process_labels", segmenter.pop("kwargs_mask"))
    return ppid.PipelineID(
        ppid.DCNUM_PPID_GENERATION,
        ppid.get_data_ppid(**settings["data_kwargs"]),
        f"{code}:{ppid.kwargs_to_ppid(*background_keywords(code), settings['background_kwargs'])}",
        f"thresh:{ppid.kwargs_to_ppid(Threshold, 'segment', segmenter)}:{mask}",
        ppid.feature_ppid(settings["feature_kwargs"]),
        ppid.gate_ppid(settings["gate_kwargs"]),
    )


@pytest.mark.timeout(100)
def test_identifier_and_hash_equal_dcnums(measurement: pathlib.Path) -> None:
    """For generated settings the identifier and its hash are those of dcnum's job."""
    from dcnum.logic import DCNumPipelineJob  # noqa: PLC0415 -- slow to import, needed once

    distinct = set()
    for settings in generate_settings(seed=1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            job = DCNumPipelineJob(path_in=measurement, **settings)
            expected, expected_hash = job.get_ppid(ret_hash=True)
        identifier = identify(settings)
        assert str(identifier) == expected
        assert identifier.hash == expected_hash
        distinct.add(expected)
    assert len(distinct) > 200


def test_identifier_parses_back_to_its_settings() -> None:
    """Every part of a generated identifier gives back the keywords it was made of."""
    for settings in generate_settings(seed=2):
        identifier = ppid.PipelineID.parse(str(identify(settings)))
        code, _, text = identifier.background.partition(":")
        background = ppid.ppid_to_kwargs(*background_keywords(code), text)
        assert background.items() >= settings["background_kwargs"].items()
        _, thresh, mask = identifier.segmenter.split(":")
        segmenter = settings["segmenter_kwargs"]
        assert ppid.ppid_to_kwargs(Threshold, "segment", thresh) == {"thresh": segmenter["thresh"]}
        parsed_mask = ppid.ppid_to_kwargs(Threshold, "process_labels", mask)
        assert parsed_mask.items() >= segmenter["kwargs_mask"].items()
        assert ppid.parse_feature_ppid(identifier.feature).items() >= settings["feature_kwargs"].items()
        gate = {k: 10 if v is None else v for k, v in settings["gate_kwargs"].items()}
        assert ppid.parse_gate_ppid(identifier.gate).items() >= gate.items()
        mapping = settings["data_kwargs"]["index_mapping"]
        if not isinstance(mapping, list):
            data = ppid.parse_data_ppid(identifier.data)
            assert data["index_mapping"] == mapping
            assert data["pixel_size"] == pytest.approx(settings["data_kwargs"]["pixel_size"], abs=5e-9)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"kernel_size": 100.7},
        {"kern": 2.0},
        {"kern": 1e-9},
        {"kern": 1e20},
        {"kern": 0.1 + 0.2},
        {"kern": -6.5},
        {"kern": -0.0},
        {"kern": None},
        {"kern": np.float32(0.1)},
        {"kernel_size": np.int64(3)},
        {"flag": False},
        {"flag": np.bool_(False)},
        {"option": 3.0},
        {"path": pathlib.Path(__file__)},
        {"path": str(pathlib.Path(__file__).parent)},
        {"path": "/nowhere/model.pt"},
        {"name": __file__},
        {"either": 3.5},
    ],
)
def test_values_are_written_as_dcnum_writes_them(kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers, flags, paths and None in a third-party method are written as dcnum writes them."""
    # dcnum does not understand annotations that are strings, as they are in this module
    monkeypatch.setattr(
        ThirdParty.annotated, "__annotations__", typing.get_type_hints(ThirdParty.annotated), raising=True
    )
    expected = dcnum_ppid.kwargs_to_ppid(ThirdParty, "annotated", kwargs)
    assert ppid.kwargs_to_ppid(ThirdParty, "annotated", kwargs) == expected


@pytest.mark.parametrize("seed", range(20))
def test_unique_prefixes_equal_dcnums(seed: int) -> None:
    """Names over a small alphabet are abbreviated as dcnum does."""
    rng = random.Random(seed)
    names = list({"".join(rng.choices("ab_", k=rng.randint(1, 6))) for _ in range(rng.randint(1, 8))})
    assert ppid.get_unique_prefix(names) == dcnum_ppid.get_unique_prefix(names)


def test_unique_prefix_of_repeated_names_is_refused() -> None:
    """Two equal names cannot be told apart."""
    with pytest.raises(ValueError, match="must differ"):
        ppid.get_unique_prefix(["same", "same"])


def test_keywords_without_annotations_get_their_type_from_the_default() -> None:
    """A method without annotations can be written and parsed back, where dcnum raises KeyError."""
    kwargs = {"alpha": 3, "beta": 0.5, "gamma": False, "delta": None, "epsilon": "y", "zeta": (3, 4.0)}
    text = ppid.kwargs_to_ppid(ThirdParty, "bare", kwargs)
    assert text == "a=3^b=0.5^g=0^d=None^e=y^z=(3, 4.0)"
    parsed = ppid.ppid_to_kwargs(ThirdParty, "bare", text)
    assert parsed == kwargs
    assert type(parsed["gamma"]) is bool
    assert ppid.ppid_to_kwargs(ThirdParty, "bare", "d=7")["delta"] == 7
    assert ppid.ppid_to_kwargs(ThirdParty, "unresolved", "a=4") == {"alpha": 4}


def test_keywords_without_default_are_part_of_the_identifier() -> None:
    """A keyword that must be given is written, parsed, and missed when it is not there."""
    assert ppid.kwargs_to_ppid(ThirdParty, "demanding", {"alpha": 2}) == "a=2^m=fast"
    parsed = ppid.ppid_to_kwargs(ThirdParty, "demanding", "a=2^m=slow")
    assert parsed == {"alpha": 2, "mode": "slow"}
    for call in (ppid.kwargs_to_ppid, ppid.ppid_to_kwargs):
        with pytest.raises(MethodError, match="alpha"):
            call(ThirdParty, "demanding", {} if call is ppid.kwargs_to_ppid else "")


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("k=30", "kernel_size", 30),
        ("kernel_=30", "kernel_size", 30),
        ("kern=30", "kern", 30.0),
        ("f=0", "flag", False),
        ("f=True", "flag", True),
        ("f=false", "flag", False),
        ("o=None", "option", None),
        ("option=5", "option", 5),
        ("kernel_size=100.7", "kernel_size", 100.7),
        ("kernel_size=1.0", "kernel_size", 1),
        ("p=model.pt", "path", pathlib.Path("model.pt")),
        ("n=a=b", "name", "a=b"),
        ("e=3.5", "either", 3.5),
        ("", "name", "x"),
    ],
)
def test_short_and_long_keys_parse(text: str, name: str, value: object) -> None:
    """A key may be cut anywhere; an exact name or abbreviation goes first; the rest has its default."""
    parsed = ppid.ppid_to_kwargs(ThirdParty, "annotated", text)
    assert parsed[name] == value
    assert type(parsed[name]) is type(value)
    defaults = ppid.ppid_to_kwargs(ThirdParty, "annotated", "")
    assert {key: parsed[key] for key in parsed if key != name} == {k: defaults[k] for k in defaults if k != name}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zzz=3", "unknown key 'zzz'"),
        ("flag", "expected key=value"),
        ("k=many", "expected int"),
        ("f=auto", "expected bool"),
        ("o=many", "expected int or NoneType"),
        ("=3", "unknown key ''"),
        ("n=1^n=2", "unknown key 'n'"),
    ],
)
def test_malformed_text_is_refused(text: str, message: str) -> None:
    """What does not fit is reported with the text and what was expected."""
    with pytest.raises(MethodError, match=message):
        ppid.ppid_to_kwargs(ThirdParty, "annotated", text)


def test_unknown_keywords_are_refused() -> None:
    """A keyword that the method does not have never vanishes from the identifier in silence."""
    with pytest.raises(MethodError, match="has no keyword 'bogus', expected one of thresh"):
        ppid.kwargs_to_ppid(Threshold, "segment", {"bogus": 1})
    with pytest.raises(MethodError, match="separate the parts"):
        ppid.kwargs_to_ppid(ThirdParty, "annotated", {"name": "a^b"})


@pytest.mark.parametrize("mapping", [0, -1, [], [-1], "5", 2.5])
def test_index_mapping_that_selects_nothing_is_refused(mapping: Any) -> None:
    """Numbers below one, empty lists and other kinds of values are no index mapping."""
    with pytest.raises(ConfigError, match="index mapping"):
        ppid.get_data_ppid(0.34, mapping)


def test_index_mapping_forms() -> None:
    """Open ends are written as n, arrays like lists, and only a hash cannot be parsed back."""
    assert ppid.get_data_ppid(0.34, slice(None, -1)) == "hdf:p=0.34^i=n--1-n"
    assert ppid.parse_data_ppid("hdf:p=0.34^i=n--1-n")["index_mapping"] == slice(None, -1)
    assert ppid.get_data_ppid(1, np.array([5, 3])) == ppid.get_data_ppid(1, (5, 3)) == "hdf:p=1.^i=h-07c4c56e"
    assert ppid.get_data_ppid(1, np.int64(4)) == "hdf:p=1.^i=4"
    with pytest.raises(ConfigError, match="hash"):
        ppid.parse_data_ppid("hdf:p=1.^i=h-07c4c56e")
    with pytest.raises(ConfigError, match="not a number"):
        ppid.parse_data_ppid("hdf:p=big")
    with pytest.raises(ConfigError, match="unknown key"):
        ppid.parse_data_ppid("hdf:q=1")


def test_short_parts_parse() -> None:
    """Missing keys of the data, feature and gate parts are left out or have their default."""
    assert ppid.parse_data_ppid("hdf:i=5") == {"index_mapping": 5}
    assert ppid.parse_feature_ppid("legacy:h=0") == {"brightness": True, "haralick": False, "volume": True}
    assert ppid.parse_gate_ppid("norm:") == {"online_gates": False, "size_thresh_mask": 10}
    with pytest.raises(MethodError, match="does not begin with 'norm'"):
        ppid.parse_gate_ppid("legacy:h=0")


def test_pipeline_hash_equals_dcnums() -> None:
    """The hash of the parts is dcnum's; a text with other than six parts is no identifier."""
    parts = {"bg_id": "copy:", "seg_id": "thresh:t=-6", "feat_id": "a", "gate_id": "b", "dat_id": "c"}
    assert ppid.compute_pipeline_hash(**parts) == dcnum_ppid.compute_pipeline_hash(**parts)
    assert ppid.DCNUM_PPID_GENERATION == dcnum_ppid.DCNUM_PPID_GENERATION
    with pytest.raises(ConfigError, match="2 parts"):
        ppid.PipelineID.parse("13|hdf")


def test_identifiers_need_no_numerical_code() -> None:
    """Importing the module loads neither numpy nor h5py nor numba."""
    code = "import sys, dcnumd.meta.ppid; print(sorted({'numpy', 'h5py', 'numba'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
