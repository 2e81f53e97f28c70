"""A look at a file before it becomes a job; it runs in a child, because the file may block or crash its reader."""

from __future__ import annotations

import dataclasses
import importlib
import os
import struct
from typing import Literal

from dcnumd.daemon.records import Content, Stamp
from dcnumd.errors import MeasurementError
from dcnumd.logic.job import Job, PipelineSettings

INSPECT = "dcnumd.logic.inspect"
SIGNATURE = b"\x89HDF\r\n\x1a\n"

Verdict = Literal["complete", "open_for_writing", "truncated", "changing"]
"""``truncated``: the file is shorter than it says itself, because it is being copied or was cut off;
``changing``: it changed while it was looked at."""


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """What a look at a file found; content and pipeline only when it is complete."""

    verdict: Verdict
    stamp: Stamp
    content: Content | None = None
    frames: int = 0
    ppid: str = ""
    pphash: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Superblock:
    """What the first bytes of an HDF5 file say about its state."""

    open_for_writing: bool
    end_of_file: int


def read_superblock(head: bytes) -> Superblock | None:
    """Read an HDF5 superblock of version 0, 2 or 3 by hand: no library, no lock.

    The flag of version 0 is set by newer writers only; a clear one proves nothing.

    Parameters
    ----------
    head
        The first 96 bytes of the file.

    Returns
    -------
    superblock
        None if there is none at the beginning; h5py then decides what the file is.
    """
    if len(head) < 12 or not head.startswith(SIGNATURE):
        return None
    version = head[8]
    if version in {2, 3}:
        width, flags, end_at = head[9], head[11], 12 + 2 * head[9]
    elif version in {0, 1} and len(head) >= 24:
        width, flags = head[13], struct.unpack_from("<I", head, 20)[0]
        end_at = (24 if version == 0 else 28) + 2 * width
    else:
        return None
    if width not in {2, 4, 8} or len(head) < end_at + width:
        return None
    return Superblock(bool(flags & 1), int.from_bytes(head[end_at : end_at + width], "little"))


def look(job: Job) -> Look:
    """Say whether the input of `job` is complete, what is in it, and which pipeline it would get.

    Raises
    ------
    DcnumdError
        If the file cannot be processed, or cannot be read just now (then it is transient).
    """
    stamp, superblock = _first_bytes(job)
    if superblock is not None and superblock.open_for_writing:
        return Look("open_for_writing", stamp)
    if superblock is not None and superblock.end_of_file > stamp.size:
        return Look("truncated", stamp)
    # The supervisor imports this module and must stay free of numerical code; only the child gets here.
    inspect = importlib.import_module(INSPECT)
    found = inspect.inspect_measurement(job)
    if (after := _first_bytes(job)[0]) != stamp:
        return Look("changing", after)
    return Look(
        "complete",
        stamp,
        Content(found.size, found.md5_5m, found.identifier or ""),
        found.frames,
        found.ppid,
        found.pphash,
    )


def load() -> None:
    """Load what `look` needs, before the first file needs it."""
    importlib.import_module(INSPECT)


def check_methods(settings: PipelineSettings) -> None:
    """Make sure that the configured methods exist and take the configured keywords.

    Raises
    ------
    MethodError
        What is wrong.
    """
    plan = importlib.import_module("dcnumd.logic.plan")
    plan.configured_ids(settings)


def _first_bytes(job: Job) -> tuple[Stamp, Superblock | None]:
    try:
        descriptor = os.open(job.path_in, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return Stamp.of(os.fstat(descriptor)), read_superblock(os.pread(descriptor, 96, 0))
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise MeasurementError(f"{job.path_in}: no such file", "vanished") from error
    except PermissionError as error:
        raise MeasurementError(f"{job.path_in}: no permission to read it", "unreadable") from error
    except OSError as error:
        message = f"{job.path_in}: cannot be read: {error.strerror}"
        raise MeasurementError(message, "unreadable", transient=True) from error
