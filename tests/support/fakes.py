"""What takes the place of processes: calls are made here and now, and have ended when they return."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any

from dcnumd.logic.job import Job


class HereAndNow(concurrent.futures.Executor):
    """Calls each function at once, in this thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """Return what a call has returned, or raised."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 -- as an executor does
            future.set_exception(error)
        return future


class FakeExecutor:
    """A `JobExecutor` whose jobs end at once, unless a test hands it a pool in which they do not."""

    capacity, alive, losses = 1, True, 0

    def __init__(self, pool: concurrent.futures.Executor | None = None) -> None:
        self.pool = pool or HereAndNow()
        self.calls: list[tuple[str, str]] = []
        """What was asked for, and for which job."""

    async def start(self) -> None:
        """Be ready at once."""

    async def wait_until_lost(self) -> None:
        """Never be lost."""
        await asyncio.Event().wait()

    def explain(self, error: BaseException, _: Job) -> BaseException:
        """Return what a job has raised."""
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
        """Have nothing to close."""


class FakeChild:
    """What a child process is for the daemon: calls are made in this process."""

    name, alive, losses = "probe", True, 0

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function."""
        return function(*args, **kwargs)

    async def start(self, *_: Callable[[], object]) -> None:
        """Be ready at once."""

    def give_way(self, *, idle: bool) -> None:
        """Take no notice."""

    def hold(self) -> None:
        """Take no notice."""

    def resume(self) -> None:
        """Take no notice."""

    async def close(self, _: float) -> None:
        """Have nothing to close."""
