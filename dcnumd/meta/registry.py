"""Methods by their code: built-in methods, those of installed packages, and other defined subclasses."""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

from dcnumd.errors import MethodError


class Method(Protocol):
    """Common interface of segmenters and backgrounds."""

    @classmethod
    def get_ppid_code(cls) -> str:
        """Return the name in configurations and pipeline identifiers."""


M = TypeVar("M", bound=Method)


def find_methods(group: str, base: type[M], built_in: Mapping[str, str]) -> dict[str, type[M]]:
    """Return all methods of a kind by their code.

    Classes without an entry point are included unless their code is taken. If several of them have the same code, the
    one that was defined last is returned.

    Parameters
    ----------
    group
        Entry point group of the methods in installed packages.
    base
        Base class of the methods.
    built_in
        Built-in methods: code → ``module:class``. A package cannot replace them.

    Raises
    ------
    MethodError
        If an entry point cannot be loaded or is not a subclass of `base`.
    """
    own = [importlib.metadata.EntryPoint(*item, group) for item in built_in.items()]
    found: dict[str, type[M]] = {}
    for entry in (*own, *importlib.metadata.entry_points(group=group)):
        method = _load(entry, base)
        found.setdefault(method.get_ppid_code(), method)
    return {method.get_ppid_code(): method for method in _defined(base)} | found


def _defined(base: type[M]) -> Iterator[type[M]]:
    """Yield all subclasses of `base`, direct or indirect, that are not abstract."""
    for method in base.__subclasses__():
        if not inspect.isabstract(method):
            yield method
        yield from _defined(method)


def get_method(code: str, kind: str, group: str, base: type[M], built_in: Mapping[str, str]) -> type[M]:
    """Return the method with the given code; `kind` is the word for such methods in messages.

    Raises
    ------
    MethodError
        If there is no such method; the message lists the existing ones.
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
