"""Calls that a share may keep waiting for ever: each has a thread of its own, and nobody waits for it without end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

ANSWER_SECONDS = 30.0
"""A file system that says nothing for so long is down."""
MAX_WAITING = 16
"""So many calls may hang at the same time; further ones fail at once."""

_waiting = threading.Semaphore(MAX_WAITING)


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `function` in a thread that does not keep this process from ending.

    Raises
    ------
    OSError
        ETIMEDOUT if there is no answer in time; the call goes on, and nobody hears what it returns.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[R] = loop.create_future()
    if not _waiting.acquire(blocking=False):
        raise OSError(errno.ETIMEDOUT, f"{MAX_WAITING} calls before this one have had no answer")

    def work() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 -- it belongs to whoever waits for the answer
            settle(answer.set_exception, error)
        else:
            settle(answer.set_result, result)
        finally:
            _waiting.release()

    def settle(how: Callable[..., None], value: object) -> None:
        # The loop may be closed by now, and the answer given up.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if answer.done() else how(value))

    threading.Thread(target=work, name=getattr(function, "__name__", "call"), daemon=True).start()
    try:
        return await asyncio.wait_for(answer, ANSWER_SECONDS)
    except TimeoutError as error:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from error
