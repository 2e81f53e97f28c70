"""A persistent child process behind the interface of an executor, replaced when it dies."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import ParamSpec, TypeVar

import structlog

from dcnumd.config import LogSettings
from dcnumd.daemon import logs
from dcnumd.errors import DcnumdError, WorkerError
from dcnumd.logic import executor as child_side
from dcnumd.logic.job import Progress

P = ParamSpec("P")
R = TypeVar("R")

log = structlog.get_logger()


class Child:
    """One spawned process that stays for all files; it is started on demand and again after it died.

    Parameters
    ----------
    name
        Its role, for the logs.
    log_settings
        How it logs.
    nice
        How much it steps back behind other processes.
    on_progress
        Receives what a running job reports; None for a child that runs no jobs.
    """

    def __init__(
        self,
        name: str,
        log_settings: LogSettings,
        nice: int,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.name = name
        self._process: BaseProcess | None = None
        self._log_settings = log_settings
        self._nice = nice
        self._on_progress = on_progress
        self._executor: ProcessPoolExecutor | None = None
        self._line: Connection | None = None
        self._prepare: tuple[Callable[[], object], ...] = ()

    @property
    def pid(self) -> int | None:
        """Process id, None while there is no process."""
        return self._process.pid if self._process else None

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `function` in the child and return what it returns.

        Raises
        ------
        WorkerError
            With the reason ``worker_killed`` if the child died; the next call gets a new one.
        """
        try:
            future = await self._submit(functools.partial(function, *args, **kwargs))
            return await asyncio.wrap_future(future)
        except BrokenProcessPool as error:
            self._lost()
            message = f"the {self.name} process was killed while it worked"
            raise WorkerError(message, "worker_killed", transient=True) from error

    async def start(self, *prepare: Callable[[], object]) -> None:
        """Start the process and wait until it is ready, if there is none.

        Parameters
        ----------
        prepare
            Called in the new process, in this order, before anything else; and again in a process that replaces it.

        Raises
        ------
        DcnumdError
            What `prepare` raises.
        WorkerError
            With the reason ``worker_start`` if it dies or cannot load what it needs.
        """
        if self._process is not None and wait([self._process.sentinel], 0):
            # It died while it had nothing to do, which is nobody's fault.
            self._lost()
        if self._executor is not None:
            return
        self._prepare = prepare or self._prepare
        context = multiprocessing.get_context("spawn")
        configure = functools.partial(logs.configure, self._log_settings)
        theirs: Connection | None = None
        if self._on_progress is not None:
            self._line, theirs = context.Pipe()
        self._executor = ProcessPoolExecutor(
            1, context, initializer=child_side.initialize, initargs=(theirs, configure, self._nice)
        )
        before = set(multiprocessing.active_children())
        futures = [self._executor.submit(call) for call in self._prepare or (os.getpid,)]
        self._process = next(iter(set(multiprocessing.active_children()) - before), None)
        if self._line is not None and theirs is not None:
            # The child has its copy now; ours would hide its end.
            theirs.close()
            asyncio.get_running_loop().add_reader(self._line.fileno(), self._receive, self._line)
        try:
            for future in futures:
                await asyncio.wrap_future(future)
        except DcnumdError:
            self._give_up()
            raise
        except Exception as error:
            self._lost()
            # What killed it is not known here; what it raised is.
            why = "its last words are on stderr" if isinstance(error, BrokenProcessPool) else repr(error)
            raise WorkerError(f"the {self.name} process cannot start: {why}", "worker_start", transient=True) from error
        log.info("worker.started", pid=self.pid, role=self.name)

    def ask_to_stop(self, call_id: str) -> None:
        """Ask a call of `run_job` to stop."""
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.send(call_id)

    def kill(self) -> None:
        """End the process and its workers at once."""
        if self._process is None or self._process.pid is None:
            return
        # It leads a group of its own from its first moments on; until then it is alone.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()

    async def close(self, seconds: float) -> None:
        """End the process: asked first, killed after `seconds`."""
        if self._executor is None:
            return
        self._hang_up()
        executor, self._executor = self._executor, None
        with contextlib.suppress(BrokenProcessPool):
            executor.submit(child_side.wind_down)
        ended = asyncio.get_running_loop().run_in_executor(None, executor.shutdown)
        try:
            await asyncio.wait_for(asyncio.shield(ended), seconds)
        except TimeoutError:
            self.kill()
            await ended
        self._process = None

    async def _submit(self, function: Callable[[], R]) -> concurrent.futures.Future[R]:
        await self.start()
        if self._executor is None:
            raise WorkerError(f"the {self.name} process is gone", "worker_killed", transient=True)
        return self._executor.submit(function)

    def _receive(self, line: Connection) -> None:
        try:
            message = line.recv()
        except (EOFError, OSError):
            self._hang_up()
            return
        if self._on_progress is not None:
            self._on_progress(message)

    def _lost(self) -> None:
        log.warning("worker.lost", pid=self.pid, role=self.name)
        self._give_up()

    def _give_up(self) -> None:
        # Its workers are in its group and would be left over.
        self.kill()
        self._hang_up()
        self._process = None
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None

    def _hang_up(self) -> None:
        if self._line is not None:
            asyncio.get_running_loop().remove_reader(self._line.fileno())
            self._line.close()
            self._line = None
