"""Reads the source of the package."""

from __future__ import annotations

import ast
import functools
import pathlib
from collections.abc import Iterator

import dcnumd

PACKAGE = pathlib.Path(dcnumd.__file__).parent


@functools.cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    """Return path and syntax tree of each module of the package."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return tuple((str(path.relative_to(PACKAGE)), ast.parse(path.read_text("utf-8"))) for path in paths)


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield all functions of a module."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def called(node: ast.Call) -> str:
    """Return the name of the function that is called, without its module or object."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def texts(node: ast.expr) -> Iterator[str]:
    """Yield the string constants that an expression may evaluate to."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
    elif isinstance(node, ast.Call) and called(node) == "get" and len(node.args) == 2:
        yield from texts(node.args[1])


def assigned(tree: ast.AST, suffix: str) -> Iterator[str]:
    """Yield the string constants that are assigned to variables whose name has this suffix."""
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id.endswith(suffix) for target in targets):
            yield from texts(node.value)
