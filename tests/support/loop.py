"""Event loops for tests: one whose time jumps, so that nobody waits for what only time brings."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import selectors
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from unittest import mock

from dcnumd.daemon.folders import availability, hang_guard
from dcnumd.daemon.measurements import runner, settle


class JumpingSelector(selectors.DefaultSelector):
    """Lets the time of its loop pass at once when nothing is there to be done.

    It must not be used where threads or processes are waited for: it would take them for idle.
    """

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0
        """Time that nobody has waited [s]."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; if nothing is, go on to the next timer."""
        if timeout is None:
            return super().select(None)
        found = super().select(0)
        if not found and timeout > 0:
            self.skipped += timeout
        return found


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as everybody waits."""

    def __init__(self) -> None:
        self._jumps = JumpingSelector()
        super().__init__(self._jumps)

    def time(self) -> float:
        """Return the time of this loop [s]."""
        return time.monotonic() + self._jumps.skipped


async def directly(_folder: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function about a folder that answers: in place of the thread that waits for one which may not."""
    return function(*args, **kwargs)


@contextlib.contextmanager
def folders_that_answer() -> Iterator[None]:
    """Have calls about folders made at once, without threads that a jumping clock would not wait for."""
    with contextlib.ExitStack() as stack:
        for module in (availability, runner, settle, hang_guard):
            stack.enter_context(mock.patch.object(module, "in_thread", directly))
        yield


def run_jumping(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in an event loop whose time jumps."""
    with asyncio.Runner(loop_factory=JumpingLoop) as asyncio_runner, folders_that_answer():
        asyncio_runner.run(work)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Have a test that is a coroutine run in an event loop whose time jumps."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_jumping(test(*args, **kwargs))

    return run
