"""Methods that can be named in a configuration: our own, and those of installed packages."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
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
    return found


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
