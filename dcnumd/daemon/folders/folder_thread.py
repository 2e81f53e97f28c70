"""Work on one folder in a thread that may hang without keeping anybody else, or the end of this process, waiting."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from dcnumd.daemon.folders import threads

P = ParamSpec("P")
R = TypeVar("R")


class FolderThread:
    """Makes one call at a time; while one hangs, no other begins.

    A share that does not answer may keep a call for ever. It is given up when there is no sign of life for
    `threads.ANSWER_SECONDS`; a call that takes long but gives such signs is not.

    Parameters
    ----------
    name
        Name of the thread.
    on_late
        Called when a call that was given up has ended after all.
    """

    def __init__(self, name: str, on_late: Callable[[], None]) -> None:
        self._name = name
        self._on_late = on_late
        self._heard = 0.0
        self._late: asyncio.Future[None] | None = None

    def give_sign(self) -> None:
        """Note that the call goes on; to be called by what is being called."""
        self._heard = time.monotonic()

    async def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what `function` returns in the thread.

        Raises
        ------
        OSError
            ETIMEDOUT if there was no sign of life for too long, in this call or still in the one before it.
        """
        if self._late is not None and not self._late.done():
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

        self.give_sign()
        threading.Thread(target=work, name=self._name, daemon=True).start()
        await self._wait_for(ended)
        if errors:
            raise errors.pop()
        # The thread may be slow to end, and must not keep what it found.
        return results.pop()

    async def _wait_for(self, ended: asyncio.Future[None]) -> None:
        try:
            while not ended.done():
                left = self._heard + threads.ANSWER_SECONDS - time.monotonic()
                if left <= 0:
                    raise self._silence()
                await asyncio.wait([ended], timeout=left)
        finally:
            if not ended.done():
                # Given up, or nobody waits for it any more: it must end before the next one begins.
                self._late = ended
                ended.add_done_callback(lambda _: self._on_late())

    def _silence(self) -> OSError:
        return OSError(errno.ETIMEDOUT, f"no answer for {time.monotonic() - self._heard:.0f} s")
