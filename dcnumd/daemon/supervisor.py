"""The daemon: watches, settles, queues, and has measurements processed, until it is asked to stop.

This process loads no numerical code and opens no measurement; what may crash or block runs in its children.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import pathlib
import signal
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import structlog

from dcnumd import __version__
from dcnumd.config import Settings
from dcnumd.daemon.child import Child
from dcnumd.daemon.jobs import JobRunner
from dcnumd.daemon.ledger import Ledger
from dcnumd.daemon.ownership import owner_lock
from dcnumd.daemon.probe import check_methods, load
from dcnumd.daemon.settle import Gate
from dcnumd.daemon.watch import FolderWatch, Found
from dcnumd.errors import ConfigError, WorkerError
from dcnumd.logic.executor import warm_up, warm_up_ahead

log = structlog.get_logger()

HEARTBEAT_SECONDS = 60.0
START_SECONDS = 300.0
"""The pipeline process has so long to be ready; on a slow computer, compiling the kernels takes a minute."""
CLOSE_SECONDS = 2.0
"""An idle child process has so long to end by itself."""


def run_daemon(settings: Settings, *, once: bool = False) -> int:
    """Run until a signal asks for the end, or with `once` until everything that is there was dealt with.

    Returns
    -------
    code
        The exit code: 0, or with `once` 1 if a measurement failed.

    Raises
    ------
    DcnumdError
        If the ledger cannot be used, because another daemon owns it for example.
    """
    # `retry` and `forget` send this to whoever owns the ledger, also before and after it is heeded.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    with owner_lock(settings.state_folder()), Ledger.open(settings.state_folder()) as ledger:
        return asyncio.run(Supervisor(settings, ledger, once=once).run())


class Supervisor:
    """Owns the tasks and the child processes of one run."""

    def __init__(self, settings: Settings, ledger: Ledger, *, once: bool) -> None:
        self._settings = settings
        self._ledger = ledger
        self._once = once
        self._stop = asyncio.Event()
        self._scanned = asyncio.Event()
        self._ready = False
        self._pipeline_up = asyncio.Event()
        self._start_error: ConfigError | WorkerError | None = None
        self._probe = Child("probe", settings.log, settings.resources.nice)
        self._jobs = JobRunner(settings, ledger, self._look_whether_finished, once=once)
        self._gate = Gate(settings, ledger, self._probe, self._jobs.enqueue, self._look_whether_finished, once=once)
        self._folders = [FolderWatch(folder, settings, self._offer) for folder in settings.watch.folders]

    async def run(self) -> int:
        """Run, and return the exit code."""
        log.info(
            "daemon.started",
            version=__version__,
            pid=os.getpid(),
            config=os.fspath(self._settings.source) if self._settings.source else None,
            state_folder=os.fspath(self._settings.state_folder()),
            folders=[os.fspath(folder) for folder in self._settings.watch.folders],
        )
        for entry in self._ledger.recover():
            log.info("job.recovered", job_id=entry.job_id, path=entry.path, ppid=entry.ppid, pphash=entry.pphash)
        try:
            await self._run_tasks()
        except Exception as error:
            log.critical("daemon.stopped", failures=self._gate.failures, error=repr(error), exc_info=error)
            return 1
        if isinstance(self._start_error, ConfigError):
            raise ConfigError(f"{self._settings.source}: pipeline: {self._start_error.message}") from self._start_error
        if self._start_error is not None:
            log.critical("daemon.stopped", failures=self._gate.failures, error=self._start_error.message)
            return 1
        log.info("daemon.stopped", failures=self._gate.failures)
        return 1 if self._once and self._gate.failures else 0

    async def _run_tasks(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self._signals())
            stack.push_async_callback(self._probe.close, CLOSE_SECONDS)
            stack.push_async_callback(self._jobs.pipeline.close, CLOSE_SECONDS)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work, name=name) for name, work in self._work().items()]
                await self._stop.wait()
                log.info("daemon.stopping")
                for task in tasks:
                    task.cancel()

    async def _start_pipeline(self) -> None:
        """Start the pipeline process with methods that exist; without it the daemon is of no use, and ends."""
        check = functools.partial(check_methods, self._settings.pipeline_settings())
        start_workers = functools.partial(warm_up, self._settings.resources.num_workers)
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._jobs.pipeline.start(warm_up_ahead, check, start_workers)
        except TimeoutError:
            self._start_error = WorkerError(
                f"the pipeline process is not ready after {START_SECONDS:g} s", "worker_start"
            )
            self._stop.set()
        except (ConfigError, WorkerError) as error:
            self._start_error = error
            self._stop.set()
        else:
            self._pipeline_up.set()

    def _work(self) -> dict[str, Coroutine[Any, Any, None]]:
        work: dict[str, Coroutine[Any, Any, None]] = {
            # It takes longest, so it begins first.
            "start": self._start_pipeline(),
            "settle": self._gate.keep_settling(),
            "look": self._run_looks(),
            "jobs": self._run_jobs(),
            "heartbeat": self._beat(),
            "ready": self._report_ready(),
        }
        if self._once:
            return {**work, "scan": self._scan_once()}
        for folder in self._folders:
            work[f"watch {folder.folder}"] = folder.keep_watching()
        return work

    async def _run_looks(self) -> None:
        # Methods that do not exist are no measurement's fault. The pipeline alone decides when the daemon is ready,
        # so the probe leaves the processor to it; the first file settles meanwhile.
        await self._pipeline_up.wait()
        with contextlib.suppress(WorkerError):
            await self._probe.start(load)
        await self._gate.keep_looking()

    async def _run_jobs(self) -> None:
        # A start that fails is no measurement's fault and must not cost it an attempt.
        await self._pipeline_up.wait()
        await self._jobs.keep_running(self._gate)

    async def _scan_once(self) -> None:
        for folder in self._folders:
            await folder.scan()
        self._scanned.set()

    async def _report_ready(self) -> None:
        """Report that a measurement is noticed and processed from now on: folders are watched, the workers wait."""
        for seen in [self._scanned] if self._once else [folder.ready for folder in self._folders]:
            await seen.wait()
        await self._pipeline_up.wait()
        log.info("daemon.ready", seconds=round(seconds_since_start(), 2))
        self._ready = True
        self._look_whether_finished()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            running = self._jobs.running
            log.info(
                "daemon.heartbeat",
                queue=self._jobs.queue_length,
                oldest_wait_seconds=round(self._jobs.oldest_wait(), 1),
                settling=len(self._gate.candidates),
                running=running.path if running else None,
                last_success=self._jobs.last_success,
            )

    def _offer(self, found: Found) -> None:
        self._gate.offer(found)

    def _look_whether_finished(self) -> None:
        """With ``--once``, stop when nothing is left to do."""
        idle = not self._gate.candidates and not self._jobs.queue_length and self._jobs.running is None
        if self._once and self._ready and idle:
            self._stop.set()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Heed signals: the first SIGTERM or SIGINT asks for the end, the second forces it; SIGUSR1 rescans."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGUSR1, self._on_look_again)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                loop.remove_signal_handler(number)
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def _on_stop_signal(self) -> None:
        if self._stop.is_set():
            self._jobs.forced.set()
        self._stop.set()

    def _on_look_again(self) -> None:
        for folder in self._folders:
            folder.look_again()


def seconds_since_start() -> float:
    """Return for how long this process has been there [s], with what Python took to load."""
    # The fields of proc(5) from the third one on; what comes before may hold spaces. The 22nd is the start.
    fields = pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[22 - 3]) / os.sysconf("SC_CLK_TCK")
