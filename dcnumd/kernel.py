"""The one way in which numerical kernels are compiled, and where the compiled code is kept.

numba notices when the file of a kernel changes, but not when a kernel that it calls does; compiled code that is out
of date may even corrupt memory. The cache therefore lies in a folder named after the content of all kernels and the
versions that made it: whatever changes, all is compiled anew, and several versions can be used side by side.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar, cast

import llvmlite
import numba
from numba.core import config

P = ParamSpec("P")
R = TypeVar("R")


def _kernel_files() -> list[pathlib.Path]:
    return [pathlib.Path(__file__), *sorted(pathlib.Path(__file__).parent.rglob("kernels*.py"))]


def cache_key() -> str:
    """Return what names the cache: a hash of all kernels and of the compiler's versions."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for path in _kernel_files():
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _candidates() -> Iterator[pathlib.Path]:
    """Yield folders that may hold the cache, the preferred one first."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        yield pathlib.Path(given)
        return
    with contextlib.suppress(RuntimeError):
        # no home folder: a service user may have none
        yield pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "dcnumd"
    yield pathlib.Path(tempfile.gettempdir()) / f"dcnumd-{os.getuid()}"


def find_cache_folder() -> pathlib.Path | None:
    """Return a folder for compiled code that is ours and can be written, None if there is none.

    Compiled code is trusted; a folder that another user could have prepared is not.
    """
    for candidate in _candidates():
        folder = candidate / f"kernels-{cache_key()}"
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_uid == os.getuid() and os.access(folder, os.W_OK):
                return folder
    return None


CACHE_FOLDER = find_cache_folder()
"""Where compiled kernels are kept; None compiles them at every start."""
if CACHE_FOLDER is not None:
    # numba reads it when a kernel is declared, that is, when a module with kernels is imported
    config.CACHE_DIR = str(CACHE_FOLDER)  # type: ignore[attr-defined]  # numba makes its settings at run time


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile `function` with numba: without the GIL, cached on disk, IEEE arithmetic kept."""
    compiled = numba.njit(nogil=True, cache=CACHE_FOLDER is not None, error_model="numpy")(function)
    return cast("Callable[P, R]", compiled)


def inline_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile like `kernel`, for a small function that belongs inside the loops of its callers."""
    compiled = numba.njit(nogil=True, cache=CACHE_FOLDER is not None, error_model="numpy", forceinline=True)(function)
    return cast("Callable[P, R]", compiled)
