"""Describes documented interfaces, to compare them with dcnum's classes of the same names."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    """Return name, kind and default of each parameter of a function except `self` and `cls`."""
    return [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in {"self", "cls"}
    ]


def kind_of(cls: type, name: str) -> str:
    """Return the kind of a class's attribute: property, staticmethod, classmethod, function or value."""
    attribute = inspect.getattr_static(cls, name)
    for kind in (property, staticmethod, classmethod):
        if isinstance(attribute, kind):
            return kind.__name__
    return "function" if callable(attribute) else "value"
