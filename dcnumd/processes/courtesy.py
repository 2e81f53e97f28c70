"""How much a process steps back behind others, the recording above all."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import platform

IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
"""Numbers of the system call ioprio_set, which the C library does not have."""
IOPRIO_WHO_PROCESS = 1
IOPRIO_IDLE = 3 << 13
"""The class of those who read and write when nobody else does."""
OOM_SCORE = 500
"""When memory runs out, these processes end first (-1000 to 1000; usual is 0), since they can be started again."""


@dataclasses.dataclass(frozen=True, slots=True)
class Courtesy:
    """How much a process steps back behind others, the recording above all."""

    nice: int
    """0 is not at all, 19 most."""
    cpus: tuple[int, ...] = ()
    """Processors that it may use; empty: all."""
    idle: bool = False
    """Use them only when nobody else does; means nothing without `nice`."""

    def apply(self) -> None:
        """Step back, this process and those that it starts; what the system refuses is left out."""
        if self.cpus:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, self.cpus)
        if not self.nice:
            return
        with contextlib.suppress(OSError):
            os.nice(self.nice)
        self.schedule(0)
        if (number := IOPRIO_SET.get(platform.machine())) is not None:
            # a refusal is told by the value that it returns
            ctypes.CDLL(None).syscall(number, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE)
        with contextlib.suppress(OSError):
            pathlib.Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))

    def schedule(self, thread: int) -> None:
        """Put a thread, 0 is this one, in its scheduling class; out of the idle one, the system lets only some."""
        with contextlib.suppress(OSError):
            os.sched_setscheduler(thread, os.SCHED_IDLE if self.idle else os.SCHED_BATCH, os.sched_param(0))
