"""What names the folder of compiled kernels."""

from __future__ import annotations

import ast
import pathlib
import shutil
import subprocess
import sys

import pytest

import dcnumd
from dcnumd.kernels.key import cache_key, sources

PACKAGE = pathlib.Path(dcnumd.__file__).parent


@pytest.fixture
def copy(tmp_path):
    """Return the folder of a copy of the package."""
    return shutil.copytree(PACKAGE, tmp_path / "dcnumd", ignore=shutil.ignore_patterns("__pycache__"))


def key_of(copy):
    """Return the key of the kernels in a copy of the package."""
    code = "from dcnumd.kernels import key; print(key.__file__, key.cache_key())"
    done = subprocess.run([sys.executable, "-c", code], cwd=copy.parent, capture_output=True, text=True, check=True)
    path, key = done.stdout.split()
    assert pathlib.Path(path).is_relative_to(copy)
    return key


def modules_imported(path):
    """Return the names of the modules from which a file imports something."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_changed_kernel_has_another_key(copy):
    """The key changes with any kernel and with how kernels are called, and with nothing else."""
    keys = [key_of(copy)]
    assert keys[0] == cache_key()
    for name in ("feat/kernels_volume.py", "kernels/decorator.py", "logic/warm_up.py"):
        with (copy / name).open("a") as file:
            file.write("\n")
        keys.append(key_of(copy))
    with (copy / "feat" / "events.py").open("a") as file:
        file.write("\n")
    assert key_of(copy) == keys[-1]
    assert len(set(keys)) == 4


@pytest.mark.parametrize(
    ("how", "name"),
    [
        ("from dcnumd.kernels.decorator import inline_kernel, kernel", "kernel"),
        ("from dcnumd.kernels import decorator", "decorator.kernel"),
        ("import dcnumd.kernels.decorator", "dcnumd.kernels.decorator.kernel"),
    ],
)
def test_added_kernel_has_another_key(copy, how, name):
    """A file that holds a kernel is seen in whatever folder it is, and under whatever name."""
    before = key_of(copy)
    added = copy / "logic" / "sums.py"
    added.write_text("def total(numbers):\n    return numbers.sum()\n")
    assert key_of(copy) == before
    added.write_text(f"{how}\n\n\n@{name}\ndef total(numbers):\n    return numbers.sum()\n")
    with_kernel = key_of(copy)
    added.write_text(added.read_text().replace("sum()", "mean()"))
    assert len({before, with_kernel, key_of(copy)}) == 3


def test_key_sees_every_kernel_and_its_constants():
    """A kernel has constants of other modules of ours compiled into it: the key sees all that it imports, too."""
    seen = {path for path, _ in sources()}
    with_kernels = [path for path in PACKAGE.rglob("*.py") if "dcnumd.kernels.decorator" in modules_imported(path)]
    assert len(with_kernels) > 10
    assert seen.issuperset(with_kernels)
    for path in with_kernels:
        files = [PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py") for name in modules_imported(path)]
        assert seen.issuperset(file for file in files if file.exists()), path
