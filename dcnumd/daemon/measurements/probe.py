"""Inspection of a file before it becomes a job, in a child process, since the file may block or crash its reader."""

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
from typing import Any, Literal, assert_never

from dcnumd.daemon.folders.mounts import device_of
from dcnumd.daemon.ledger.records import Content
from dcnumd.errors import MeasurementError, WorkerError
from dcnumd.logic.job import Job, KnownContent, PipelineSettings
from dcnumd.logic.stamp import Stamp
from dcnumd.read.superblock import HEAD_BYTES, read_superblock
from dcnumd.read.trust import Trust

Verdict = Literal["complete", "own_output", "open_for_writing", "truncated", "blank", "changing"]
"""Outcome of an inspection.

``complete``: the file can be processed;
``own_output``: the file is a result of dcnumd rather than a measurement;
``open_for_writing``: the file is marked as open for writing, or a process on this computer holds a lock on it;
``truncated``: the file is shorter than its header says, because it is being copied or was cut off;
``blank``: the file has its full size, but parts of it are zero because a copy allocated the space first;
``changing``: the file changed during the inspection."""

LOCKS = pathlib.Path("/proc/locks")
CPU_SECONDS = 20.0
"""Limit of processor time for an inspection [s], besides the time to read the file; usually it takes milliseconds."""
CPU_BYTES_PER_SECOND = 100e6
"""Speed at which a slow computer reads and digests data without checksums [bytes/s]."""
INSPECTION_BYTES = 2**30
"""Limit of memory for an inspection [bytes]: enough for the largest accepted chunk, compressed and decompressed."""
BLANK_END = 512
"""Number of bytes at the end of a file that are all zero if it was not copied completely [bytes]."""
SUSPECT = frozenset({"not_hdf5", "damaged", "checksum", "truncated"})
"""Reasons of errors that may be due to missing parts of the file."""


@dataclasses.dataclass(frozen=True, slots=True)
class Inspection:
    """Result of an inspection; all fields after `stamp` are set only for a complete file."""

    verdict: Verdict
    stamp: Stamp
    content: Content | None = None
    frames: int = 0
    ppid: str = ""
    pphash: str = ""
    sample: str = ""
    segmenter: str = ""
    """Code of the segmenter that is used."""
    not_applicable: tuple[str, ...] = ()
    """Why the configured segmenter is not made for the measurement; empty if it is used."""
    interrupted: bool = False
    """Whether the recording was interrupted, and `frames` is the number of frames that all features have."""

    def log_fields(self) -> dict[str, Any]:
        """Return the fields of a log event about a complete file."""
        told: dict[str, Any] = {"size": self.stamp.size, "frames": self.frames}
        if self.not_applicable:
            told |= {"fallback": self.segmenter, "not_applicable": self.not_applicable}
        return told


def is_locked_for_writing(locks: str, status: os.stat_result, device: int) -> bool:
    """Return whether a process on this computer holds a lock on a file, of the kind that HDF5 takes for writing.

    Why not try to take the lock? A recording that starts at that moment would fail. Processes on another computer or
    outside of a container are not detected.

    Parameters
    ----------
    locks
        Content of ``/proc/locks``.
    status
        Result of `os.stat` for the file.
    device
        Number of the file system; see `device_of`.
    """
    place = f"{os.major(device):02x}:{os.minor(device):02x}:{status.st_ino}"
    # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:2245236 0 EOF; a process that waits for its turn has "->" before the kind
    lines = [line.split() for line in locks.splitlines() if place in line]
    holders = [fields[4] for fields in lines if fields[3] == "WRITE" and fields[5] == place]
    # Subvolumes and overlays have device numbers of their own but share the number in /proc/locks, so that another
    # file with the same inode number may be meant.
    return any(status.st_dev == device or _may_have_open(holder, status) for holder in holders)


def _may_have_open(pid: str, status: os.stat_result) -> bool:
    """Return whether a process has a file open; also return True if that cannot be determined."""
    try:
        # This fails for a lock of an open file description (pid -1), and for processes of other users.
        descriptors = list(pathlib.Path("/proc", pid, "fd").iterdir())
    except OSError:
        return True
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            if os.path.samestat(descriptor.stat(), status):
                return True
    return False


def inspect_file(job: Job, *, recorded: bool = False) -> Inspection:
    """Inspect the input of `job`: whether it is complete, its content, and its pipeline.

    Parameters
    ----------
    job
        The job that would process the file.
    recorded
        Whether the ledger lists the file as the result of a measurement.

    Raises
    ------
    DcnumdError
        If the file cannot be processed. The error is transient if the file may become readable later.
    """
    load()
    from dcnumd.logic.segmenter_choice import read_models  # noqa: PLC0415 -- numerical code, see `load`

    # A model may be large, so it is read without the limits for a damaged measurement.
    read_models(job.settings)
    Trust(job.trusted_folders).require_input(job.path_in)
    first = _first_bytes(job)
    with _bounded(first.status.st_size):
        return _inspect(job, first, recorded=recorded)


@contextlib.contextmanager
def _bounded(file_size: int) -> Iterator[None]:
    """Limit processor time and memory in this block, since a damaged file may make HDF5 use any amount of them.

    Parameters
    ----------
    file_size
        Size of the file [bytes].
    """
    size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = [limit for limit in (size + INSPECTION_BYTES, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    # Some damaged files put HDF5 into an endless loop. Python's signal handlers do not run there; the default action
    # of the signal ends the process.
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS + file_size / CPU_BYTES_PER_SECOND)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _inspect(job: Job, first: _FirstBytes, *, recorded: bool) -> Inspection:
    stamp, superblock = Stamp.of(first.status), read_superblock(first.head)
    if not stamp.size:
        return Inspection("truncated", stamp)
    if superblock is not None and superblock.open_for_writing and not job.interrupted:
        return Inspection("open_for_writing", stamp)
    if is_locked_for_writing(_locks(), first.status, first.device):
        return Inspection("open_for_writing", stamp)
    if superblock is not None and superblock.end_of_file > stamp.size:
        return Inspection("truncated", stamp)
    from dcnumd.logic.inspect import inspect_measurement  # noqa: PLC0415 -- numerical code, see `load`
    from dcnumd.logic.own_output import is_own_output  # noqa: PLC0415 -- likewise

    try:
        if is_own_output(job, recorded=recorded):
            return Inspection("own_output", stamp)
        found = inspect_measurement(job)
    except MemoryError as error:
        raise WorkerError(f"{job.path_in}: not enough memory", "memory") from error
    except MeasurementError as error:
        if first.blank and error.reason in SUSPECT and not job.interrupted:
            return Inspection("blank", stamp)
        raise
    if (after := Stamp.of(_first_bytes(job).status)) != stamp:
        return Inspection("changing", after)
    if found.blank or (found.damaged and first.blank):
        return Inspection("blank", stamp)
    return Inspection(
        "complete",
        stamp,
        Content(found.size, found.md5_5m, found.identifier or "", found.digest),
        found.frames,
        found.ppid,
        found.pphash,
        found.sample,
        found.segmenter,
        found.not_applicable,
        found.interrupted,
    )


def job_for_complete(job: Job, found: Inspection) -> Job:
    """Return a job with the content of its input, which was found to be complete.

    Raises
    ------
    MeasurementError
        If it is not; the command `process` does not wait for it.
    """
    if found.verdict != "complete":
        problem, reason = not_complete(found.verdict)
        raise MeasurementError(f"{job.path_in}: {problem}", reason)
    if found.content is None:
        return job
    return dataclasses.replace(job, known=KnownContent(found.stamp, found.content.digest))


def not_complete(verdict: Verdict) -> tuple[str, str]:
    """Return why a file is not processed now, as text and as reason code."""
    match verdict:
        case "complete":
            raise ValueError("a complete file is processed")
        case "own_output":
            return "is a result that was made here", verdict
        case "open_for_writing":
            how = "if it was, --interrupted processes the frames that all features have"
            return f"is open for writing, or its recording was interrupted; {how}", verdict
        case "truncated":
            return "is shorter than its header says: it is still being copied, or was cut off", verdict
        case "blank":
            return "has frames that are all zero, so it was not copied to its end; copy it again", "incomplete"
        case "changing":
            return "is being written", verdict
    assert_never(verdict)


def load() -> None:
    """Import the modules that `inspect_file` needs, before the first file is inspected."""
    # Not at the top: the supervisor imports this module and must not load numerical code. Only the child calls this.
    import dcnumd.logic.inspect  # noqa: PLC0415 -- see above
    import dcnumd.logic.own_output  # noqa: F401, PLC0415 -- likewise


def check_methods(settings: PipelineSettings) -> None:
    """Check that the configured methods exist and accept the configured keywords.

    Raises
    ------
    MethodError
        If they do not.
    """
    from dcnumd.logic.plan import configured_ids  # noqa: PLC0415 -- numerical code

    configured_ids(settings)


@dataclasses.dataclass(frozen=True, slots=True)
class _FirstBytes:
    """Properties of a file that can be read without HDF5."""

    status: os.stat_result
    device: int
    head: bytes
    blank: bool
    """Whether the beginning or the end of the file is all zero."""


def _first_bytes(job: Job) -> _FirstBytes:
    try:
        # O_NONBLOCK: opening a named pipe would otherwise wait for its writer.
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
