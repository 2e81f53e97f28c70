"""Checks of whether folders exist, are mounted, are writable and have enough space; each check has a time limit."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Mapping

from dcnumd.config.values import Settings
from dcnumd.daemon.folders.hang_guard import in_thread
from dcnumd.daemon.folders.locations import Location, LocationMemory, NotMountedError, locate
from dcnumd.daemon.ledger.queries import LedgerQueries
from dcnumd.daemon.ledger.store import Ledger
from dcnumd.errors import ResultError

GB = 1e9


class Availability:
    """Checks folders of results, and records where they are mounted.

    Parameters
    ----------
    settings
        Settings with the space that must stay free.
    ledger
        Ledger that contains where folders were mounted, also in earlier runs.
    """

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._locations = LocationMemory(ledger)

    def root_of(self, root: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
        """Return the folder that must exist and be mounted so that `path` can be written, or is gone if it is missing.

        Parameters
        ----------
        root
            Folder that represents all results in and below it.
        path
            Path of a result in or below it.
        """
        return root_of(self._ledger, root, path)

    async def find_results(self, outputs: Mapping[str, pathlib.Path]) -> dict[str, bool]:
        """Return whether each result exists or is certainly gone; results that cannot be reached are left out.

        Parameters
        ----------
        outputs
            Path of each result, with the folder that represents all results in and below it.
        """
        found: dict[str, bool] = {}
        roots = self._roots_of(outputs)
        for root in set(roots.values()):
            before = self._locations.before(os.fspath(root))
            paths = [path for path, its_root in roots.items() if its_root == root]
            with contextlib.suppress(OSError):
                found |= await in_thread(os.fspath(root), _find_results, paths, root, before)
                folders = {pathlib.Path(path).parent for path in paths if found.get(path)}
                self._remember(await in_thread(os.fspath(root), _mounted_inside, root, folders))
        return found

    async def obstacle(self, root: pathlib.Path, path_out: pathlib.Path, size: int) -> ResultError | None:
        """Return the reason why a result cannot be written now; None if it can.

        Parameters
        ----------
        root
            Folder that represents all results in and below it.
        path_out
            Path of the result.
        size
            Size of the measurement [bytes]; the result is expected to be no larger.
        """
        needed = size + self._settings.resources.min_free_gb * GB
        root = self.root_of(root, path_out)
        folder = os.fspath(root)
        before = self._locations.before(folder)
        try:
            locations, obstacle = await in_thread(folder, _look, root, before, path_out.parent, needed)
        except NotMountedError as error:
            return ResultError(f"{root}: {error.strerror}", "output_not_mounted")
        except OSError as error:
            return ResultError(f"{root}: cannot be reached: {error.strerror}", "output_unreachable")
        self._remember(locations)
        return obstacle

    async def free_bytes(self, root: pathlib.Path) -> int | None:
        """Return the free space in a folder of results [bytes]; None if it cannot be determined now."""
        folder = os.fspath(root)
        before = self._locations.before(folder)
        try:
            return await in_thread(folder, _free_bytes, root, before)
        except OSError:
            return None

    def _roots_of(self, outputs: Mapping[str, pathlib.Path]) -> dict[str, pathlib.Path]:
        """Return the result of `root_of` for each result, with one call per folder."""
        folders = {path: (root, os.path.dirname(path)) for path, root in outputs.items()}  # noqa: PTH120 -- thousands
        roots = {key: self.root_of(key[0], pathlib.Path(key[1], "result")) for key in set(folders.values())}
        return {path: roots[key] for path, key in folders.items()}

    def _remember(self, locations: Mapping[str, Location]) -> None:
        for folder, location in locations.items():
            self._locations.remember(folder, location)


def root_of(ledger: LedgerQueries, root: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """Return the innermost folder between `root` and `path` whose location is recorded; `root` if there is none."""
    for folder in path.parents:
        if folder == root or root not in folder.parents:
            break
        if ledger.location(os.fspath(folder)) is not None:
            return folder
    return root


def _free_bytes(root: pathlib.Path, before: Location | None) -> int:
    locate(os.fspath(root), before)
    return shutil.disk_usage(_existing(root)).free


def _existing(folder: pathlib.Path) -> pathlib.Path:
    """Return a folder, or its nearest ancestor that exists."""
    return next(parent for parent in (folder, *folder.parents) if _is_there(parent))


def _find_results(paths: list[str], root: pathlib.Path, before: Location | None) -> dict[str, bool]:
    found = {}
    for path in paths:
        with contextlib.suppress(OSError):
            found[path] = _is_there(pathlib.Path(path))
    if all(found.values()) or _is_reached(root, before):
        return found
    return {path: True for path, is_there in found.items() if is_there}


def _look(
    root: pathlib.Path, before: Location | None, folder: pathlib.Path, needed: float
) -> tuple[dict[str, Location], ResultError | None]:
    """Return the locations of `root` and of a mount point inside, and the reason why `folder` accepts no result."""
    location = locate(os.fspath(root), before)
    locations = _mounted_inside(root, {folder}) | ({} if location is None else {os.fspath(root): location})
    return locations, _obstacle(folder, needed)


def _mounted_inside(root: pathlib.Path, folders: set[pathlib.Path]) -> dict[str, Location]:
    """Return the locations of the innermost mount points between `root` and these folders."""
    points = {point for folder in folders if (point := _mount_point_inside(root, folder)) is not None}
    locations = {os.fspath(point): Location.of(os.fspath(point)) for point in points}
    return {point: location for point, location in locations.items() if location is not None}


def _mount_point_inside(root: pathlib.Path, folder: pathlib.Path) -> pathlib.Path | None:
    """Return the innermost mount point below `root` that is `folder` or contains it; None if there is none."""
    way = [above for above in (folder, *folder.parents) if root in above.parents and above.exists()]
    # A folder that does not exist yet is on no other file system than its parent.
    devices = [above.stat().st_dev for above in (*way, root)] if way else []
    # The innermost one is sufficient: if an outer one is not mounted, the inner one is missing as well.
    return next((above for above, own, outer in zip(way, devices, devices[1:], strict=False) if own != outer), None)


def _is_reached(root: pathlib.Path, before: Location | None) -> bool:
    """Return whether a folder exists and is mounted, so that files missing in it are gone."""
    try:
        root.stat()
        locate(os.fspath(root), before)
    except OSError:
        return False
    return True


def _obstacle(folder: pathlib.Path, needed: float) -> ResultError | None:
    """Return the reason why a folder, or its nearest ancestor that exists, accepts no result; None if it does."""
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
        return ResultError(f"{existing}: {numbers} {cure}", "no_space")
    return None


def _is_there(path: pathlib.Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return False
        raise
    return True
