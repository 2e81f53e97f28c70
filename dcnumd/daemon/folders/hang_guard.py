"""Calls that may block forever because of a share: each has a thread to itself, and callers wait for a limited time."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

ANSWER_SECONDS = 30.0
"""Time without a response after which a file system counts as unavailable [s]."""
IDLE_THREADS = 4
"""Largest number of threads that wait for a further call, because the start of one takes longer than most calls."""


class HangGuard:
    """Runs calls about one folder in threads that may block.

    A call is given up if there is no sign of progress for `ANSWER_SECONDS`; a long call that gives such signs is not.
    As long as a call that was given up blocks, no other call begins, so that threads do not accumulate.

    Why not a `ThreadPoolExecutor` or `asyncio.to_thread`? Python waits for the threads of both when it exits.

    Parameters
    ----------
    on_late
        Function that is called when a call that was given up has ended after all.
    """

    def __init__(self, on_late: Callable[[], None] | None = None) -> None:
        self._on_late = on_late
        self._last_sign = 0.0
        self._hanging = 0
        self._silent_since = 0.0

    def give_sign(self) -> None:
        """Record that a call makes progress; the called function calls this."""
        self._last_sign = time.monotonic()

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the result of `function`, called in a thread that does not prevent this process from exiting.

        Raises
        ------
        OSError
            ETIMEDOUT if there was no sign of progress for too long, in this call or in an earlier one that still hangs.
            The thread of a call that was given up continues, and its result is dropped.
        """
        if self._hanging:
            raise self._silence()
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        results: list[R] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                results.append(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 -- it is raised in the caller
                errors.append(error)
            # The loop may be closed by now.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(lambda: None if ended.done() else ended.set_result(None))

        _call_in_thread(work, getattr(function, "__name__", "call"))
        await self._wait_for(ended)
        if errors:
            raise errors.pop()
        # Remove the result from the list, which the thread keeps alive until it ends.
        return results.pop()

    async def _wait_for(self, ended: asyncio.Future[None]) -> None:
        begin = time.monotonic()
        while not ended.done():
            heard = max(begin, self._last_sign)
            left = heard + ANSWER_SECONDS - time.monotonic()
            if left <= 0:
                self._hanging += 1
                self._silent_since = heard
                ended.add_done_callback(self._come_back)
                raise self._silence()
            await asyncio.wait([ended], timeout=left)

    def _come_back(self, _: asyncio.Future[None]) -> None:
        self._hanging -= 1
        if self._on_late is not None:
            self._on_late()

    def _silence(self) -> OSError:
        return OSError(errno.ETIMEDOUT, f"no answer for {time.monotonic() - self._silent_since:.0f} s")


class _Caller(threading.Thread):
    """A thread that makes one call after the other, and does not keep this process from ending."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def make(self, call: Callable[[], None], name: str) -> None:
        """Make a call; the thread has its name as long as it is the last one."""
        self.name = name
        self._calls.put(call)

    def run(self) -> None:
        """Make calls, as long as not too many others are idle."""
        while True:
            call = self._calls.get()
            call()
            # What the call refers to must not live until the next one.
            del call
            if len(_idle) >= IDLE_THREADS:
                return
            _idle.append(self)


_idle: collections.deque[_Caller] = collections.deque()
# Threads do not exist in a forked process.
os.register_at_fork(after_in_child=_idle.clear)


def _call_in_thread(call: Callable[[], None], name: str) -> None:
    try:
        caller = _idle.pop()
    except IndexError:
        caller = _Caller()
        caller.start()
    caller.make(call, name)


# A blocked thread keeps its guard alive, so the guard of a folder is removed only when all its calls have ended.
_guards: weakref.WeakValueDictionary[str, HangGuard] = weakref.WeakValueDictionary()


async def in_thread(folder: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `function` like `HangGuard.call`, with one guard for all calls about the same folder.

    Parameters
    ----------
    folder
        Watched folder, or folder of results, that the call is about.
    function
        Function to call with all further arguments.

    Raises
    ------
    OSError
        ETIMEDOUT if there is no response in time, or if an earlier call about this folder still blocks.
    """
    guard = _guards.get(folder)
    if guard is None:
        guard = _guards[folder] = HangGuard()
    return await guard.call(function, *args, **kwargs)
