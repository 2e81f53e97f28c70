"""Pipeline identifiers: one line of text that describes how a result was computed.

An identifier has six parts, ``generation|data|background|segmenter|feature|gate``. Each part but the first is
the code of a method, a colon, and the method's keyword arguments, for example
``sparsemed:k=200^s=1^t=0^f=0.8^o=1``. Equal identifiers mean equal results, also across dcnum and dcnumd.

This module does not import numpy, so that the supervisor and the command line can read identifiers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import operator
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from dcnumd.errors import ConfigError, MethodError
from dcnumd.meta.keywords import (
    Keyword,
    format_keywords,
    get_unique_prefix,
    kwargs_to_ppid,
    parse_keywords,
    ppid_to_kwargs,
)

# get_unique_prefix, kwargs_to_ppid and ppid_to_kwargs are here as well because dcnum has them in this module.
__all__ = [
    "ATTRIBUTE_PREFIX",
    "DATA_CODE",
    "DCNUM_PPID_GENERATION",
    "DEFAULT_SIZE_THRESH_MASK",
    "FEATURE_CODE",
    "GATE_CODE",
    "PARTS",
    "PipelineID",
    "compute_pipeline_hash",
    "feature_ppid",
    "gate_ppid",
    "get_data_ppid",
    "get_unique_prefix",
    "kwargs_to_ppid",
    "parse_data_ppid",
    "parse_feature_ppid",
    "parse_gate_ppid",
    "ppid_to_kwargs",
]

DCNUM_PPID_GENERATION = "13"
"""Generation of the pipeline; it changes when the same settings give other results."""

FEATURE_CODE = "legacy"
GATE_CODE = "norm"
DATA_CODE = "hdf"
DEFAULT_SIZE_THRESH_MASK = 10
"""Default of the exclusive lower limit of the number of pixels in a mask."""
ATTRIBUTE_PREFIX = "pipeline:dcnum "
"""Prefix of the root attributes of a result that contain the parts of its identifier."""

_SLICE_PATTERN = re.compile(r"(n|-?\d+)-(n|-?\d+)-(n|-?\d+)")


FEATURE_KEYWORDS = (
    Keyword("brightness", bool, True),
    Keyword("haralick", bool, True),
    Keyword("volume", bool, True),
)
GATE_KEYWORDS = (
    Keyword("online_gates", bool, False),
    Keyword("size_thresh_mask", int, DEFAULT_SIZE_THRESH_MASK),
)


@dataclasses.dataclass(frozen=True, slots=True)
class PipelineID:
    """Identifier of a pipeline; `str` returns its text."""

    generation: str
    data: str
    background: str
    segmenter: str
    feature: str
    gate: str

    def __str__(self) -> str:
        return "|".join(dataclasses.astuple(self))

    @property
    def hash(self) -> str:
        """MD5 of the text, hexadecimal."""
        return hashlib.md5(str(self).encode(), usedforsecurity=False).hexdigest()

    def attributes(self, *names: str) -> dict[str, str]:
        """Return the root attributes of a result that contain the parts with these names, or all parts."""
        return {f"{ATTRIBUTE_PREFIX}{name}": getattr(self, name) for name in names or PARTS}

    def is_stated_in(self, attributes: Mapping[str, object], *names: str) -> bool:
        """Return whether root attributes contain the parts with these names, or all parts, with the values here."""
        return all(attributes.get(name) == part for name, part in self.attributes(*names).items())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the identifier with this text.

        Raises
        ------
        ConfigError
            If `text` does not have six parts.
        """
        parts = text.split("|")
        if len(parts) != len(dataclasses.fields(cls)) or not all(parts):
            raise ConfigError(
                f"pipeline identifier {text!r} has {len(parts)} parts, "
                "expected generation|data|background|segmenter|feature|gate"
            )
        return cls(*parts)


PARTS = tuple(field.name for field in dataclasses.fields(PipelineID))
"""Names of the parts of an identifier, in their order."""


def compute_pipeline_hash(
    *,
    bg_id: str,
    seg_id: str,
    feat_id: str,
    gate_id: str,
    dat_id: str = "unknown",
    gen_id: str = DCNUM_PPID_GENERATION,
) -> str:
    """Return the pipeline hash (MD5, hexadecimal) of the six parts of an identifier."""
    return PipelineID(gen_id, dat_id, bg_id, seg_id, feat_id, gate_id).hash


def feature_ppid(kwargs: Mapping[str, Any]) -> str:
    """Return the feature part of an identifier; the keywords are brightness, haralick and volume (bool)."""
    return f"{FEATURE_CODE}:{format_keywords(FEATURE_KEYWORDS, kwargs, 'feature extraction')}"


def parse_feature_ppid(ppid: str) -> dict[str, Any]:
    """Return the keyword arguments from the feature part of an identifier."""
    return parse_keywords(FEATURE_KEYWORDS, _strip_code(ppid, FEATURE_CODE), "feature extraction")


def gate_ppid(kwargs: Mapping[str, Any]) -> str:
    """Return the gate part of an identifier; the keywords are online_gates and size_thresh_mask (None means 10)."""
    given = dict(kwargs)
    if given.get("size_thresh_mask") is None:
        given["size_thresh_mask"] = DEFAULT_SIZE_THRESH_MASK
    return f"{GATE_CODE}:{format_keywords(GATE_KEYWORDS, given, 'gate')}"


def parse_gate_ppid(ppid: str) -> dict[str, Any]:
    """Return the keyword arguments from the gate part of an identifier."""
    return parse_keywords(GATE_KEYWORDS, _strip_code(ppid, GATE_CODE), "gate")


def get_data_ppid(pixel_size: float, index_mapping: int | slice | Sequence[int] | None = None) -> str:
    """Return the data part of an identifier.

    Parameters
    ----------
    pixel_size
        Pixel size [µm], rounded to eight decimals.
    index_mapping
        Selection of frames: None for all, a number for the first n, a slice, or indices (written as a hash).

    Raises
    ------
    ConfigError
        If the index mapping selects nothing or has another type.
    """
    return f"{DATA_CODE}:p={f'{pixel_size:.8f}'.rstrip('0')}^i={_format_index_mapping(index_mapping)}"


def _format_index_mapping(mapping: int | slice | Sequence[int] | None) -> str:
    if mapping is None:
        return "0"
    if isinstance(mapping, slice):
        return "-".join("n" if n is None else str(int(n)) for n in (mapping.start, mapping.stop, mapping.step))
    if isinstance(mapping, str) or not (hasattr(mapping, "__index__") or isinstance(mapping, Iterable)):
        raise ConfigError(f"index mapping is {mapping!r}, expected a number, a slice or indices")
    if isinstance(mapping, Iterable):
        return f"h-{_hash_indices(mapping)}"
    number = operator.index(mapping)
    if number < 1:
        raise ConfigError(f"index mapping selects the first {number} frames, expected at least 1")
    return str(number)


def _hash_indices(indices: Iterable[int]) -> str:
    values = indices.tolist() if hasattr(indices, "tolist") else [int(index) for index in indices]
    if not values or min(values) < 0 or max(values) >= 2**32:
        raise ConfigError("index mapping is empty or has an index outside 0 … 4294967295")
    packed = struct.pack(f"<{len(values)}I", *values)
    return hashlib.md5(packed, usedforsecurity=False).hexdigest()[:8]


def parse_data_ppid(ppid: str) -> dict[str, Any]:
    """Return ``pixel_size`` and ``index_mapping`` if the data part of an identifier contains them.

    Raises
    ------
    ConfigError
        If the index mapping is a hash, which cannot be reversed, or the text is malformed.
    """
    kwargs: dict[str, Any] = {}
    text = _strip_code(ppid, DATA_CODE)
    for pair in text.split("^") if text else ():
        key, _, value = pair.partition("=")
        try:
            if key and "pixel_size".startswith(key):
                kwargs["pixel_size"] = float(value)
            elif key and "index_mapping".startswith(key):
                kwargs["index_mapping"] = _parse_index_mapping(value)
            else:
                raise ConfigError(f"unknown key {key!r} in {ppid!r}, expected pixel_size or index_mapping")
        except ValueError as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{pair!r} in {ppid!r} is not a number") from None
    return kwargs


def _parse_index_mapping(text: str) -> int | slice | None:
    if text.startswith("h-"):
        raise ConfigError(f"index mapping {text!r} is a hash, the indices cannot be told from it")
    if match := _SLICE_PATTERN.fullmatch(text):
        return slice(*(None if part == "n" else int(part) for part in match.groups()))
    return int(text) or None


def _strip_code(ppid: str, code: str) -> str:
    head, separator, text = ppid.partition(":")
    if head != code or not separator:
        raise MethodError(f"identifier {ppid!r} does not begin with {code!r} and a colon")
    return text
