"""Whether folders are there, mounted, writable and large enough; nothing here waits for a share without end."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Mapping

from dcnumd.config import Settings
from dcnumd.daemon.ledger import Ledger
from dcnumd.daemon.mounts import NotMountedError, Place, see
from dcnumd.daemon.threads import in_thread
from dcnumd.errors import ResultError

GB = 1e9


class Places:
    """Knows the folders of results, also from earlier runs.

    Parameters
    ----------
    settings
        Which folders there are, and how much space must stay free.
    ledger
        Remembers where folders were mounted.
    """

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger

    async def look_for(self, outputs: Mapping[str, pathlib.Path]) -> dict[str, bool]:
        """Return of each result whether it is there or certainly gone; of one that cannot be reached, nothing.

        Parameters
        ----------
        outputs
            Each result with the folder that stands for all results in and below it.
        """
        found: dict[str, bool] = {}
        for root in set(outputs.values()):
            before = Place.from_text(self._ledger.place(os.fspath(root)))
            paths = [path for path, its_root in outputs.items() if its_root == root]
            with contextlib.suppress(OSError):
                found |= await in_thread(os.fspath(root), _look_for, paths, root, before)
        return found

    async def obstacle(self, root: pathlib.Path, path_out: pathlib.Path, size: int) -> ResultError | None:
        """Return why a result cannot be written now, None if it can.

        Parameters
        ----------
        root
            The folder that stands for all results in and below it.
        path_out
            The result.
        size
            Size of the measurement [bytes]; the result is expected to be no larger.
        """
        needed = size + self._settings.resources.min_free_gb * GB
        folder = os.fspath(root)
        before = Place.from_text(self._ledger.place(folder))
        try:
            place = await in_thread(folder, see, folder, before)
            if place is not None and place != before:
                self._ledger.remember_place(folder, place.to_text())
            return await in_thread(folder, _obstacle, path_out.parent, needed)
        except NotMountedError as error:
            return ResultError(f"{root}: {error.strerror}", "output_not_mounted", transient=True)
        except OSError as error:
            return ResultError(f"{root}: cannot be reached: {error.strerror}", "output_unreachable", transient=True)

    async def free_bytes(self, root: pathlib.Path) -> int | None:
        """Return how much room there is in a folder of results; None if that cannot be found out now."""
        folder = os.fspath(root)
        before = Place.from_text(self._ledger.place(folder))
        try:
            return await in_thread(folder, _free_bytes, root, before)
        except OSError:
            return None


def _free_bytes(root: pathlib.Path, before: Place | None) -> int:
    see(os.fspath(root), before)
    return shutil.disk_usage(_existing(root)).free


def _existing(folder: pathlib.Path) -> pathlib.Path:
    """Return a folder, or the nearest one above it that is there already."""
    return next(parent for parent in (folder, *folder.parents) if _is_there(parent))


def _look_for(paths: list[str], root: pathlib.Path, before: Place | None) -> dict[str, bool]:
    found = {}
    for path in paths:
        with contextlib.suppress(OSError):
            found[path] = _is_there(pathlib.Path(path))
    if all(found.values()) or _is_reached(root, before):
        return found
    return {path: True for path, is_there in found.items() if is_there}


def _is_reached(root: pathlib.Path, before: Place | None) -> bool:
    """Return whether a folder is there and mounted, so that what is missing in it is gone."""
    try:
        root.stat()
        see(os.fspath(root), before)
    except OSError:
        return False
    return True


def _obstacle(folder: pathlib.Path, needed: float) -> ResultError | None:
    """Look at the folder of a result, or at the nearest one above it that is there already."""
    existing = _existing(folder)
    if os.statvfs(existing).f_flag & os.ST_RDONLY:
        cure = "mount it for writing; for a service, name the folder to dcnumd install-service"
        return ResultError(f"{existing}: is read-only; {cure}", "output_read_only", transient=True)
    if not os.access(existing, os.W_OK | os.X_OK):
        problem = "cannot be written by this user; change its owner or its mode"
        return ResultError(f"{existing}: {problem}", "output_no_permission", transient=True)
    free = shutil.disk_usage(existing).free
    if free < needed:
        numbers = f"{free / GB:.1f} GB are free, {needed / GB:.1f} GB are needed"
        cure = "(the measurement and resources.min_free_gb); make room"
        return ResultError(f"{existing}: {numbers} {cure}", "no_space", transient=True)
    return None


def _is_there(path: pathlib.Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return False
        raise
    return True
