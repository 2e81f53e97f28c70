"""Conversion of a method's keyword arguments to the text in a pipeline identifier, and back."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import pathlib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dcnumd.errors import MethodError

_UNKNOWN = inspect.Parameter.empty


@typing.runtime_checkable
class _NumpyScalar(typing.Protocol):  # Why not `numpy.generic`? This module must not import numpy; see `ppid`.
    def item(self) -> object: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Keyword:
    """One keyword argument of a method; the default is `inspect.Parameter.empty` if it is required."""

    name: str
    annotation: Any = _UNKNOWN
    default: Any = _UNKNOWN

    @property
    def types(self) -> tuple[Any, ...]:
        """Types that a value may have, from the annotation or else from the default; empty if neither tells."""
        annotation = self.annotation
        if annotation is _UNKNOWN or isinstance(annotation, str):
            known = self.default is not _UNKNOWN and self.default is not None
            return (type(self.default),) if known else ()
        if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
            return typing.get_args(annotation)
        return (annotation,)


def method_keywords(cls: type, method: str) -> tuple[Keyword, ...]:
    """Return the keyword-only arguments of a method, in order.

    Annotations that cannot be resolved, because they are imported for type checkers only, are left out; the type then
    comes from the default.
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
    """Return the defaults of the keyword-only arguments of a method, in order, without required arguments."""
    return {
        keyword.name: keyword.default for keyword in method_keywords(cls, method) if keyword.default is not _UNKNOWN
    }


def get_unique_prefix(names: Sequence[str]) -> list[str]:
    """Shorten each name to its shortest prefix with which no other name begins.

    A name that is itself the beginning of another one is not shortened.

    Raises
    ------
    ValueError
        If a name occurs twice.
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
    """Return keyword arguments as the text in a pipeline identifier.

    Parameters
    ----------
    cls
        Class of the method, for example a segmenter.
    method
        Name of the method whose keyword-only arguments are the keywords.
    kwargs
        Keyword arguments; missing ones have their defaults.

    Returns
    -------
    text
        ``key=value`` pairs joined by ``^``, without the code of the method.

    Raises
    ------
    MethodError
        If a keyword does not exist, a keyword without default is missing, or a value contains ``^`` or ``|``.
    """
    return format_keywords(method_keywords(cls, method), kwargs, f"{cls.__name__}.{method}")


TYPE_WORDS: dict[Any, str] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text", types.NoneType: "no value",
}  # fmt: skip
"""Types of values in words, for messages about the config."""


def check_section(section: str, cls: type, method: str, kwargs: Mapping[str, Any]) -> None:
    """Check names and types of the keyword arguments that a section of the config sets for a method.

    Parameters
    ----------
    section
        Name of the section for messages, such as ``pipeline.segmenter``.
    cls, method
        Class of the method, and name of the function that has the keywords.
    kwargs
        The keyword arguments.

    Raises
    ------
    MethodError
        If there is no such keyword, or a value has another type.
    """
    keywords = {keyword.name: keyword for keyword in method_keywords(cls, method)}
    for name in kwargs:
        if name not in keywords:
            close = difflib.get_close_matches(name, keywords, n=1, cutoff=0.5)
            known = ", ".join(keywords) or "none at all"
            advice = f"did you mean {section}.{close[0]}?" if close else f"allowed here are {known}"
            raise MethodError(f"{section}.{name}: unknown key; {advice}")
    for name, keyword in keywords.items():
        value = kwargs.get(name, keyword.default)
        if value is not _UNKNOWN and not _fits(value, keyword.types):
            expected = " or ".join(TYPE_WORDS.get(kind, getattr(kind, "__name__", str(kind))) for kind in keyword.types)
            raise MethodError(f"{section}.{name}: got {value!r}; {expected} is expected")


def _fits(value: object, kinds: tuple[Any, ...]) -> bool:
    """Return whether a value has one of these types; integers are accepted for floats, 0 and 1 for bool."""
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
    # Values of other than these simple types are checked by the method itself.
    judged = {bool, int, float, str, pathlib.Path, types.NoneType}
    return not kinds or value is None or not judged.issuperset(kinds) or bool(fitting.intersection(kinds))


def ppid_to_kwargs(cls: type, method: str, ppid: str) -> dict[str, Any]:
    """Return the keyword arguments from a text made by `kwargs_to_ppid`.

    Keys may be shorter or longer than the shortest unique prefix. An ambiguous key means the first keyword that
    matches, because new keywords are appended at the end of a signature. Missing keywords have their defaults.

    Parameters
    ----------
    cls, method
        As for `kwargs_to_ppid`.
    ppid
        ``key=value`` pairs joined by ``^``; may be empty.

    Raises
    ------
    MethodError
        If a key is unknown, or a value does not have the type of the keyword.
    """
    return parse_keywords(method_keywords(cls, method), ppid, f"{cls.__name__}.{method}")


def format_keywords(keywords: Sequence[Keyword], kwargs: Mapping[str, Any], where: str) -> str:
    """Return keyword arguments as text, like `kwargs_to_ppid`; `where` names the method in errors."""
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


def parse_keywords(keywords: Sequence[Keyword], text: str, where: str) -> dict[str, Any]:
    """Return keyword arguments from text, like `ppid_to_kwargs`; `where` names the method in errors."""
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
    """Return `text` as a value of one type; raise ValueError or SyntaxError if that is impossible."""
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
        number = float(text)  # The value of a keyword for int may be a fraction, which is kept.
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
