"""The tables in the documents are those that their definitions make, and they are complete."""

from __future__ import annotations

import dataclasses
import pathlib
import tomllib
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from dcnumd.config.values import Settings
from dcnumd.feat.feat_background.base import get_available_background_methods
from dcnumd.meta.keywords import method_keywords
from dcnumd.segm.segm_thresh import SegmentThresh

TOP = pathlib.Path(__file__).parents[2]
tables = pytest.importorskip("docs.tables", reason="the documents are not part of an installation")


@pytest.mark.parametrize("name", tables.TABLES)
def test_the_tables_are_up_to_date(name):
    """Whoever changes a setting or an event calls `python -m docs.tables`."""
    page, content = tables.TABLES[name]
    text = (TOP / "docs" / page).read_text("utf-8")
    assert tables.filled(text, name, content()) == text, "python -m docs.tables brings it up to date"


def settings_of(kind: Any = Settings, prefix: str = "") -> Iterator[str]:
    """Yield each key that a config may have, but for keywords of methods."""
    for field in dataclasses.fields(kind):
        hint = typing.get_type_hints(kind)[field.name]
        if dataclasses.is_dataclass(hint) and "short" not in field.metadata:
            yield from settings_of(hint, f"{prefix}{field.name}.")
        elif field.metadata.get("path_pairs") or not (
            field.metadata.get("internal") or typing.get_origin(hint) is Mapping
        ):
            yield f"{prefix}{field.name}"


def test_every_setting_is_explained():
    """Each key has a comment in the sample that says in a sentence what it means, and nothing else is in the tables."""
    listed = {key.name: key for key in tables.sample_keys()}
    keywords = {name for name in listed if not tables.value(name)}
    assert {*listed} - keywords == set(settings_of())
    assert [key.name for key in listed.values() if not key.meaning.endswith(".")] == []


def test_keywords_of_methods_have_their_defaults():
    """The commented lines of the sample show every keyword of the usual methods, with the value that it has without."""
    sparsemed = get_available_background_methods()["sparsemed"]
    expected = {
        f"pipeline.background.{one.name}": one.default for one in method_keywords(sparsemed, "check_user_kwargs")
    }
    expected |= {
        f"pipeline.segmenter.{one.name}": one.default for one in method_keywords(SegmentThresh, "segment_algorithm")
    }
    # A config cannot contain None, so an empty text stands for it.
    expected |= {f"pipeline.segmenter.{name}": "" for name in ("model_file", "backend", "device")}
    expected |= {f"pipeline.segmenter.mask.{name}": value for name, value in SegmentThresh.mask_default_kwargs.items()}
    shown = {
        key.name: tomllib.loads(f"x = {key.default}")["x"] for key in tables.sample_keys() if not tables.value(key.name)
    }
    assert shown == expected
