"""The metadata of a model: what its file says of itself, checked before anything else relies on it.

This module imports only the standard library, so that the supervisor and the command line can read models.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, Literal

ModelFormat = Literal["TorchScript", "ExportedProgram"]
"""How the network is stored: as TorchScript, or as a program of `torch.export`."""

EAGER = "torch.eager"
"""Backend that runs an exported program as it is."""
JIT = "torch.jit"
"""Backend that runs TorchScript, and nothing else."""
INDUCTOR = "inductor"
"""Backend of `torch.compile` that makes machine code."""
OPENVINO = "openvino"
"""Backend that runs an exported program with the package of this name; others are those of `torch.compile`."""
MAX_SIDE = 2**14
"""Largest height and width of the frames of a model [px]."""
MAX_BATCH = 10_000
"""Largest number of frames that a model may require in a batch."""
MAX_TEXT = 10_000
"""Largest length of a text in the metadata [characters]."""
MAX_ITEMS = 1000
"""Largest number of rules, and of wiring options."""


@dataclasses.dataclass(frozen=True, slots=True)
class Wiring:
    """A way to run a model: the backend that computes, and the device on which it computes."""

    backend: str
    device: str


@dataclasses.dataclass(frozen=True, slots=True)
class Preprocessing:
    """What is done with frames before a network of version 1 gets them."""

    norm_mean: float | None
    """Subtracted from grey values between 0 and 1; None for no normalization."""
    norm_std: float | None
    """Divisor of the difference; None for no normalization."""
    image_shape: tuple[int, int] | None
    """Height and width to which frames are cropped and padded [px]; None for any."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """A condition that measurements must meet for the model."""

    kind: str
    """``meta`` for an attribute, ``logs`` for a log; other kinds refuse every measurement."""
    key: str
    """Name of the attribute (``section:key``) or of the log."""
    refusal: str
    """What is wrong with measurements that do not meet the condition."""
    may_be_missing: bool
    """Whether measurements without the attribute or log meet the condition."""
    pattern: str | None
    """Regular expression to search for; None for none."""
    negated: bool
    """Whether `pattern` must not be found."""
    value: tuple[float, ...] | None
    """Value, or values of an array, that the attribute must have within 1 %; None for any."""


@dataclasses.dataclass(frozen=True, slots=True)
class ModelMeta:
    """The metadata of a model, checked."""

    name: str
    identifier: str
    date: str
    description: str
    file_format: ModelFormat
    image_shape: tuple[int, int] | None
    """Height and width of the frames for which the model is made [px]; None if it does not say."""
    batch_size: int
    """Number of frames that the network needs in each batch; 0 for any."""
    wiring_options: tuple[Wiring, ...]
    """The ways to run the model, the best one first; may be empty."""
    preprocessing: Preprocessing | None
    """None for version 2, whose networks get frames as they are."""
    rules: tuple[Rule, ...]


def parse_meta(text: bytes, version: int) -> ModelMeta:
    """Return the metadata in a JSON text.

    Parameters
    ----------
    text
        Content of ``dcnum_meta.json``.
    version
        Version of the file format, 1 or 2.

    Raises
    ------
    ValueError
        Something is missing, has the wrong type or is absurd; the message says what.
    """
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"dcnum_meta.json is not valid JSON: {error}") from error
    if type(found) is not dict:
        raise ValueError(f"dcnum_meta.json contains {_kind(found)}, expected an object")
    preprocessing = _preprocessing(found) if version == 1 else None
    return ModelMeta(
        name=_text(found, "name"),
        identifier=_text(found, "identifier"),
        date=_text(found, "date"),
        description=_text(found, "description"),
        file_format="TorchScript" if version == 1 else _file_format(found),
        image_shape=preprocessing.image_shape if preprocessing else _shape(found, "image_shape"),
        batch_size=_whole(found, "batch_size", MAX_BATCH),
        wiring_options=_wiring_options(found, version),
        preprocessing=preprocessing,
        rules=tuple(_rule(item) for item in _items(found, "validation")),
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def _kind(value: object) -> str:
    words = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return words.get(type(value), "a number")


def _text(found: Mapping[str, Any], key: str, default: str = "") -> str:
    value = found.get(key, default)
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"{key} is {_kind(value)}, expected a text of at most {MAX_TEXT} characters")
    return value


def _items(found: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    items = found.get(key, [])
    if not isinstance(items, list) or len(items) > MAX_ITEMS or not all(isinstance(item, dict) for item in items):
        raise ValueError(f"{key} is not a list of at most {MAX_ITEMS} objects")
    return items


def _number(value: object, name: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # an integer may be too large for a float
    if not is_number or not abs(value) < 1e300:  # type: ignore[arg-type]  # it is a number
        raise ValueError(f"{name} is {_kind(value)} that cannot be used, expected a number")
    return value  # type: ignore[return-value]  # likewise


def _whole(found: Mapping[str, Any], key: str, largest: int) -> int:
    value = found.get(key) or 0
    if not isinstance(value, int) or not 0 <= value <= largest:
        raise ValueError(f"{key} is {_kind(value)} that cannot be used, expected a whole number from 0 to {largest}")
    return int(value)


def _shape(found: Mapping[str, Any], key: str) -> tuple[int, int] | None:
    sides = found.get(key)
    if sides is None:
        return None
    is_shape = isinstance(sides, list) and len(sides) == 2 and all(type(side) is int for side in sides)
    if not is_shape or not all(0 < side <= MAX_SIDE for side in sides):
        raise ValueError(f"{key} is not a list of height and width, each from 1 to {MAX_SIDE} pixels")
    return sides[0], sides[1]


def _preprocessing(found: Mapping[str, Any]) -> Preprocessing:
    given = found.get("preprocessing")
    if type(given) is not dict:
        raise ValueError("preprocessing is missing, or not an object")
    allowed = {"norm_mean", "norm_std", "image_shape"}
    if not {"norm_mean", "norm_std"} <= set(given) <= allowed:
        raise ValueError("preprocessing must have norm_mean and norm_std, may have image_shape, and nothing else")
    mean, std = (
        None if given[key] is None else _number(given[key], f"preprocessing.{key}") for key in ("norm_mean", "norm_std")
    )
    if std == 0:
        raise ValueError("preprocessing.norm_std is 0, expected a divisor")
    return Preprocessing(mean, std, _shape(given, "image_shape"))


def _file_format(found: Mapping[str, Any]) -> ModelFormat:
    given = found.get("model_file_format")
    if given == "TorchScript":
        return "TorchScript"
    if given == "ExportedProgram":
        return "ExportedProgram"
    stated = _text({"format": given}, "format") if given is not None else "missing"
    raise ValueError(f"model_file_format is {stated[:50]}, expected TorchScript or ExportedProgram")


def _wiring_options(found: Mapping[str, Any], version: int) -> tuple[Wiring, ...]:
    items = _items(found, "wiring_options")
    for item in items:
        if not item.get("backend") or not item.get("device"):
            raise ValueError("wiring_options has an item without backend or device")
    options = tuple(Wiring(_text(item, "backend"), _text(item, "device")) for item in items)
    if options or version == 2:
        return options
    return Wiring("torch.jit", "cpu"), Wiring("torch.jit", "cuda")


def _rule(item: Mapping[str, Any]) -> Rule:
    if not item.get("type") or not item.get("key"):
        raise ValueError("validation has an item without type or key")
    return Rule(
        kind=_text(item, "type"),
        key=_text(item, "key"),
        refusal=_text(item, "reason", "the model does not say why"),
        may_be_missing=_flag(item, "allow-missing-key"),
        pattern=_text(item, "regexp") if "regexp" in item else None,
        negated=_flag(item, "regexp-negate"),
        value=_values(item["value"]) if "value" in item else None,
    )


def _flag(item: Mapping[str, Any], key: str) -> bool:
    value = item.get(key, False)
    if type(value) is not bool:
        raise ValueError(f"validation: {key} is {_kind(value)}, expected true or false")
    return value


def _values(given: object) -> tuple[float, ...]:
    values = given if isinstance(given, list) else [given]
    if not 0 < len(values) <= MAX_ITEMS:
        raise ValueError(f"validation: value is a list of {len(values)} numbers, expected 1 to {MAX_ITEMS}")
    return tuple(math.nan if value is None else _number(value, "validation: value") for value in values)
