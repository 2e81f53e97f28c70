"""File events of the kernel behind a file descriptor: where nothing happens, nothing runs, no thread and no timer."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator

MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE = 0x2, 0x4, 0x8, 0x40, 0x80, 0x100
DELETE, DELETE_SELF, MOVE_SELF = 0x200, 0x400, 0x800
OVERFLOW, IGNORED, ONLY_FOLDERS, IS_FOLDER = 0x4000, 0x8000, 0x0100_0000, 0x4000_0000
FOLLOWED = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | MOVE_SELF | ONLY_FOLDERS
"""What may make a file a complete measurement, or bring a folder; see inotify(7) for all names."""
DEPARTURES = DELETE | DELETE_SELF | MOVED_FROM | MOVED_TO | MOVE_SELF | ONLY_FOLDERS
"""What may take a file away, or put another one in its place."""
HEADER = struct.Struct("iIII")
"""An event begins with the number of its folder, what happened, a cookie, and the length of the name that follows."""
BUFFER_BYTES = 256 * 1024


class FolderEvents:
    """The changes in folders, each of which is named to `follow`; not in the folders inside of it.

    Parameters
    ----------
    followed
        Which changes, as a sum of the numbers of inotify(7).

    Raises
    ------
    OSError
        If the system has no more watches to give away.
    """

    def __init__(self, followed: int = FOLLOWED) -> None:
        self._followed = followed
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._folders: dict[int, str] = {}
        self._descriptor = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def follow(self, folder: str) -> None:
        """Hear of `folder` from now on, under this name; a folder that is followed already costs nothing.

        Raises
        ------
        OSError
            If it is not there or may not be read, or if the system's limit of watches is reached (ENOSPC).
        """
        number = self._checked(self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), self._followed))
        self._folders[number] = folder

    def leave(self, *folders: str) -> None:
        """Hear no longer of `folders` and of what is below them."""
        # One pass, however many they are: ten thousand folders may be renamed at once.
        heads = {folder.rstrip("/") for folder in folders}
        for number, path in list(self._folders.items()):
            if any(head in heads for head in _heads(path)):
                # A scan, in its thread, and an event may say so at the same time.
                self._folders.pop(number, None)
                # Where it is gone, the system has dropped it by itself.
                self._libc.inotify_rm_watch(self._descriptor, number)

    async def wait(self) -> None:
        """Wait until something has happened."""
        loop = asyncio.get_running_loop()
        happened = asyncio.Event()
        loop.add_reader(self._descriptor, happened.set)
        try:
            await happened.wait()
        finally:
            loop.remove_reader(self._descriptor)

    def changed(self) -> tuple[set[str], bool]:
        """Return the paths that have changed since the last call, and whether others may have been lost."""
        paths: set[str] = set()
        moved: set[str] = set()
        lost = False
        for number, mask, name in self._read():
            folder = self._folders.get(number)
            if mask & IGNORED:
                # A folder that is still followed here is gone, or another one has its name.
                gone = self._folders.pop(number, None) is not None
                lost = lost or gone
            elif mask & OVERFLOW:
                lost = True
            elif folder is None:
                # It was left; or it is being followed at this moment, and will be listed after that.
                continue
            elif mask & MOVE_SELF:
                # Whatever has its name now is to be followed instead; the folder around it may have told already.
                lost = lost or folder not in moved
            elif name and mask & MOVED_FROM:
                if mask & IS_FOLDER:
                    moved.add(f"{folder.rstrip('/')}/{name}")
            elif name:
                paths.add(f"{folder.rstrip('/')}/{name}")
        if moved:
            self.leave(*moved)
        return paths, lost

    def close(self) -> None:
        """Hear of nothing any more."""
        descriptor, self._descriptor = self._descriptor, -1
        # A scan that hangs may end later and go on following folders: not behind a number that means something else.
        os.close(descriptor)

    def _read(self) -> Iterator[tuple[int, int, str]]:
        """Yield the number of a folder, what happened in it, and to which name; to none if it is the folder itself."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._descriptor, BUFFER_BYTES)
        at = 0
        while at < len(data):
            number, mask, _, length = HEADER.unpack_from(data, at)
            at += HEADER.size + length
            yield number, mask, os.fsdecode(data[at - length : at].rstrip(b"\0"))

    @staticmethod
    def _checked(result: int) -> int:
        if result == -1:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


def _heads(path: str) -> Iterator[str]:
    """Yield a path and all paths above it."""
    while path:
        yield path
        path = path.rpartition("/")[0]
    yield path
