"""Methods that can be named in a configuration: our own, those of installed packages, and those that are defined."""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

from dcnumd.errors import MethodError


class Method(Protocol):
    """What a segmenter and a background have in common."""

    @classmethod
    def get_ppid_code(cls) -> str:
        """Return the name in configurations and pipeline identifiers."""


M = TypeVar("M", bound=Method)


def find_methods(group: str, base: type[M], built_in: Mapping[str, str]) -> dict[str, type[M]]:
    """Return all methods of a kind by their code.

    A class that is merely defined, with no entry point, is among them unless its code is taken; the last one counts.

    Parameters
    ----------
    group
        Entry point group under which packages offer theirs.
    base
        Class that each must be derived from.
    built_in
        Our own: code → ``module:class``; a package cannot take the place of one.

    Raises
    ------
    MethodError
        An entry point cannot be loaded or is not a subclass of `base`.
    """
    own = [importlib.metadata.EntryPoint(*item, group) for item in built_in.items()]
    found: dict[str, type[M]] = {}
    for entry in (*own, *importlib.metadata.entry_points(group=group)):
        method = _load(entry, base)
        found.setdefault(method.get_ppid_code(), method)
    return {method.get_ppid_code(): method for method in _defined(base)} | found


def _defined(base: type[M]) -> Iterator[type[M]]:
    """Yield all classes derived from `base` that can be used, also those derived from one another."""
    for method in base.__subclasses__():
        if not inspect.isabstract(method):
            yield method
        yield from _defined(method)


def get_method(code: str, kind: str, group: str, base: type[M], built_in: Mapping[str, str]) -> type[M]:
    """Return the method with the given code; `kind` is what it is called in messages.

    Raises
    ------
    MethodError
        There is none; the message names those that are there.
    """
    if code in built_in:
        return _load(importlib.metadata.EntryPoint(code, built_in[code], group), base)
    available = find_methods(group, base, built_in)
    if code not in available:
        raise MethodError(f"unknown {kind} {code!r}, available are {', '.join(sorted(available))}")
    return available[code]


def _load(entry: importlib.metadata.EntryPoint, base: type[M]) -> type[M]:
    try:
        method = entry.load()
    except (ImportError, AttributeError) as error:
        raise MethodError(
            f"entry point {entry.name!r} ({entry.value}) in group {entry.group} cannot be loaded: {error}"
        ) from error
    if not (isinstance(method, type) and issubclass(method, base)):
        raise MethodError(
            f"entry point {entry.name!r} in group {entry.group} is {method!r}, expected a subclass of {base.__name__}"
        )
    return method
