"""A persistent child process behind the interface of an executor, replaced when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
import pathlib
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
    """One spawned process that stays for all files; it is started on demand and again after it died.

    Parameters
    ----------
    name
        Its role, for the logs.
    configure_logs
        Sets up its logs; it must pickle.
    courtesy
        How much it steps back behind other processes.
    on_note
        Receives, in the event loop, what a running call tells.
    """

    def __init__(
        self,
        name: str,
        configure_logs: Callable[[], object],
        courtesy: Courtesy,
        on_note: Callable[[Any], object] | None = None,
    ) -> None:
        self.name = name
        self.gone = asyncio.Event()
        """Set when the process has died, until it is started again."""
        self.losses = 0
        """How often it has died."""
        self._configure_logs = configure_logs
        self._courtesy = courtesy
        self._on_note = on_note
        self._executor: PipeExecutor | None = None
        self._prepare: tuple[Callable[[], object], ...] = ()

    @property
    def pid(self) -> int | None:
        """Process id, None while there is no process."""
        return self._executor.process.pid if self._executor else None

    @property
    def alive(self) -> bool:
        """Whether there is a process, be it held or not."""
        return self._executor is not None and self._executor.process.is_alive()

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `function` in the child and return what it returns.

        Raises
        ------
        WorkerError
            With the reason ``worker_killed`` if the child died; the next call gets a new one.
        """
        await self.start()
        executor = self._executor
        try:
            return await asyncio.wrap_future(self.submit(function, *args, **kwargs))
        except ProcessDied as error:
            self._lost(executor)
            raise self.explain(error) from error

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have a function called in the process, as `concurrent.futures.Executor.submit`.

        The future ends with `ProcessDied` if there is no process, or it dies; `explain` says what that means.
        """
        if self._executor is None:
            future: Future[R] = Future()
            future.set_exception(ProcessDied())
            return future
        return self._executor.submit(function, *args, **kwargs)

    def explain(self, death: ProcessDied) -> WorkerError:
        """Return the error of a call that the process did not live to answer."""
        return WorkerError(f"the {self.name} process {death.end} while it worked", "worker_killed")

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
            With the reason ``worker_start`` if it dies or cannot load what it needs; transient if it was killed.
        """
        if self._executor is not None and self._executor.dead:
            self._lost(self._executor)
        if self._executor is not None:
            return
        self._prepare = prepare or self._prepare
        courtesy = self._courtesy
        try:
            executor = self._spawn()
        except OSError as error:
            # The system has no memory, or no process, to give away just now.
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
            # What killed it is not known here; what it raised is.
            died = isinstance(error, ProcessDied)
            why = f"{error}; its last words are on stderr" if died else repr(error)
            killed = died and (executor.process.exitcode or 0) < 0
            message = f"the {self.name} process cannot start: {why}"
            raise WorkerError(message, "worker_start", transient=killed) from error
        if courtesy != self._courtesy:
            # It was to give way, or no longer, while it began with what held before.
            self._schedule()
        log.info("worker.started", pid=executor.process.pid, role=self.name)

    def ask_to_stop(self) -> None:
        """Tell the call that is running that it is not wanted any more."""
        if self._executor is not None:
            self._executor.ask_to_stop()

    def hold(self) -> None:
        """Stop the process and its workers where they are."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def give_way(self, *, idle: bool) -> None:
        """Leave the processors to whoever wants them, or use them like others again; nothing without any courtesy."""
        if self._courtesy.nice and self._courtesy.idle != idle:
            self._courtesy = dataclasses.replace(self._courtesy, idle=idle)
            self._schedule()

    def terminate(self) -> None:
        """Have the process and its workers end by SIGTERM."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process and its workers at once."""
        if self._executor is not None:
            _end_group(self._executor)

    def abandon(self) -> None:
        """Let go of a process that cannot even be killed at this moment; the next call gets a new one."""
        self._lost(self._executor)

    async def close(self, seconds: float) -> None:
        """End the process: asked first, killed after `seconds`."""
        executor = self._executor
        if executor is None:
            return
        self.resume()
        # From here on its end is no loss.
        self._executor = None
        ended = asyncio.get_running_loop().run_in_executor(None, executor.shutdown)
        if not (await asyncio.wait([ended], timeout=seconds))[0]:
            _end_group(executor)
            await ended

    def _spawn(self) -> PipeExecutor:
        loop = asyncio.get_running_loop()
        prepare = functools.partial(join_owner, self._configure_logs, self._courtesy)
        executor = self._executor = PipeExecutor(prepare, lambda note: _call_soon(loop, self._receive, note))
        self.gone.clear()
        # Also noticed when it has nothing to do.
        executor.ended.add_done_callback(lambda _: _call_soon(loop, self._lost, executor))
        return executor

    def _schedule(self) -> None:
        if self.pid is not None:
            with contextlib.suppress(OSError):
                for thread in pathlib.Path(f"/proc/{self.pid}/task").iterdir():
                    self._courtesy.schedule(int(thread.name))

    def _signal(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid is not None and self.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)

    def _receive(self, note: object) -> None:
        if self._on_note is not None:
            self._on_note(note)

    def _lost(self, executor: PipeExecutor | None) -> None:
        """Take note that a process has died, once."""
        if executor is None or executor is not self._executor:
            return
        self.losses += 1
        log.warning("worker.lost", pid=executor.process.pid, role=self.name)
        self._give_up()

    def _give_up(self) -> None:
        # Its workers are in its group and would be left over.
        if self._executor is not None:
            _end_group(self._executor)
        self._executor = None
        self.gone.set()


def _end_group(executor: PipeExecutor) -> None:
    """Kill a process and its workers, or the workers of a process that is dead."""
    if executor.process.pid is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(executor.process.pid, signal.SIGKILL)
    # It leads a group of its own from its first moments on; until then it is alone.
    executor.process.kill()


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[T], object], argument: T) -> None:
    # The loop may have ended before the process.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, argument)
