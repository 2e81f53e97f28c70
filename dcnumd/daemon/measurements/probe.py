"""A look at a file before it becomes a job; it runs in a child, because the file may block or crash its reader."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import pathlib
import resource
import signal
import stat
from collections.abc import Iterator
from typing import Literal

from dcnumd.daemon.folders.mounts import device_of
from dcnumd.daemon.ledger.records import Content
from dcnumd.errors import MeasurementError, WorkerError
from dcnumd.logic.job import Job, PipelineSettings
from dcnumd.logic.stamp import Stamp
from dcnumd.read.superblock import HEAD_BYTES, read_superblock
from dcnumd.read.trust import Trust

Verdict = Literal["complete", "own_output", "open_for_writing", "truncated", "blank", "changing"]
"""``own_output``: a result that was made here, which is no measurement;
``truncated``: the file is shorter than it says itself, because it is being copied or was cut off;
``blank``: it has its size, but parts of it were never written, because a copy takes all its space first;
``changing``: it changed while it was looked at."""

LOCKS = pathlib.Path("/proc/locks")
CPU_SECONDS = 20.0
"""Processor time after which a look, which takes milliseconds, is ended with its process [s]."""
CPU_BYTES_PER_SECOND = 100e6
"""Speed of a slow computer [bytes/s] that reads and digests what has no checksums."""
LOOK_BYTES = 2**30
"""Memory that a look may take [bytes]: a chunk of the largest size that is read, packed and unpacked."""
BLANK_END = 512
"""Number of zeros at the end of a damaged file that tell that it was not copied to its end [bytes]."""
SUSPECT = frozenset({"not_hdf5", "damaged", "checksum", "truncated"})
"""Reasons for which a file may be refused when parts of it are missing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """What a look at a file found; content and pipeline only when it is complete."""

    verdict: Verdict
    stamp: Stamp
    content: Content | None = None
    frames: int = 0
    ppid: str = ""
    pphash: str = ""
    sample: str = ""


def is_locked_for_writing(locks: str, status: os.stat_result, device: int) -> bool:
    """Return whether a process on this computer holds a lock on a file as HDF5 takes it for writing.

    To ask for the lock would be to take it, and a recording that starts just then would fail. A program on another
    computer, or beyond the walls of a container, is not seen.

    Parameters
    ----------
    locks
        What ``/proc/locks`` says.
    status
        The file.
    device
        Number of its file system, see `device_of`.
    """
    place = f"{os.major(device):02x}:{os.minor(device):02x}:{status.st_ino}"
    # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:2245236 0 EOF; a process that waits for its turn has "->" before the kind
    lines = [line.split() for line in locks.splitlines() if place in line]
    holders = [fields[4] for fields in lines if fields[3] == "WRITE" and fields[5] == place]
    # Subvolumes and layers of one file system have numbers of their own, and each has a file of this inode.
    return any(status.st_dev == device or _may_have_open(holder, status) for holder in holders)


def _may_have_open(pid: str, status: os.stat_result) -> bool:
    """Return whether a process has a file open, or nobody can say so."""
    try:
        # of a lock that belongs to the open file there is no process; of another user's nothing is told
        descriptors = list(pathlib.Path("/proc", pid, "fd").iterdir())
    except OSError:
        return True
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            if os.path.samestat(descriptor.stat(), status):
                return True
    return False


def look(job: Job, *, recorded: bool = False) -> Look:
    """Say whether the input of `job` is complete, what is in it, and which pipeline it would get.

    Parameters
    ----------
    job
        The job that the file would get.
    recorded
        Whether the ledger has the file as the result of a measurement.

    Raises
    ------
    DcnumdError
        If the file cannot be processed, or cannot be read just now (then it is transient).
    """
    load()
    Trust(job.trusted_folders).require_input(job.path_in)
    first = _first_bytes(job)
    with _bounded(first.status.st_size):
        return _look(job, first, recorded=recorded)


@contextlib.contextmanager
def _bounded(file_size: int) -> Iterator[None]:
    """Keep HDF5 from taking whatever time or memory a damaged file of a size [bytes] asks for."""
    size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [limit for limit in (size + LOOK_BYTES, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    # some damages let it turn in circles for ever, where nothing but a signal's own action ends it
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS + file_size / CPU_BYTES_PER_SECOND)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _look(job: Job, first: _FirstBytes, *, recorded: bool) -> Look:
    stamp, superblock = Stamp.of(first.status), read_superblock(first.head)
    if not stamp.size:
        return Look("truncated", stamp)
    if superblock is not None and superblock.open_for_writing:
        return Look("open_for_writing", stamp)
    if is_locked_for_writing(_locks(), first.status, first.device):
        return Look("open_for_writing", stamp)
    if superblock is not None and superblock.end_of_file > stamp.size:
        return Look("truncated", stamp)
    from dcnumd.logic.inspect import inspect_measurement  # noqa: PLC0415 -- numerical code, see `load`
    from dcnumd.logic.own_output import is_own_output  # noqa: PLC0415 -- likewise

    try:
        if is_own_output(job, recorded=recorded):
            return Look("own_output", stamp)
        found = inspect_measurement(job)
    except MemoryError as error:
        raise WorkerError(f"{job.path_in}: not enough memory", "memory") from error
    except MeasurementError as error:
        if first.blank and error.reason in SUSPECT:
            return Look("blank", stamp)
        raise
    if (after := Stamp.of(_first_bytes(job).status)) != stamp:
        return Look("changing", after)
    if found.blank or (found.damaged and first.blank):
        return Look("blank", stamp)
    return Look(
        "complete",
        stamp,
        Content(found.size, found.md5_5m, found.identifier or "", found.digest),
        found.frames,
        found.ppid,
        found.pphash,
        found.sample,
    )


def load() -> None:
    """Load what `look` needs, before the first file needs it."""
    # The supervisor imports this module and must stay free of numerical code; only the child gets here.
    import dcnumd.logic.inspect  # noqa: PLC0415 -- see above
    import dcnumd.logic.own_output  # noqa: F401, PLC0415 -- likewise


def check_methods(settings: PipelineSettings) -> None:
    """Make sure that the configured methods exist and take the configured keywords.

    Raises
    ------
    MethodError
        What is wrong.
    """
    from dcnumd.logic.plan import configured_ids  # noqa: PLC0415 -- numerical code

    configured_ids(settings)


@dataclasses.dataclass(frozen=True, slots=True)
class _FirstBytes:
    """What can be known of a file without HDF5."""

    status: os.stat_result
    device: int
    head: bytes
    blank: bool
    """Its beginning or its end are zeros."""


def _first_bytes(job: Job) -> _FirstBytes:
    try:
        # a pipe would wait for its writer
        descriptor = os.open(job.path_in, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            device = device_of(descriptor)
            head = os.pread(descriptor, HEAD_BYTES, 0)
            end = os.pread(descriptor, BLANK_END, max(0, status.st_size - BLANK_END))
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise MeasurementError(f"{job.path_in}: no such file", "vanished") from error
    except PermissionError as error:
        raise MeasurementError(f"{job.path_in}: no permission to read it", "unreadable") from error
    except OSError as error:
        message = f"{job.path_in}: cannot be read: {error.strerror}"
        raise MeasurementError(message, "unreadable", transient=error.errno != errno.EINVAL) from error
    return _FirstBytes(status, device, head, blank=len(end) == BLANK_END and (not any(end) or not any(head)))


def _locks() -> str:
    try:
        return LOCKS.read_text()
    except OSError:
        return ""
