"""Optional packages that some methods, or a cluster, need: whether they are installed, without importing them."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping

MINIMUM_VERSIONS: Mapping[str, tuple[int, int]] = {"torch": (2, 2), "openvino": (2024, 0), "distributed": (2026, 8)}
"""Oldest version of each optional package that works."""
EXTRAS: Mapping[str, str] = {"torch": "torch", "openvino": "openvino", "distributed": "dask"}
"""Extra in ``pyproject.toml`` of each of them."""


def lacking(package: str) -> str:
    """Return what is wrong with an optional package and how to install it; an empty text if it can be used.

    Parameters
    ----------
    package
        Name of the package, one of `MINIMUM_VERSIONS`.
    """
    minimum = MINIMUM_VERSIONS[package]
    wanted = f"{package} {'.'.join(map(str, minimum))} or newer"
    cure = f"pip install 'dcnumd[{EXTRAS[package]}]'"
    version = installed_version(package)
    if not version:
        return f"{wanted} is not installed: {cure}"
    # The parts of a version after the second one, such as "+cpu", do not matter.
    found = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    return "" if found >= minimum else f"{package} {version} is too old, {wanted} is needed: {cure}"


def installed_version(package: str) -> str:
    """Return the version of a package; an empty text if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
