"""The live process, which processes recordings, as the daemon calls it: within time limits."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import structlog

from dcnumd import routing
from dcnumd.config.values import Settings
from dcnumd.errors import DcnumdError, WorkerError
from dcnumd.logic.calls import warm_up_ahead
from dcnumd.processes.child import Child
from dcnumd.report.live_calls import prepare
from dcnumd.words import duration

log = structlog.get_logger()

P = ParamSpec("P")
R = TypeVar("R")

START_SECONDS = 300.0
"""Time limit for the start of the process [s]; a slow computer compiles the kernels for a minute."""
CALL_SECONDS = 60.0
"""Time limit of a call [s]; a share that is down would block it."""
KILL_SECONDS = 5.0
"""Time to wait for a killed process to end [s]; a process in an uninterruptible system call does not end."""


class LiveProcess:
    """Calls a child process, in which all recordings are processed.

    Parameters
    ----------
    child
        The process.
    settings
        Settings with the number of its workers, the models that it loads in advance, and the time between two attempts
        to start it.
    """

    def __init__(self, child: Child, settings: Settings) -> None:
        self._child = child
        self._pause_seconds = settings.retry.backoff_seconds
        self._ready_pid: int | None = None
        pipelines = tuple(map(routing.pipeline_settings, settings.groups))
        self._prepare = warm_up_ahead, functools.partial(prepare, settings.resources.num_workers, pipelines)

    @property
    def pid(self) -> int | None:
        """Process ID; None while there is no process."""
        return self._child.pid

    @property
    def ready(self) -> bool:
        """Whether the process has loaded what it needs, so that a call is answered soon."""
        return self._child.alive and self.pid == self._ready_pid

    async def start(self) -> None:
        """Start the process if there is none.

        Raises
        ------
        WorkerError
            If it cannot be started.
        """
        await self._limited(START_SECONDS, asyncio.create_task(self._child.start(*self._prepare), name="live start"))
        self._ready_pid = self.pid

    async def keep_ready(self) -> None:
        """Start the process, so that a recording need not wait for it, and again whenever it is lost."""
        while True:
            try:
                await self.start()
            except DcnumdError as error:
                seconds = self._pause_seconds
                log.warning("worker.failed", role=self._child.name, error=error.message, retry_in_seconds=seconds)
                await asyncio.sleep(seconds)
            else:
                await self._child.gone.wait()

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function in the process, which is started if there is none; calls are made one after the other.

        Raises
        ------
        DcnumdError
            If the call fails for any reason, or exceeds its time limit.
        """
        await self.start()
        call = asyncio.create_task(self._child.call(function, *args, **kwargs), name="live call")
        return await self._limited(CALL_SECONDS, call)

    def submit(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call a function in the process if there is one, without waiting for its end."""
        if self._child.alive:
            self._child.submit(function, *args, **kwargs)

    async def _limited(self, seconds: float, call: asyncio.Task[R]) -> R:
        try:
            await asyncio.wait([call], timeout=seconds)
            if not call.done():
                self._child.kill()
                await asyncio.wait([call], timeout=KILL_SECONDS)
                if not call.done():
                    # otherwise this would end the process that has replaced it meanwhile
                    self._child.abandon()
                message = f"the {self._child.name} process does not answer for {duration(seconds)}"
                raise WorkerError(message, "timeout", transient=False)
            return call.result()
        except DcnumdError:
            raise
        except Exception as error:  # the boundary of one recording: an error must affect nothing else
            raise WorkerError(f"{type(error).__name__}: {error}", "internal") from error
        finally:
            call.cancel()
