"""File systems for tests: small, read-only, or unmounted."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def mounted(folder: pathlib.Path, options: str, kind: str = "tmpfs") -> Iterator[pathlib.Path]:
    """Mount a file system on a folder, by default in memory; skip the test if mounting is not permitted."""
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
    """Unmount a folder, even if it is in use, until nothing is mounted on it."""
    while folder.is_mount():
        subprocess.run(["umount", "-l", folder], check=True)
