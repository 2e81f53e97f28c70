"""Pipeline identifiers: one line of text that says how a result was computed, and back again.

An identifier has six parts, ``generation|data|background|segmenter|feature|gate``. Each part but the first is
the code of a method, a colon, and the method's keyword arguments, for example
``sparsemed:k=200^s=1^t=0^f=0.8^o=1``. Equal identifiers mean equal results, also across dcnum and dcnumd.

Nothing here needs numpy, so that identifiers can be read where no numerical code is loaded.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import operator
import pathlib
import re
import struct
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from dcnumd.errors import ConfigError, MethodError

DCNUM_PPID_GENERATION = "13"
"""Generation of the pipeline; it changes when the same settings would give other results."""

FEATURE_CODE = "legacy"
GATE_CODE = "norm"
DATA_CODE = "hdf"
DEFAULT_SIZE_THRESH_MASK = 10
"""Smallest number of pixels in a mask (exclusive) when the gate leaves it open."""
ATTRIBUTE_PREFIX = "pipeline:dcnum "
"""The root attributes of a result that state the parts of its identifier begin like this."""

_SLICE_PATTERN = re.compile(r"(n|-?\d+)-(n|-?\d+)-(n|-?\d+)")
_UNKNOWN = inspect.Parameter.empty


@typing.runtime_checkable
class _NumpyScalar(typing.Protocol):
    def item(self) -> object: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Keyword:
    """One keyword argument of a method; the default is `inspect.Parameter.empty` when it must be given."""

    name: str
    annotation: Any = _UNKNOWN
    default: Any = _UNKNOWN

    @property
    def types(self) -> tuple[Any, ...]:
        """Types that a value may have, from the annotation or else from the default; maybe none."""
        annotation = self.annotation
        if annotation is _UNKNOWN or isinstance(annotation, str):
            known = self.default is not _UNKNOWN and self.default is not None
            return (type(self.default),) if known else ()
        if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
            return typing.get_args(annotation)
        return (annotation,)


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
    """The identifier of a whole pipeline; `str` gives its text."""

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
        """Return the root attributes in which a result states its parts: those with these names, or all six."""
        return {f"{ATTRIBUTE_PREFIX}{name}": getattr(self, name) for name in names or PARTS}

    def is_stated_in(self, attributes: Mapping[str, object], *names: str) -> bool:
        """Return whether root attributes state the parts with these names, or all six, as they are here."""
        return all(attributes.get(name) == part for name, part in self.attributes(*names).items())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the identifier that `text` spells out.

        Raises
        ------
        ConfigError
            `text` does not have six parts.
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


def method_keywords(cls: type, method: str) -> tuple[Keyword, ...]:
    """Return the keyword-only arguments of a method, in order.

    Annotations that cannot be resolved (imported for type checkers only) are left out, so that the type comes
    from the default.
    """
    function = getattr(cls, method)
    try:
        hints = typing.get_type_hints(function)
    except (NameError, AttributeError, TypeError):
        hints = getattr(function, "__annotations__", {})
    return tuple(
        Keyword(name, hints.get(name, _UNKNOWN), parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    )


def keyword_defaults(cls: type, method: str) -> dict[str, Any]:
    """Return the defaults of the keyword-only arguments of a method, in order; those without one are left out."""
    return {
        keyword.name: keyword.default for keyword in method_keywords(cls, method) if keyword.default is not _UNKNOWN
    }


def get_unique_prefix(names: Sequence[str]) -> list[str]:
    """Cut each name to its shortest prefix that none of the other names starts with.

    A name that is itself the beginning of another one stays whole.

    Raises
    ------
    ValueError
        A name occurs twice.
    """
    if len(set(names)) != len(names):
        raise ValueError(f"names must differ from each other, got {', '.join(names)}")
    prefixes = []
    for name in names:
        others = [other for other in names if other != name]
        lengths = range(1, len(name) + 1)
        free = (name[:n] for n in lengths if not any(other.startswith(name[:n]) for other in others))
        prefixes.append(next(free, name))
    return prefixes


def kwargs_to_ppid(cls: type, method: str, kwargs: Mapping[str, Any]) -> str:
    """Return keyword arguments as the text that stands for them in a pipeline identifier.

    Parameters
    ----------
    cls
        Class of the method, for example a segmenter.
    method
        Name of the method whose keyword-only arguments count.
    kwargs
        Given keyword arguments; the defaults fill what is missing.

    Returns
    -------
    text
        ``key=value`` pairs joined by ``^``, without the code of the method.

    Raises
    ------
    MethodError
        A keyword does not exist, a keyword without default is missing, or a value cannot be written.
    """
    return _format_keywords(method_keywords(cls, method), kwargs, f"{cls.__name__}.{method}")


def check_keyword_types(cls: type, method: str, kwargs: Mapping[str, Any]) -> None:
    """Make sure that keyword arguments of a method have the types that it declares.

    Raises
    ------
    MethodError
        One has not; the message names it, what it is and what was expected.
    """
    for keyword in method_keywords(cls, method):
        value = kwargs.get(keyword.name, keyword.default)
        if value is not _UNKNOWN and not _fits(value, keyword.types):
            expected = " or ".join(getattr(kind, "__name__", str(kind)) for kind in keyword.types)
            raise MethodError(f"{cls.__name__}: {keyword.name} is {value!r}, expected {expected}")


def _fits(value: object, kinds: tuple[Any, ...]) -> bool:
    """Return whether a value is of one of these types; whole numbers do for numbers, 0 and 1 for bool."""
    if isinstance(value, _NumpyScalar):
        value = value.item()
    if isinstance(value, bool):
        fitting: set[Any] = {bool}
    elif isinstance(value, int | float):
        whole = float(value).is_integer()
        fitting = {float, complex, *((int,) if whole else ()), *((bool,) if value in {0, 1} else ())}
    else:
        fitting = {type(value)}
        if isinstance(value, str | pathlib.Path):
            fitting |= {str, pathlib.Path}
    # what is not one of the simple types is for the method itself to judge
    judged = {bool, int, float, str, pathlib.Path, types.NoneType}
    return not kinds or value is None or not judged.issuperset(kinds) or bool(fitting.intersection(kinds))


def ppid_to_kwargs(cls: type, method: str, ppid: str) -> dict[str, Any]:
    """Return the keyword arguments that a text made by `kwargs_to_ppid` stands for.

    Keys may be shorter or longer than the shortest unique prefix; of several candidates the first one counts,
    because new keywords are appended at the end of a signature. Missing keys have their default.

    Parameters
    ----------
    cls, method
        As for `kwargs_to_ppid`.
    ppid
        ``key=value`` pairs joined by ``^``; may be empty.

    Raises
    ------
    MethodError
        A key is unknown, or a value does not fit the type of the keyword.
    """
    return _parse_keywords(method_keywords(cls, method), ppid, f"{cls.__name__}.{method}")


def _format_keywords(keywords: Sequence[Keyword], kwargs: Mapping[str, Any], where: str) -> str:
    names = [keyword.name for keyword in keywords]
    unknown = sorted(set(kwargs) - set(names))
    if unknown:
        raise MethodError(f"{where} has no keyword {unknown[0]!r}, expected one of {', '.join(names) or 'none at all'}")
    pairs = []
    for keyword, prefix in zip(keywords, get_unique_prefix(names), strict=True):
        value = kwargs.get(keyword.name, keyword.default)
        if value is _UNKNOWN:
            raise MethodError(f"{where} needs the keyword {keyword.name!r}, which has no default")
        pairs.append(f"{prefix}={_format_value(keyword, value, where)}")
    return "^".join(pairs)


def _format_value(keyword: Keyword, value: object, where: str) -> str:
    if isinstance(value, _NumpyScalar):
        value = value.item()
    if keyword.annotation is pathlib.Path and value is not None:
        path = pathlib.Path(str(value))
        value = path.name if path.exists() else value
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    text = str(value)
    if "^" in text or "|" in text:
        raise MethodError(
            f"{where}: {keyword.name}={text!r} contains ^ or |, which separate the parts of an identifier"
        )
    return text


def _parse_keywords(keywords: Sequence[Keyword], text: str, where: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for pair in text.split("^") if text else ():
        key, separator, value = pair.partition("=")
        if not separator:
            raise MethodError(f"{where}: got {pair!r} in {text!r}, expected key=value")
        keyword = _find_keyword(keywords, key, given)
        if keyword is None:
            names = ", ".join(keyword.name for keyword in keywords) or "none at all"
            raise MethodError(f"{where}: unknown key {key!r} in {text!r}, expected a prefix of one of {names}")
        given[keyword.name] = _parse_value(keyword, value, where)
    for keyword in keywords:
        if keyword.name not in given and keyword.default is _UNKNOWN:
            raise MethodError(f"{where}: {text!r} lacks the keyword {keyword.name!r}, which has no default")
    return {keyword.name: given.get(keyword.name, keyword.default) for keyword in keywords}


def _find_keyword(keywords: Sequence[Keyword], key: str, taken: Iterable[str]) -> Keyword | None:
    free = [keyword for keyword in keywords if keyword.name not in taken]
    prefixes = dict(zip(get_unique_prefix([k.name for k in keywords]), keywords, strict=True))
    exact = [k for k in free if key == k.name or prefixes.get(key) is k]
    return next((k for k in exact + free if key and k.name.startswith(key)), None)


def _parse_value(keyword: Keyword, text: str, where: str) -> object:
    kinds = keyword.types
    if text == "None" and (str not in kinds or types.NoneType in kinds):
        return None
    for kind in kinds:
        try:
            return _parse_as(kind, text)
        except (ValueError, SyntaxError):
            continue
    if not kinds:
        return _parse_untyped(text)
    expected = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
    raise MethodError(f"{where}: {keyword.name}={text} does not fit, expected {expected}")


def _parse_as(kind: object, text: str) -> object:
    """Return `text` as one type; raise ValueError or SyntaxError if it is not of that type."""
    if typing.get_origin(kind) is typing.Literal:
        choices = {str(choice): choice for choice in typing.get_args(kind)}
        if text not in choices:
            raise ValueError(f"{text} is none of {list(choices)}")
        return choices[text]
    if kind is bool:
        if text.lower() in {"true", "false"}:
            return text.lower() == "true"
        return bool(float(text))
    if kind is int:
        number = float(text)  # a keyword that asks for int may hold a fraction, which is then kept
        return number if not number.is_integer() else int(float(text)) if "." in text else int(text)
    if kind is float:
        return float(text)
    if kind is str:
        return text
    if isinstance(kind, type) and issubclass(kind, pathlib.PurePath):
        return kind(text)
    if kind is types.NoneType:
        raise ValueError("None was ruled out before")
    return _parse_untyped(text)


def _parse_untyped(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def feature_ppid(kwargs: Mapping[str, Any]) -> str:
    """Return the feature part of an identifier; keywords are brightness, haralick, volume (bool)."""
    return f"{FEATURE_CODE}:{_format_keywords(FEATURE_KEYWORDS, kwargs, 'feature extraction')}"


def parse_feature_ppid(ppid: str) -> dict[str, Any]:
    """Return the keywords that the feature part of an identifier stands for."""
    return _parse_keywords(FEATURE_KEYWORDS, _strip_code(ppid, FEATURE_CODE), "feature extraction")


def gate_ppid(kwargs: Mapping[str, Any]) -> str:
    """Return the gate part of an identifier; online_gates and size_thresh_mask (None counts as 10)."""
    given = dict(kwargs)
    if given.get("size_thresh_mask") is None:
        given["size_thresh_mask"] = DEFAULT_SIZE_THRESH_MASK
    return f"{GATE_CODE}:{_format_keywords(GATE_KEYWORDS, given, 'gate')}"


def parse_gate_ppid(ppid: str) -> dict[str, Any]:
    """Return the keywords that the gate part of an identifier stands for."""
    return _parse_keywords(GATE_KEYWORDS, _strip_code(ppid, GATE_CODE), "gate")


def get_data_ppid(pixel_size: float, index_mapping: int | slice | Sequence[int] | None = None) -> str:
    """Return the data part of an identifier.

    Parameters
    ----------
    pixel_size
        Pixel size [µm]; eight decimals count.
    index_mapping
        Which frames are used: None for all, a number for the first n, a slice, or indices (of which a hash is
        written).

    Raises
    ------
    ConfigError
        The index mapping selects nothing or is of another kind.
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
    """Return ``pixel_size`` and ``index_mapping``, as far as the data part of an identifier gives them.

    Raises
    ------
    ConfigError
        The index mapping is a hash, from which the indices cannot be told, or the text is malformed.
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
