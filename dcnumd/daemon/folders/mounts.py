"""The mount table of the system, and the mount to which a path leads."""

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
    """Line of the mount table."""

    number: int
    """Identifier of the mount, unique as long as it exists."""
    device: int
    """Device number of the file system in the kernel; on btrfs and overlays, its files report another number."""
    point: str
    """Path of the mount point."""
    root: str
    """Path of the mounted folder within the file system; not ``/`` for bind mounts and subvolumes."""
    kind: str
    """Type of the file system, such as ``ext4`` or ``nfs4``."""
    source: str
    """Device or share."""


def mount_numbered(number: int, table: pathlib.Path = MOUNT_TABLE) -> Mount | None:
    """Return the mount with this number; None if there is none. See mountinfo in proc(5)."""
    begin = b"%d " % number
    # Only one line is decoded: a computer may have hundreds of mounts, and each job asks for one.
    line = next((line for line in table.read_bytes().splitlines() if line.startswith(begin)), None)
    if line is None:
        return None
    # A single hyphen ends a variable number of optional fields.
    fields, _, rest = line.partition(b" - ")
    _, _, device, root, point, *_ = fields.split(b" ")
    kind, source, *_ = rest.split(b" ")
    return Mount(
        number, os.makedev(*map(int, device.split(b":"))), _text(point), _text(root), _text(kind), _text(source)
    )


def device_of(descriptor: int) -> int:
    """Return the device number of the file system of an open file, as in the tables of the kernel.

    If it cannot be determined, return the number that the file reports.
    """
    with contextlib.suppress(OSError):
        mount = mount_numbered(_mount_number(descriptor))
        if mount is not None:
            return mount.device
    return os.fstat(descriptor).st_dev


def mount_of(path: str) -> Mount | None:
    """Return the mount of `path`, or of its nearest ancestor that exists; None if it cannot be determined."""
    number = -1
    for existing in (path, *map(os.fspath, pathlib.PurePath(path).parents)):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            # With O_PATH, a folder can be opened without permission to read it; an automounter is triggered as well.
            descriptor = os.open(existing, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                number = _mount_number(descriptor)
            finally:
                os.close(descriptor)
            break
    try:
        return mount_numbered(number)
    except OSError:
        return None


def _mount_number(descriptor: int) -> int:
    try:
        lines = pathlib.Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    except OSError:
        return -1
    return next((int(line.split()[1]) for line in lines if line.startswith("mnt_id:")), -1)


def _text(field: bytes) -> str:
    """Decode a field, in which blanks and some others are octal escapes; names need not be valid UTF-8."""
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field))
