"""The process that makes reports, as the daemon calls it: within time limits, and not while something is recorded."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, Protocol, TypeVar

import structlog

from dcnumd.config.values import PlotSettings
from dcnumd.daemon import logs
from dcnumd.daemon.measurements.deadline import Deadline
from dcnumd.errors import DcnumdError, WorkerError
from dcnumd.processes.aside import Aside
from dcnumd.processes.child import Child
from dcnumd.report.calls import warm_up
from dcnumd.words import duration

P = ParamSpec("P")
R = TypeVar("R")

log = structlog.get_logger()

CALL_SECONDS = 120.0
"""Time limit for a call that others wait for [s]."""
ASIDE_SECONDS = 600.0
"""Time limit for a call aside [s]; it is large since such a call may run only when others leave it processor time."""


class ReportCalls(Protocol):
    """Interface of an object that makes reports; see `ReportProcess`, which implements it."""

    @property
    def here(self) -> ReportProcess:
        """The process on this computer, which updates indexes."""

    @property
    def held(self) -> bool:
        """Whether no reports are made, because of a recording."""

    @property
    def capacity(self) -> int:
        """Number of reports that can be made at the same time."""

    async def start(self) -> None:
        """Prepare for the first call."""

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function of `dcnumd.report.calls` that others wait for."""

    async def call_aside(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function of `dcnumd.report.calls` for which others need not wait."""

    def give_way(self, *, idle: bool) -> None:
        """Run calls aside on this computer only when processors are idle, or normally again."""

    def hold(self) -> None:
        """Suspend the calls on this computer."""

    def resume(self) -> None:
        """Resume the calls on this computer."""


class ReportProcess:
    """Calls a child process, and copies of it in which longer calls run aside.

    Parameters
    ----------
    child
        The process.
    settings
        Settings of the standard plot, which say what the process loads in advance.
    """

    capacity = 1

    def __init__(self, child: Child, settings: PlotSettings) -> None:
        self._child = child
        self._aside = Aside(child, logs.flush)
        self._deadlines: set[Deadline] = set()
        self._released = asyncio.Event()
        self._released.set()
        self._aside_free = asyncio.Lock()
        self.use(settings)

    def use(self, settings: PlotSettings) -> None:
        """Take other settings, and the normal priority for calls aside, at the beginning of a session."""
        self._warm_up = functools.partial(warm_up, settings)
        self.give_way(idle=False)

    @property
    def here(self) -> ReportProcess:
        """The process itself."""
        return self

    @property
    def held(self) -> bool:
        """Whether the process is suspended."""
        return not self._released.is_set()

    async def start(self) -> None:
        """Start the process, and have it load what it needs; if that fails, the next call tries again."""
        try:
            await self._child.start(self._warm_up)
        except DcnumdError as error:
            log.warning("worker.failed", role=self._child.name, error=error.message, retry_in_seconds=0)

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function in the process; calls are made one after the other.

        Raises
        ------
        DcnumdError
            If the call fails for any reason or exceeds the time limit.
        """
        await self._released.wait()
        return await self._limited(self._child.call(function, *args, **kwargs), CALL_SECONDS, self._child.kill)

    async def call_aside(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function in a copy of the process, so that others need not wait; such calls wait for each other.

        Raises
        ------
        DcnumdError
            As for `call`.
        """
        async with self._aside_free:
            await self._released.wait()
            return await self._limited(self._aside.call(function, *args, **kwargs), ASIDE_SECONDS, self._aside.kill)

    def give_way(self, *, idle: bool) -> None:
        """Run calls aside only when processors are idle, so that they delay no measurement; or normally again."""
        self._aside.give_way(idle=idle)

    def hold(self) -> None:
        """Suspend the process and its copy, and the clocks of their time limits."""
        self._released.clear()
        self._child.hold()
        for deadline in self._deadlines:
            deadline.hold()

    def resume(self) -> None:
        """Resume the process and its copy, and the clocks of their time limits."""
        self._released.set()
        self._child.resume()
        for deadline in self._deadlines:
            deadline.resume()

    async def _limited(self, call: Coroutine[Any, Any, R], seconds: float, kill: Callable[[], object]) -> R:
        """Wait for a call within a time limit that does not count the time in which the process is held."""
        deadline = Deadline(seconds, 0)
        deadline.stall_seconds = seconds
        self._deadlines.add(deadline)
        task = asyncio.create_task(call, name="report")
        try:
            if await deadline.wait(task) != "done":
                kill()
                await asyncio.wait([task])
                raise WorkerError(f"the report is not made after {duration(seconds)}", "timeout", transient=False)
            return task.result()
        except DcnumdError:
            raise
        except Exception as error:  # the boundary of one report: an error must affect nothing else
            raise WorkerError(f"{type(error).__name__}: {error}", "internal") from error
        finally:
            self._deadlines.discard(deadline)
            task.cancel()
