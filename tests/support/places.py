"""File systems of a test's own, which can be full, read-only or gone."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator

import pytest


class MountedFolder:
    """A folder with a file system in memory that outlives being unmounted from there; a context manager.

    Parameters
    ----------
    folder
        The folder; it must exist.
    store
        Where the file system stays mounted; it must exist.
    megabytes
        Its size.
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
        """Have the files appear in the folder."""
        _mount("--bind", self.store, self.folder)

    def unmount(self) -> None:
        """Have an empty folder there, as when a share goes away; what is open stays open."""
        _run("umount", "--lazy", self.folder)

    def remount(self, options: str) -> None:
        """Change the options of what is seen in the folder."""
        _mount("-o", f"remount,bind,{options}", self.folder)

    def resize(self, megabytes: float) -> None:
        """Change the size of the file system."""
        _mount("-o", f"remount,size={int(megabytes * 1024)}k", self.store)

    def fill(self) -> pathlib.Path:
        """Leave no room; return the file to remove for having some again."""
        ballast = self.store / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        return ballast


@contextlib.contextmanager
def mounted(folder: pathlib.Path, megabytes: float = 256.0) -> Iterator[MountedFolder]:
    """Mount a file system in memory on a folder, which is made if it is not there."""
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
    """Return whether this user may mount file systems here; containers often forbid it to root, too."""
    with tempfile.TemporaryDirectory() as name:
        place = pathlib.Path(name)
        try:
            _mount("-t", "tmpfs", "none", place)
        except (OSError, subprocess.CalledProcessError):
            return False
        _run("umount", place)
    return True


needs_mount = pytest.mark.skipif(not can_mount(), reason="file systems cannot be mounted here")
