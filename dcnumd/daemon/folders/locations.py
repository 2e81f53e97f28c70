"""Where folders lie; a folder whose share is not mounted is not taken for an empty one."""

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
"""File systems that others change as well: the kernel tells nothing about what they do."""
NETWORK_PREFIXES = ("fuse.", "nfs", "smb")
"""A program behind a file system (sshfs, glusterfs, rclone, …) raises no events for what it finds changed, either."""
AUTOMOUNT = "autofs"


class NotMountedError(OSError):
    """What a folder used to lie on is not mounted, and nothing is there in its place."""


@dataclasses.dataclass(frozen=True, slots=True)
class Location:
    """Where a folder lies: what is to be remembered of it across restarts."""

    mount_point: str
    """What the folder is, or is below of."""
    source: str
    kind: str
    inner: str
    """Path of the folder within its file system."""

    @classmethod
    def of(cls, folder: str) -> Location | None:
        """Return where `folder` lies, or would lie if it were made; None if the system does not tell.

        The kernel itself says to which mount a path leads, through links, bind mounts and mounts over others.

        Raises
        ------
        OSError
            If a folder on the way cannot be looked at. On a share that does not answer, this call does not return.
        """
        path = os.path.realpath(folder)
        mount = mount_of(path)
        if mount is None:
            return None
        inner = os.path.normpath(pathlib.PurePath(mount.root, os.path.relpath(path, mount.point)))
        return cls(mount.point, mount.source, mount.kind, inner)

    @classmethod
    def from_text(cls, text: str | None) -> Location | None:
        """Return what `to_text` was called on; None for no text, or one that says nothing."""
        try:
            return cls(**json.loads(text or "null"))
        except (ValueError, TypeError):
            return None

    def to_text(self) -> str:
        """Return all of it as text."""
        return json.dumps(dataclasses.asdict(self))

    @property
    def is_network(self) -> bool:
        """Whether files may change without the kernel's knowledge, so that there are no events."""
        return self.kind in NETWORK_KINDS or self.kind == "fuse" or self.kind.startswith(NETWORK_PREFIXES)

    def lacks(self, before: Location) -> bool:
        """Return whether a file system that was there `before` is not mounted any more.

        It is not when another one shows through: what is seen now is mounted further up, or is the automounter.
        The same files seen through another mount are the same place; so a service manager may bind-mount at will.
        """
        if (self.source, self.kind, self.inner) == (before.source, before.kind, before.inner):
            return False
        if self.mount_point == before.mount_point:
            return self.kind == AUTOMOUNT != before.kind
        return before.mount_point.startswith(f"{self.mount_point.rstrip('/')}/")


def locate(folder: str, before: Location | None) -> Location | None:
    """Return where `folder` lies now, unless it is the bare place of something that is not mounted.

    The rule: a folder is *not mounted* if all of this is true.

    1. When it was last seen, it was a mount point, or below one.
    2. Nothing is mounted there now: the path leads to a file system that is mounted further up.
    3. It is not the same folder of the same file system, reached through another mount.
    4. It is missing, or nothing is in it but hidden names.

    Such a folder is neither read as an empty one, nor is anything written there. It is usable again as soon as
    something is mounted, whatever that is: another disk under the same path is taken as it is. To use the folder
    without a mount, on purpose, put any file with a visible name into it; moving the data there does just that.

    Parameters
    ----------
    folder
        A watched folder, or one for results.
    before
        What this function returned the last time, also in an earlier run; None if there was none.

    Returns
    -------
    location
        What is to be remembered for the next time; None if the system does not tell where the folder lies.

    Raises
    ------
    NotMountedError
        If it is not mounted; the text says what is missing and names the cure.
    OSError
        If the folder, or one on the way to it, cannot be looked at.
    """
    location = Location.of(folder)
    if location is not None and before is not None and location.lacks(before) and _shows_nothing(folder):
        missing = f"not mounted: {before.source} ({before.kind}) was mounted at {before.mount_point}"
        cure = "mount it, or put a file into the folder to use it as it is"
        raise NotMountedError(errno.ENODEV, f"{missing}; {cure}")
    return location


class LocationStore(Protocol):
    """What keeps text about folders across restarts: the ledger."""

    def location(self, folder: str) -> str | None:
        """Return what was remembered of a folder, None if that is nothing."""

    def remember_location(self, folder: str, location: str) -> None:
        """Remember something of a folder."""


class LocationMemory:
    """Knows where folders lay when they were last seen, also in earlier runs.

    Parameters
    ----------
    store
        Keeps it.
    """

    def __init__(self, store: LocationStore) -> None:
        self._store = store

    def before(self, folder: str) -> Location | None:
        """Return where a folder lay when it was last seen; None if it never was."""
        return Location.from_text(self._store.location(folder))

    def remember(self, folder: str, location: Location) -> None:
        """Note where a folder lies now."""
        self._store.remember_location(folder, location.to_text())


def _shows_nothing(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return all(entry.name.startswith(".") for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return True
