"""File systems of a test: small, read-only, or taken away."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def mounted(folder: pathlib.Path, options: str, kind: str = "tmpfs") -> Iterator[pathlib.Path]:
    """Mount a file system, by default one in memory, on a new folder; skip the test where that is forbidden."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", kind, "-o", options, kind, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        unmount(folder)


def unmount(folder: pathlib.Path) -> None:
    """Take a file system away, also one that is in use, as often as it is there."""
    while folder.is_mount():
        subprocess.run(["umount", "-l", folder], check=True)
