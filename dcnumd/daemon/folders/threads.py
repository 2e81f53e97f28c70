"""Calls that a share may keep waiting for ever: each has a thread of its own, and nobody waits for it without end."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import os
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

ANSWER_SECONDS = 30.0
"""Time without an answer after which a file system counts as down [s]."""

_hanging: collections.Counter[str] = collections.Counter()
"""For each folder, calls that nobody waits for any more and that have not come back."""


async def in_thread(folder: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `function` in a thread that does not keep this process from ending.

    Parameters
    ----------
    folder
        The watched folder, or that of results, which the call is about: while one call hangs there, no other follows.
    function
        What to call, with all further arguments.

    Raises
    ------
    OSError
        ETIMEDOUT if there is no answer in time; the call goes on, and nobody hears what it returns.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[R] = loop.create_future()
    given_up = threading.Event()
    if _hanging[folder] > 0:
        raise OSError(errno.ETIMEDOUT, "an earlier call there has had no answer so far")

    def work() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 -- it belongs to whoever waits for the answer
            settle(answer.set_exception, error)
        else:
            settle(answer.set_result, result)
        finally:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(came_back)

    def came_back() -> None:
        if given_up.is_set():
            _hanging[folder] -= 1

    def settle(how: Callable[..., None], value: object) -> None:
        # The loop may be closed by now, and the answer given up.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if answer.done() else how(value))

    threading.Thread(target=work, name=getattr(function, "__name__", "call"), daemon=True).start()
    try:
        # The function may itself raise a TimeoutError: a share's, which has answered.
        if (await asyncio.wait([answer], timeout=ANSWER_SECONDS))[0]:
            return answer.result()
    finally:
        # Also tells Python that nobody asks for it any more, if it is there.
        answer.cancel()
    # Both this and `came_back` run in the event loop, so none is counted twice.
    given_up.set()
    _hanging[folder] += 1
    raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
