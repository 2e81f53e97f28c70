"""Low priority for processing, so that it does not disturb the recording."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import platform

IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
"""Number of the system call ioprio_set for each machine type; the C library has no function for it."""
IOPRIO_WHO_PROCESS = 1
IOPRIO_IDLE = 3 << 13
"""I/O priority: only while no other process accesses the disk."""
OOM_SCORE = 500
"""Value of ``oom_score_adj`` (-1000 to 1000, normally 0): when memory runs out, these processes are killed first, since
they can be started again."""


@dataclasses.dataclass(frozen=True, slots=True)
class Courtesy:
    """Priority of a process in relation to other processes, in particular the recording.

    Why not a nice value alone? The process would still compete for the disk, and for memory.
    """

    nice: int
    """Nice value, from 0 for normal priority to 19 for the lowest."""
    cpus: tuple[int, ...] = ()
    """Numbers of the processors that the process may use; empty for all."""

    def apply(self) -> None:
        """Apply this priority to this process and those that it starts; ignore what the system does not permit."""
        if self.cpus:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, self.cpus)
        if not self.nice:
            return
        with contextlib.suppress(OSError):
            os.nice(self.nice)
        schedule(0, idle=False)
        if (number := IOPRIO_SET.get(platform.machine())) is not None:
            # Failures are ignored: the system call returns a value, and raises nothing.
            ctypes.CDLL(None).syscall(number, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE)
        with contextlib.suppress(OSError):
            pathlib.Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def schedule(process: int, *, idle: bool) -> None:
    """Set the scheduling class of the main thread of a process, 0 for this thread; ignore what is not permitted.

    Parameters
    ----------
    process
        Process ID.
    idle
        Whether to run only while a processor would otherwise be idle. Without privileges, this class cannot be left.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(process, os.SCHED_IDLE if idle else os.SCHED_BATCH, os.sched_param(0))
