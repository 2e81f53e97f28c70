"""The mount table of the system: which file system a path leads to."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re

MOUNT_TABLE = pathlib.Path("/proc/self/mountinfo")
_ESCAPE = re.compile(rb"\\([0-7]{3})")


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


def mount_of(path: str) -> Mount | None:
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


def _text(field: bytes) -> str:
    """Decode a field, in which blanks and the like are octal numbers; names need not be UTF-8."""
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field))
