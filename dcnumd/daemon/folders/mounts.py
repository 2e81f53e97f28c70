"""Which file system a folder lies on, and whether the one it used to lie on is mounted."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import re

MOUNT_TABLE = pathlib.Path("/proc/self/mountinfo")
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
_ESCAPE = re.compile(rb"\\([0-7]{3})")


class NotMountedError(OSError):
    """What a folder used to lie on is not mounted, and nothing is there in its place."""


@dataclasses.dataclass(frozen=True, slots=True)
class Mount:
    """A line of the mount table."""

    number: int
    """Identifies the mount as long as it lasts."""
    device: int
    """The file system as the kernel numbers it; on btrfs and overlays its files say another number."""
    point: str
    """Where it is mounted."""
    root: str
    """Which folder of the file system is mounted there; not ``/`` for bind mounts and subvolumes."""
    kind: str
    """Type of the file system, as ``ext4`` or ``nfs4``."""
    source: str
    """Device or share."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a folder lies: what is to be remembered of it across restarts."""

    mount_point: str
    """What the folder is, or is below of."""
    source: str
    kind: str
    inner: str
    """Path of the folder within its file system."""

    @classmethod
    def of(cls, folder: str) -> Place | None:
        """Return where `folder` lies, or would lie if it were made; None if the system does not tell.

        The kernel itself says to which mount a path leads, through links, bind mounts and mounts over others.

        Raises
        ------
        OSError
            If a folder on the way cannot be looked at. On a share that does not answer, this call does not return.
        """
        path = os.path.realpath(folder)
        mount = _mount_of(path)
        if mount is None:
            return None
        inner = os.path.normpath(pathlib.PurePath(mount.root, os.path.relpath(path, mount.point)))
        return cls(mount.point, mount.source, mount.kind, inner)

    @classmethod
    def from_text(cls, text: str | None) -> Place | None:
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

    def lacks(self, before: Place) -> bool:
        """Return whether a file system that was there `before` is not mounted any more.

        It is not when another one shows through: what is seen now is mounted further up, or is the automounter.
        The same files seen through another mount are the same place; so a service manager may bind-mount at will.
        """
        if (self.source, self.kind, self.inner) == (before.source, before.kind, before.inner):
            return False
        if self.mount_point == before.mount_point:
            return self.kind == AUTOMOUNT != before.kind
        return before.mount_point.startswith(f"{self.mount_point.rstrip('/')}/")


def see(folder: str, before: Place | None) -> Place | None:
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
    place
        What is to be remembered for the next time; None if the system does not tell where the folder lies.

    Raises
    ------
    NotMountedError
        If it is not mounted; the text says what is missing and names the cure.
    OSError
        If the folder, or one on the way to it, cannot be looked at.
    """
    place = Place.of(folder)
    if place is not None and before is not None and place.lacks(before) and _shows_nothing(folder):
        missing = f"not mounted: {before.source} ({before.kind}) was mounted at {before.mount_point}"
        cure = "mount it, or put a file into the folder to use it as it is"
        raise NotMountedError(errno.ENODEV, f"{missing}; {cure}")
    return place


def read_mounts(table: pathlib.Path = MOUNT_TABLE) -> dict[int, Mount]:
    """Return what is mounted, by the number of each mount; see proc(5), mountinfo."""
    mounts = {}
    for line in table.read_bytes().splitlines():
        # A variable number of optional fields ends with a lone hyphen.
        fields, _, rest = line.partition(b" - ")
        number, _, device, root, point, *_ = fields.split(b" ")
        kind, source, *_ = rest.split(b" ")
        mounts[int(number)] = Mount(
            int(number),
            os.makedev(*map(int, device.split(b":"))),
            _text(point),
            _text(root),
            _text(kind),
            _text(source),
        )
    return mounts


def device_of(descriptor: int) -> int:
    """Return the number of the file system on which an open file lies, as the kernel's tables have it.

    Where the system does not tell, it is the number that the file says.
    """
    with contextlib.suppress(OSError):
        mount = read_mounts().get(_mount_number(descriptor))
        if mount is not None:
            return mount.device
    return os.fstat(descriptor).st_dev


def _mount_of(path: str) -> Mount | None:
    """Return the mount to which `path`, or the nearest folder above it that is there, belongs."""
    number = -1
    for existing in (path, *map(os.fspath, pathlib.PurePath(path).parents)):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            # A name that cannot be opened for reading can be opened like this. An automounter notices it as well.
            descriptor = os.open(existing, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                number = _mount_number(descriptor)
            finally:
                os.close(descriptor)
            break
    try:
        return read_mounts().get(number)
    except OSError:
        return None


def _mount_number(descriptor: int) -> int:
    try:
        lines = pathlib.Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    except OSError:
        return -1
    return next((int(line.split()[1]) for line in lines if line.startswith("mnt_id:")), -1)


def _shows_nothing(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return all(entry.name.startswith(".") for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return True


def _text(field: bytes) -> str:
    """Decode a field, in which blanks and the like are octal numbers; names need not be UTF-8."""
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field))
