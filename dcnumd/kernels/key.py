"""What compiled kernels depend on, as a name for the folder that holds them.

It is the content of every file that holds a kernel, the versions of the compiler, and the processor. numba's own cache
looks at the file of the function that is called, and does not see a change in the kernels that this one calls.
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
    """Return what names the folder: a hash of everything that compiled code depends on."""
    digest = hashlib.sha256()
    for path, content in sources():
        digest.update(f"{path.relative_to(PACKAGE)} {len(content)}\n".encode())
        digest.update(content)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("numba", "llvmlite", "numpy")]
    settings = [f"{key}={value}" for key, value in sorted(os.environ.items()) if key.startswith("NUMBA_")]
    settings = [setting for setting in settings if not setting.startswith(("NUMBA_CACHE_DIR=", "NUMBA_NUM_THREADS="))]
    for part in (*versions, *settings, str(sys.implementation.cache_tag), *_processor()):
        digest.update(f"{part}\n".encode())
    return digest.hexdigest()[:16]


def sources() -> Iterator[tuple[pathlib.Path, bytes]]:
    """Yield the files that decide what is compiled, with their content.

    These are the files that hold a kernel, wherever they are and whatever their name, this room, and the calls that say
    for which types kernels are compiled.
    """
    always = {*(PACKAGE / "kernels").glob("*.py"), PACKAGE / "logic" / "warm_up.py"}
    for path in sorted(PACKAGE.rglob("*.py")):
        content = path.read_bytes()
        # a kernel cannot be declared without this import; searching takes 4 ms, parsing 0.5 s
        if path in always or IMPORT_OF_DECORATOR.search(content):
            yield path, content


def _processor() -> list[str]:
    """Return what the compiler asks about the processor, as a home folder may be shared by several computers."""
    facts = [platform.machine()]
    with contextlib.suppress(OSError), pathlib.Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if not line.strip():
                break
            if line.startswith(("model name", "flags", "Features", "CPU part")):
                facts.append(line)
    return facts
