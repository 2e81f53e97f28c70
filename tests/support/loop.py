"""An event loop for tests whose clock jumps to the next timer instead of waiting for it."""

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
from dcnumd.daemon.measurements import settle, tracker


class JumpingSelector(selectors.DefaultSelector):
    """A selector that skips waiting times when nothing is ready.

    It must not be used by code that waits for threads or processes: while these work, nothing is ready, so the clock
    would jump ahead of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0
        """Sum of the skipped waiting times [s]."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the ready files; if there are none, skip the time to the next timer."""
        if timeout is None:
            return super().select(None)
        found = super().select(0)
        if not found and timeout > 0:
            self.skipped += timeout
        return found


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when all tasks wait."""

    def __init__(self) -> None:
        self._jumps = JumpingSelector()
        super().__init__(self._jumps)

    def time(self) -> float:
        """Return the time of this loop [s]."""
        return time.monotonic() + self._jumps.skipped


async def directly(_folder: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function at once; replaces `in_thread`, which protects against folders that do not respond."""
    return function(*args, **kwargs)


@contextlib.contextmanager
def folders_that_answer() -> Iterator[None]:
    """Replace threads for calls about folders by direct calls. Why: a jumping clock does not wait for threads."""
    with contextlib.ExitStack() as stack:
        for module in (availability, settle, tracker, hang_guard):
            stack.enter_context(mock.patch.object(module, "in_thread", directly))
        yield


def run_jumping(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine in a `JumpingLoop`."""
    with asyncio.Runner(loop_factory=JumpingLoop) as asyncio_runner, folders_that_answer():
        asyncio_runner.run(work)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Decorate a test that is a coroutine function, so that it runs in a `JumpingLoop`."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_jumping(test(*args, **kwargs))

    return run


def in_real_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Decorate a test that is a coroutine function, so that it runs in an event loop whose clock does not jump."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds that tells nobody when it does; the time limit of the test ends it otherwise."""
    while not condition():  # noqa: ASYNC110 -- see above
        await asyncio.sleep(0.005)
