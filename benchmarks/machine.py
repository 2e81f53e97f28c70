"""The computer that the numbers belong to."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
import sys
from typing import Any

PACKAGES = ("dcnumd", "dcnum", "numpy", "numba", "h5py", "hdf5plugin", "torch")


def describe_machine(workers: int) -> dict[str, Any]:
    """Return what decides how the numbers compare with others."""
    processor = re.search(r"model name\s*:\s*(.+)", pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return {
        "processor": processor[1] if processor else platform.machine(),
        "cores": os.cpu_count(),
        "workers": workers,
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: installed_version(name) for name in PACKAGES},
    }


def card_name() -> str:
    """Return the name of the graphics card that torch uses first."""
    code = "import torch; print(torch.cuda.get_device_name())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"there is no card for torch: {done.stderr.strip().rpartition(chr(10))[2]}")
    return done.stdout.strip()


def installed_version(name: str) -> str:
    """Return the version of a package, empty when it is not installed (the guard needs no dcnum)."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
