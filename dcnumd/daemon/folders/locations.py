"""Locations of folders, so that a folder whose share is not mounted is not mistaken for an empty one."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pathlib
from typing import Protocol

from dcnumd.daemon.folders.mounts import mount_of

# fmt: off
NETWORK_KINDS = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs",
    "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
    "wekafs",
})
# fmt: on
"""Types of file systems that other computers can change; the kernel reports no events for these changes."""
NETWORK_PREFIXES = ("fuse.", "nfs", "smb")
"""Prefixes of further such types; programs behind FUSE (sshfs, glusterfs, rclone, …) report no changes, either."""
AUTOMOUNT = "autofs"


class NotMountedError(OSError):
    """The file system on which a folder used to be is not mounted, and the folder is missing or empty."""


@dataclasses.dataclass(frozen=True, slots=True)
class Location:
    """Data about the location of a folder that is kept across restarts."""

    mount_point: str
    """Path of the mount point, which is the folder or one above it."""
    source: str
    kind: str
    inner: str
    """Path of the folder within its file system."""

    @classmethod
    def of(cls, folder: str) -> Location | None:
        """Return the location of `folder`, or that of the folder if it were created; None if it is unknown.

        The kernel determines to which mount a path leads, through links, bind mounts and mounts over others.

        Raises
        ------
        OSError
            If a folder on the way cannot be accessed. On a share that does not respond, this call does not return.
        """
        path = os.path.realpath(folder)
        mount = mount_of(path)
        if mount is None:
            return None
        inner = os.path.normpath(pathlib.PurePath(mount.root, os.path.relpath(path, mount.point)))
        return cls(mount.point, mount.source, mount.kind, inner)

    @classmethod
    def from_text(cls, text: str | None) -> Location | None:
        """Return the location from the result of `to_text`; None if the text is None or invalid."""
        try:
            return cls(**json.loads(text or "null"))
        except (ValueError, TypeError):
            return None

    def to_text(self) -> str:
        """Return the location as JSON."""
        return json.dumps(dataclasses.asdict(self))

    @property
    def is_network(self) -> bool:
        """Whether files may change without the kernel's knowledge, so that there are no events."""
        return self.kind in NETWORK_KINDS or self.kind == "fuse" or self.kind.startswith(NETWORK_PREFIXES)

    def lacks(self, before: Location) -> bool:
        """Return whether the file system of the former location `before` is not mounted any more.

        This is the case if another one is visible in its place, which is mounted further up or is the automounter. The
        same files in another mount are the same location, so that a service manager may use bind mounts.
        """
        if (self.source, self.kind, self.inner) == (before.source, before.kind, before.inner):
            return False
        if self.mount_point == before.mount_point:
            return self.kind == AUTOMOUNT != before.kind
        return before.mount_point.startswith(f"{self.mount_point.rstrip('/')}/")


def locate(folder: str, before: Location | None) -> Location | None:
    """Return the present location of `folder`, unless it is not mounted.

    A folder is *not mounted* if all of these conditions are met:

    1. When it was last seen, it was a mount point, or below one.
    2. Nothing is mounted there now: the path leads to a file system that is mounted further up.
    3. It is not the same folder of the same file system, reached through another mount.
    4. It is missing, or contains only hidden names.

    Such a folder is not treated as an empty one, and nothing is written to it. It is usable again as soon as any file
    system is mounted there, which may also be that of another disk. To use the folder without a mount, put any file
    with a visible name into it, for example by moving the data there.

    Parameters
    ----------
    folder
        A watched folder, or a folder of results.
    before
        Result of the previous call, which may have been in an earlier run; None if there was none.

    Returns
    -------
    location
        Location to pass to the next call; None if the system does not tell it.

    Raises
    ------
    NotMountedError
        If the folder is not mounted; the text says what is missing, with the remedy.
    OSError
        If the folder, or one on the way to it, cannot be accessed.
    """
    location = Location.of(folder)
    if location is not None and before is not None and location.lacks(before) and _shows_nothing(folder):
        missing = f"not mounted: {before.source} ({before.kind}) was mounted at {before.mount_point}"
        cure = "mount it, or put a file into the folder to use it as it is"
        raise NotMountedError(errno.ENODEV, f"{missing}; {cure}")
    return location


class LocationStore(Protocol):
    """Interface of the ledger, which keeps text about folders across restarts."""

    def location(self, folder: str) -> str | None:
        """Return the text about a folder; None if there is none."""

    def remember_location(self, folder: str, location: str) -> None:
        """Record a text about a folder."""


class LocationMemory:
    """Locations of folders when they were last seen, also in earlier runs.

    Parameters
    ----------
    store
        Storage of the locations.
    """

    def __init__(self, store: LocationStore) -> None:
        self._store = store

    def before(self, folder: str) -> Location | None:
        """Return the location of a folder when it was last seen; None if it never was."""
        return Location.from_text(self._store.location(folder))

    def remember(self, folder: str, location: Location) -> None:
        """Record the present location of a folder."""
        self._store.remember_location(folder, location.to_text())


def _shows_nothing(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return all(entry.name.startswith(".") for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return True
