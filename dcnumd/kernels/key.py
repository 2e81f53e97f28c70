"""Key of everything that compiled kernels depend on; it is part of the name of their folder.

It covers the content of every file that contains a kernel, the versions of the compiler, and the processor. Why not
numba's own index? It covers the file of the called function only, not those of the kernels that this function calls.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import re
import sys
from collections.abc import Iterator

PACKAGE = pathlib.Path(__file__).parents[1]
IMPORT_OF_DECORATOR = re.compile(rb"^\s*(from|import) dcnumd\.kernels\b.*\bdecorator\b", re.MULTILINE)


@functools.cache
def cache_key() -> str:
    """Return the key: a hash of everything that compiled code depends on (16 hexadecimal digits)."""
    digest = _digest_of_sources()
    versions = _versions()
    settings = [f"{key}={value}" for key, value in sorted(os.environ.items()) if key.startswith("NUMBA_")]
    settings = [setting for setting in settings if not setting.startswith(("NUMBA_CACHE_DIR=", "NUMBA_NUM_THREADS="))]
    for part in (*versions, *settings, str(sys.implementation.cache_tag), *_processor()):
        digest.update(f"{part}\n".encode())
    return digest.hexdigest()[:16]


@functools.cache
def code_key() -> str:
    """Return a hash of what determines the numbers that kernels compute, on any processor (16 hexadecimal digits)."""
    digest = _digest_of_sources()
    for part in _versions():
        digest.update(f"{part}\n".encode())
    return digest.hexdigest()[:16]


def _digest_of_sources() -> hashlib._Hash:
    digest = hashlib.sha256()
    for path, content in sources():
        digest.update(f"{path.relative_to(PACKAGE)} {len(content)}\n".encode())
        digest.update(content)
    return digest


def _versions() -> list[str]:
    return [f"{name} {importlib.metadata.version(name)}" for name in ("numba", "llvmlite", "numpy")]


def sources() -> Iterator[tuple[pathlib.Path, bytes]]:
    """Yield the files that determine what is compiled, with their content.

    These are all files that contain a kernel, wherever they are and whatever their name, the files of this package, and
    the module whose calls determine the types for which kernels are compiled.
    """
    always = {*(PACKAGE / "kernels").glob("*.py"), PACKAGE / "logic" / "warm_up.py"}
    for path in sorted(PACKAGE.rglob("*.py")):
        content = path.read_bytes()
        # A kernel cannot be declared without this import. Why not parse the files? That takes 0.5 s, searching 4 ms.
        if path in always or IMPORT_OF_DECORATOR.search(content):
            yield path, content


def _processor() -> list[str]:
    """Return the properties of the processor that the compiler uses; several computers may share a home folder."""
    facts = [platform.machine()]
    with contextlib.suppress(OSError), pathlib.Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if not line.strip():
                break
            if line.startswith(("model name", "flags", "Features", "CPU part")):
                facts.append(line)
    return facts
