"""A persistent child process that executes calls, and is replaced when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

import structlog

from dcnumd.errors import DcnumdError, WorkerError
from dcnumd.processes.child_line import join_owner
from dcnumd.processes.courtesy import Courtesy
from dcnumd.processes.pipe_executor import PipeExecutor, ProcessDied

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

log = structlog.get_logger()


class Child:
    """A spawned process that serves all files; it is started on demand, and again after it has died.

    Parameters
    ----------
    name
        Role of the process, which the logs name.
    configure_logs
        Function that sets up logging in the process; it must be picklable.
    courtesy
        Priority of the process.
    on_note
        Function that is called in the event loop with each note that a running call sends.
    """

    def __init__(
        self,
        name: str,
        configure_logs: Callable[[], object],
        courtesy: Courtesy,
        on_note: Callable[[Any], object] | None = None,
    ) -> None:
        self.name = name
        self.courtesy = courtesy
        """Priority of the process."""
        self.gone = asyncio.Event()
        """Event that is set from the death of the process until it is started again."""
        self.losses = 0
        """Number of times the process has died."""
        self._configure_logs = configure_logs
        self.on_note = on_note
        """Function that is called with each note of a running call."""
        self._executor: PipeExecutor | None = None
        self._prepare: tuple[Callable[[], object], ...] = ()

    @property
    def pid(self) -> int | None:
        """Process ID; None while there is no process."""
        return self._executor.process.pid if self._executor else None

    @property
    def alive(self) -> bool:
        """Whether there is a process, running or suspended."""
        return self._executor is not None and self._executor.process.is_alive()

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `function` in the child and return what it returns.

        Raises
        ------
        WorkerError
            With the reason ``worker_killed`` if the child died; the next call starts a new one.
        """
        await self.start()
        executor = self._executor
        try:
            return await asyncio.wrap_future(self.submit(function, *args, **kwargs))
        except ProcessDied as error:
            self._lost(executor)
            raise self.explain(error) from error

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Schedule a call in the process, as `concurrent.futures.Executor.submit` does.

        The future fails with `ProcessDied` if there is no process or it dies; `explain` converts this error.
        """
        if self._executor is None:
            future: Future[R] = Future()
            future.set_exception(ProcessDied())
            return future
        return self._executor.submit(function, *args, **kwargs)

    def explain(self, death: ProcessDied) -> WorkerError:
        """Return the error for a call during which the process died."""
        return WorkerError(f"the {self.name} process {death.end} while it worked", "worker_killed")

    async def start(self, *prepare: Callable[[], object]) -> None:
        """Start the process if there is none, and wait until it is ready.

        Parameters
        ----------
        prepare
            Functions that are called in the new process, in this order, before anything else, and again in each
            process that replaces it.

        Raises
        ------
        DcnumdError
            If a function in `prepare` raises it.
        WorkerError
            With the reason ``worker_start`` if the process dies or fails to start; transient if it was killed.
        """
        if self._executor is not None and self._executor.dead:
            self._lost(self._executor)
        if self._executor is not None:
            return
        self._prepare = prepare or self._prepare
        try:
            executor = self._spawn()
        except OSError as error:
            # For example, the system is short of memory, or has reached its limit of processes.
            message = f"the {self.name} process cannot be started: {error.strerror}"
            raise WorkerError(message, "worker_start", transient=True) from error
        futures = [executor.submit(call) for call in self._prepare or (os.getpid,)]
        try:
            for future in futures:
                await asyncio.wrap_future(future)
        except DcnumdError:
            self._give_up()
            raise
        except Exception as error:
            self._lost(executor)
            # An exception that it raised is known here; the cause of its death is not.
            died = isinstance(error, ProcessDied)
            why = f"{error}; its last words are on stderr" if died else repr(error)
            killed = died and (executor.process.exitcode or 0) < 0
            message = f"the {self.name} process cannot start: {why}"
            raise WorkerError(message, "worker_start", transient=killed) from error
        log.info("worker.started", pid=executor.process.pid, role=self.name)

    def ask_to_stop(self) -> None:
        """Ask the running call to stop."""
        if self._executor is not None:
            self._executor.ask_to_stop()

    def hold(self) -> None:
        """Suspend the process and its workers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume the process and its workers."""
        self._signal(signal.SIGCONT)

    def terminate(self) -> None:
        """End the process and its workers by SIGTERM."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the process and its workers."""
        if self._executor is not None:
            _end_group(self._executor)

    def abandon(self) -> None:
        """Give up a process that cannot be killed, for example during disk access; the next call starts a new one."""
        self._lost(self._executor)

    async def close(self, seconds: float) -> None:
        """Ask the process to end, and kill it if it has not ended after `seconds` [s]."""
        executor = self._executor
        if executor is None:
            return
        self.resume()
        # From here on, its end is not logged as a loss.
        self._executor = None
        ended = asyncio.get_running_loop().run_in_executor(None, executor.shutdown)
        if not (await asyncio.wait([ended], timeout=seconds))[0]:
            _end_group(executor)
            await ended

    def _spawn(self) -> PipeExecutor:
        loop = asyncio.get_running_loop()
        prepare = functools.partial(join_owner, self._configure_logs, self.courtesy)
        executor = self._executor = PipeExecutor(prepare, lambda note: _call_soon(loop, self._receive, note))
        self.gone.clear()
        # This also detects a death between two calls.
        executor.ended.add_done_callback(lambda _: _call_soon(loop, self._lost, executor))
        return executor

    def _signal(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid is not None and self.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)

    def _receive(self, note: object) -> None:
        if self.on_note is not None:
            self.on_note(note)

    def _lost(self, executor: PipeExecutor | None) -> None:
        """Record the death of a process; without effect if it was recorded before."""
        if executor is None or executor is not self._executor:
            return
        self.losses += 1
        log.warning("worker.lost", pid=executor.process.pid, role=self.name)
        self._give_up()

    def _give_up(self) -> None:
        # Its workers belong to its process group, and would otherwise survive it.
        if self._executor is not None:
            _end_group(self._executor)
        self._executor = None
        self.gone.set()


def _end_group(executor: PipeExecutor) -> None:
    """Kill a process and its workers; the process may be dead already."""
    if executor.process.pid is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(executor.process.pid, signal.SIGKILL)
    # In its first moments the process has no group of its own yet, and no workers.
    executor.process.kill()


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[T], object], argument: T) -> None:
    # The event loop may have been closed before the process ended.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, argument)
