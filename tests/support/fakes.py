"""Stand-ins for processes: calls run in this thread and have ended when they return."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any

from dcnumd.logic.job import Job
from dcnumd.processes.courtesy import Courtesy


class HereAndNow(concurrent.futures.Executor):
    """An executor that calls each function at once, in this thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """Call a function, and return a future with its result or exception."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 -- as an executor does
            future.set_exception(error)
        return future


class FakeExecutor:
    """A `JobExecutor` whose jobs end at once, unless a test gives it another pool."""

    capacity, alive, losses, local, cluster = 1, True, 0, True, None

    def __init__(self, pool: concurrent.futures.Executor | None = None) -> None:
        self.pool = pool or HereAndNow()
        self.calls: list[tuple[str, str]] = []
        """Name of each call, and ID of its job."""

    async def start(self) -> None:
        """Do nothing: there is nothing to start."""

    def load(self, _: object) -> None:
        self.calls.append(("load", ""))

    async def wait_until_lost(self) -> None:
        """Wait forever: no process can be lost."""
        await asyncio.Event().wait()

    def explain(self, error: BaseException, _: Job) -> BaseException:
        """Return the exception of a job unchanged."""
        return error

    def hold(self) -> None:
        self.calls.append(("hold", ""))

    def resume(self) -> None:
        self.calls.append(("resume", ""))

    def ask_to_stop(self, job: Job) -> None:
        self.calls.append(("ask_to_stop", job.job_id))

    def terminate(self, job: Job) -> None:
        self.calls.append(("terminate", job.job_id))

    def kill(self, job: Job) -> None:
        self.calls.append(("kill", job.job_id))

    async def close(self, _: float) -> None:
        """Do nothing: there is nothing to close."""


class FakeChild:
    """A stand-in for a child process, whose calls run in this process."""

    name, alive, losses, courtesy = "probe", True, 0, Courtesy(0)

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function."""
        return function(*args, **kwargs)

    async def start(self, *_: Callable[[], object]) -> None:
        """Do nothing: there is nothing to start."""

    def kill(self) -> None:
        """Do nothing: there is no process."""

    def hold(self) -> None:
        """Do nothing: there is no process."""

    def resume(self) -> None:
        """Do nothing: there is no process."""

    async def close(self, _: float) -> None:
        """Do nothing: there is nothing to close."""
