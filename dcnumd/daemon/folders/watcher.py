"""One run of watchfiles over a list of folders, in its own thread."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import pathlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from watchfiles import Change, watch

QUEUE_LIMIT = pathlib.Path("/proc/sys/fs/inotify/max_queued_events")
EVENTS_PER_NAME = 8
"""Assumed number of events per name; a new file usually has 7: create, open, write, close, rename, chown, chmod."""
LATE_SECONDS = 2.0
"""Time after which an iteration counts as late [s]: while a process is stopped, the kernel may drop events."""
LAST_TURNS = 3
"""Number of iterations until a retired watcher ends: one to read events, one to find no more, and one to end."""


class Listener(Protocol):
    """Interface of an object that receives changes."""

    def concerns(self, change: Change, path: str) -> bool:
        """Return whether this change is wanted; called in the watcher's thread, many times a second."""

    def take(self, changes: set[tuple[Change, str]]) -> None:
        """Handle changes; called in the event loop."""


class Watcher:
    """Reports changes in folders, but not in folders inside of them, until it ends or fails.

    Changes arrive in the event loop after one to two steps. Why not `watchfiles.awatch`? It starts to watch in the
    event loop, which a slow disk would block, and waits in a thread that prevents Python from exiting.

    Parameters
    ----------
    folders
        Folders to watch. Folders inside are watched only if they are listed here: watchfiles itself would follow
        symbolic links, watch hidden folders, and miss files that are in a new folder before it is watched.
    listeners
        Objects that receive the changes.
    step_ms
        Time between two checks for new events [ms].
    on_lost
        Function that is called in the event loop when the kernel may have dropped events.
    on_failure
        Function that is called in the event loop when this watcher has failed after its start.
    """

    def __init__(
        self,
        folders: Iterable[str],
        listeners: Iterable[Listener],
        step_ms: int,
        on_lost: Callable[[], None],
        on_failure: Callable[[Watcher, Exception], None],
    ) -> None:
        self.ended = asyncio.Event()
        """Set when the thread is about to end."""
        self._folders = tuple(folders)
        self._listeners = tuple(listeners)
        self._step_ms = step_ms
        self._on_lost = on_lost
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._armed: asyncio.Future[None] = self._loop.create_future()
        self._last_turn: float | None = None
        self._turns_left: int | None = None
        self._names = 0
        self._most_names = _queue_length() // EVENTS_PER_NAME
        self._changes: dict[Listener, set[tuple[Change, str]]] = collections.defaultdict(set)

    async def start(self, *, lenient: bool) -> None:
        """Start to watch, and return when changes are reported from now on.

        Parameters
        ----------
        lenient
            Whether folders that cannot be watched are left out.

        Raises
        ------
        Exception
            If watching fails; the message is that of watchfiles.
        """
        threading.Thread(target=self._run, args=(lenient,), name="file events", daemon=True).start()
        await self._armed

    def retire(self) -> None:
        """End when all changes so far have been passed on."""
        self._turns_left = LAST_TURNS

    def end(self) -> None:
        """End at the next iteration."""
        self._turns_left = 0

    def is_set(self) -> bool:
        """Return whether watchfiles has to stop; it calls this in each iteration, before it checks for events."""
        now = time.monotonic()
        if self._last_turn is None:
            self._tell(lambda: None if self._armed.done() else self._armed.set_result(None))
        elif now > self._last_turn + LATE_SECONDS or self._names > self._most_names:
            # watchfiles does not report an overflow of the kernel's queue.
            self._tell(self._on_lost)
        self._last_turn, self._names = now, 0
        if self._turns_left is None:
            return False
        self._turns_left -= 1
        return self._turns_left <= 0

    def _run(self, lenient: bool) -> None:
        error: Exception | None = None
        try:
            for _ in watch(
                *self._folders,
                watch_filter=self._sort_in,
                debounce=0,
                step=self._step_ms,
                stop_event=self,
                rust_timeout=0,
                force_polling=False,
                recursive=False,
                # With this, watchfiles skips all folders that it cannot watch, for any reason.
                ignore_permission_denied=lenient,
            ):
                changes, self._changes = self._changes, collections.defaultdict(set)
                self._tell(functools.partial(_hand_out, changes))
        except Exception as problem:  # noqa: BLE001 -- passed to the owner, for example for a name that is not UTF-8
            error = problem
        self._tell(lambda: self._finish(error))

    def _sort_in(self, change: Change, path: str) -> bool:
        self._names += 1
        concerned = [listener for listener in self._listeners if listener.concerns(change, path)]
        for listener in concerned:
            self._changes[listener].add((change, path))
        return bool(concerned)

    def _finish(self, error: Exception | None) -> None:
        self.ended.set()
        if error is None:
            return
        if self._armed.done():
            self._on_failure(self, error)
        else:
            self._armed.set_exception(error)

    def _tell(self, what: Callable[[], object]) -> None:
        # The loop may be closed by now.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what)


def _hand_out(changes: dict[Listener, set[tuple[Change, str]]]) -> None:
    for listener, its_changes in changes.items():
        listener.take(its_changes)


def _queue_length() -> int:
    """Return the number of events that the kernel queues for one watcher."""
    try:
        return int(QUEUE_LIMIT.read_text())
    except (OSError, ValueError):
        return 16384
