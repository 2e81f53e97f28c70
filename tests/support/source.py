"""The package's own source, as the tests read it."""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

import dcnumd

PACKAGE = pathlib.Path(dcnumd.__file__).parent


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield the syntax of each module of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield str(path.relative_to(PACKAGE)), ast.parse(path.read_text("utf-8"))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield all functions of a module."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def called(node: ast.Call) -> str:
    """Return the last name of what is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def texts(node: ast.expr) -> Iterator[str]:
    """Yield the texts that an expression may be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
    elif isinstance(node, ast.Call) and called(node) == "get" and len(node.args) == 2:
        yield from texts(node.args[1])


def assigned(tree: ast.AST, suffix: str) -> Iterator[str]:
    """Yield the texts that are given to variables whose name ends like that."""
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id.endswith(suffix) for target in targets):
            yield from texts(node.value)
