"""File systems for tests that can be full, read-only or unmounted."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator

import pytest


class MountedFolder:
    """Context manager for a folder with a file system in memory that keeps its files while it is unmounted.

    Parameters
    ----------
    folder
        Folder to mount the file system on; it must exist.
    store
        Folder on which the file system stays mounted; it must exist.
    megabytes
        Size of the file system [MiB].
    """

    def __init__(self, folder: pathlib.Path, store: pathlib.Path, megabytes: float = 256.0) -> None:
        self.folder = folder
        self.store = store
        self._kilobytes = int(megabytes * 1024)

    def __enter__(self) -> MountedFolder:
        _mount("-t", "tmpfs", "-o", f"size={self._kilobytes}k", "none", self.store)
        self.mount()
        return self

    def __exit__(self, *_: object) -> None:
        for place in (self.folder, self.store):
            with contextlib.suppress(subprocess.CalledProcessError):
                _run("umount", "--lazy", place)

    def mount(self) -> None:
        """Mount the file system on the folder."""
        _mount("--bind", self.store, self.folder)

    def unmount(self) -> None:
        """Unmount it from the folder, as when a share is lost; open files stay open."""
        _run("umount", "--lazy", self.folder)

    def remount(self, options: str) -> None:
        """Change the mount options of the folder."""
        _mount("-o", f"remount,bind,{options}", self.folder)

    def resize(self, megabytes: float) -> None:
        """Change the size of the file system."""
        _mount("-o", f"remount,size={int(megabytes * 1024)}k", self.store)

    def fill(self, name: str = "ballast") -> pathlib.Path:
        """Fill the file system with a file, and return the file, whose removal frees the space."""
        ballast = self.store / name
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        return ballast


@contextlib.contextmanager
def mounted(folder: pathlib.Path, megabytes: float = 256.0) -> Iterator[MountedFolder]:
    """Mount a file system in memory on a folder, which is created if it does not exist."""
    store = folder.with_name(f"{folder.name} store")
    for place in (folder, store):
        place.mkdir(exist_ok=True)
    with MountedFolder(folder, store, megabytes) as place:
        yield place


def _mount(*arguments: str | pathlib.Path) -> None:
    _run("mount", *arguments)


def _run(*command: str | pathlib.Path) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)


def can_mount() -> bool:
    """Return whether this user may mount file systems; in containers, even root often may not."""
    with tempfile.TemporaryDirectory() as name:
        place = pathlib.Path(name)
        try:
            _mount("-t", "tmpfs", "none", place)
        except (OSError, subprocess.CalledProcessError):
            return False
        _run("umount", place)
    return True


needs_mount = pytest.mark.skipif(not can_mount(), reason="file systems cannot be mounted here")
