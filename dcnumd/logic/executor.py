"""What runs inside the pipeline process: one call per job, its progress out, the wish to stop in.

The supervisor imports this module to name its functions, so numerical code is loaded only by calling them.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib
import os
import pathlib
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import structlog

from dcnumd.errors import WorkerError
from dcnumd.fork_server import die_with, start_fork_server
from dcnumd.kernel_cache import ensure_compiled, is_compiled
from dcnumd.logic.job import Job, JobResult, Progress

log = structlog.get_logger()

PROGRESS_SECONDS = 1.0
"""Smallest time between two reports of progress [s]; a change of stage is reported at once."""

ENGINE = "dcnumd.logic.process"


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


class Channel:
    """The child's end of the line to the supervisor: `Progress` goes out, ids of calls to stop come in."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._call_id = ""
        self._to_stop: set[str] = set()
        self._reported_at = 0.0
        self._stage = ""

    def begin(self, call_id: str) -> None:
        """Turn to another call."""
        with self._lock:
            self._call_id, self._stage = call_id, ""

    def report(self, progress: Progress) -> None:
        """Send `progress` unless the last report was only just now."""
        with self._lock:
            now = time.monotonic()
            if progress.stage == self._stage and now - self._reported_at < PROGRESS_SECONDS:
                return
            self._stage, self._reported_at = progress.stage, now
            # Without a supervisor there is nobody to tell; `cancelled` then ends the job.
            with contextlib.suppress(OSError):
                self._connection.send(progress)

    def cancelled(self) -> bool:
        """Return whether the supervisor wants the job to stop, or is gone."""
        with self._lock:
            try:
                while self._connection.poll():
                    self._to_stop.add(self._connection.recv())
            except (OSError, EOFError):
                return True
            return self._call_id in self._to_stop


_channels: list[Channel] = []


def initialize(connection: Connection | None, configure_logs: Callable[[], None], courtesy: Courtesy) -> None:
    """Prepare a child process of the supervisor.

    Parameters
    ----------
    connection
        Line to the supervisor; None for a child that runs no jobs.
    configure_logs
        Sets up logging, which a spawned process does not inherit.
    courtesy
        How much the process steps back behind others.
    """
    # A group of its own: the terminal's Ctrl-C is for the supervisor, and the group can be ended as a whole.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # threads have this from the one that starts them
    courtesy.apply()
    parent = parent_process()
    if parent is not None and parent.pid is not None:
        # The thread takes along whoever else is in the group. Where it does not come to that, the system ends this
        # process; the fork server ends with it in the same way, and the workers with the server.
        threading.Thread(target=_end_with, args=(parent,), name="end with parent", daemon=True).start()
        die_with(parent.pid)
    configure_logs()
    if connection is not None:
        _channels[:] = [Channel(connection)]


def warm_up_ahead() -> None:
    """Start what loads by itself, if it has not to be compiled first."""
    if is_compiled():
        start_fork_server()


def warm_up(num_workers: int) -> None:
    """Load the numerical code and start the workers before the first file needs them.

    Parameters
    ----------
    num_workers
        Number of worker processes; 0 means one for each physical core.
    """
    ensure_compiled(lambda text: log.info("kernels.status", message=text))
    start_fork_server()
    importlib.import_module(ENGINE).engine.start(num_workers)


def wind_down() -> None:
    """Stop the workers of the engine, which would otherwise keep this process from ending."""
    engine = sys.modules.get(ENGINE)
    if engine is not None:
        engine.engine.close()


def run_job(job: Job, call_id: str = "") -> JobResult:
    """Process one measurement and report its progress.

    Parameters
    ----------
    job
        What to do.
    call_id
        By this the supervisor asks for the end of this call, and not of an earlier attempt at the same job.

    Raises
    ------
    DcnumdError
        If the measurement could not be processed.
    JobCancelledError
        If the supervisor asked for the end.
    """
    channel = _channels[0]
    channel.begin(call_id)
    with structlog.contextvars.bound_contextvars(job_id=job.job_id, path=os.fspath(job.path_in)):
        try:
            process = importlib.import_module(ENGINE)
            result: JobResult = process.process_measurement(job, on_progress=channel.report, cancel=channel.cancelled)
        except MemoryError as error:
            raise WorkerError(f"{job.path_in}: not enough memory", "memory", transient=True) from error
    return result


def _end_with(parent: BaseProcess) -> None:
    """End this process and its workers when the supervisor is killed: nobody else would."""
    wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)
