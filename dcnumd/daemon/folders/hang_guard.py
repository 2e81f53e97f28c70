"""Calls that a share may keep waiting for ever: each has a thread of its own, and nobody waits for it without end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
import time
import weakref
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

ANSWER_SECONDS = 30.0
"""Time without an answer after which a file system counts as down [s]."""


class HangGuard:
    """Makes calls about one folder in threads that may hang.

    A call is given up when there is no sign of life for `ANSWER_SECONDS`; one that takes long but gives such signs
    is not. As long as a call that was given up hangs, no other begins, so that threads do not pile up.

    Not a `ThreadPoolExecutor`, and not `asyncio.to_thread`: at its end Python waits for the threads of both.

    Parameters
    ----------
    on_late
        Called when a call that was given up has ended after all.
    """

    def __init__(self, on_late: Callable[[], None] | None = None) -> None:
        self._on_late = on_late
        self._last_sign = 0.0
        self._hanging = 0
        self._silent_since = 0.0

    def give_sign(self) -> None:
        """Note that a call goes on; to be called by what is being called."""
        self._last_sign = time.monotonic()

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what `function` returns in a thread that does not keep this process from ending.

        Raises
        ------
        OSError
            ETIMEDOUT if there was no sign of life for too long, in this call or in an earlier one that still hangs.
            A call that was given up goes on, and nobody hears what it returns.
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
            except BaseException as error:  # noqa: BLE001 -- it belongs to whoever waits
                errors.append(error)
            # The loop may be closed by now.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(lambda: None if ended.done() else ended.set_result(None))

        threading.Thread(target=work, name=getattr(function, "__name__", "call"), daemon=True).start()
        await self._wait_for(ended)
        if errors:
            raise errors.pop()
        # The thread may be slow to end, and must not keep what it found.
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


# A thread that hangs keeps its guard alive, so a folder is forgotten only when all calls have come back.
_guards: weakref.WeakValueDictionary[str, HangGuard] = weakref.WeakValueDictionary()


async def in_thread(folder: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `function` as `HangGuard.call` does, with one guard for everybody who asks about a folder.

    Parameters
    ----------
    folder
        The watched folder, or that of results, which the call is about.
    function
        What to call, with all further arguments.

    Raises
    ------
    OSError
        ETIMEDOUT if there is no answer in time, or if an earlier call there still hangs.
    """
    guard = _guards.get(folder)
    if guard is None:
        guard = _guards[folder] = HangGuard()
    return await guard.call(function, *args, **kwargs)
