"""File events of all watched folders, from one watcher that is restarted if it fails."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping
from typing import Protocol

from dcnumd.daemon.clock import now
from dcnumd.daemon.folders.hang_guard import in_thread
from dcnumd.daemon.folders.watcher import Listener, Watcher

STEP_MS = 100
"""Time between two checks for new events [ms]; a change is reported after one to two of these times."""
COURTEOUS_STEP_MS = 40
"""Value of `STEP_MS` for the case that jobs must be suspended at once when a recording begins [ms]."""
PAUSE_SECONDS = 1.0
"""Delay before a failed watcher is started again [s]; it doubles with each further failure."""
LONGEST_PAUSE_SECONDS = 60.0
LIMITS = {"watch limit reached": "fs.inotify.max_user_watches", "os error 24": "fs.inotify.max_user_instances"}
"""Texts in errors of watchfiles when a limit of the system is reached, with the name of the limit."""


class Follower(Listener, Protocol):
    """Interface of an object that follows one watched folder."""

    @property
    def folder(self) -> str:
        """Path of the watched folder."""

    @property
    def followed(self) -> Mapping[str, object]:
        """Folders to watch: the watched folder and those inside, `followable` ones only."""

    def request_scan(self) -> None:
        """Request a full scan, because events may have been lost, have stopped, or have started again."""


class FileEvents:
    """Reports changes in the folders of all followers.

    There is one watcher for all followers, as each watcher takes the same processor time, however few folders it has.
    Folders cannot be added to a running watcher of watchfiles; a new watcher replaces it, and starts before it ends.

    Parameters
    ----------
    courteous
        Whether a recording must be noticed as soon as possible.
    """

    def __init__(self, *, courteous: bool = False) -> None:
        self.problem = ""
        """Why there are no events, or not from all folders; empty if there is no problem."""
        self._step_ms = COURTEOUS_STEP_MS if courteous else STEP_MS
        self._followers: list[Follower] = []
        self._watchers: list[Watcher] = []
        self._current: Watcher | None = None
        self._mending: asyncio.Task[None] | None = None
        self._unanswered = False
        self._began = 0.0
        self._pause = 0.0
        self._lock = asyncio.Lock()
        self._renewals = 0

    def join(self, follower: Follower) -> None:
        """Add a follower; changes are reported to it after its call of `renew`."""
        self._followers.append(follower)

    async def leave(self, follower: Follower) -> None:
        """Remove a follower; end the watcher after the last one."""
        self._followers.remove(follower)
        if self._followers:
            return
        if self._mending is not None:
            self._mending.cancel()
        self._current = None
        # No thread may be inside of watchfiles when Python exits.
        await self._end(*self._watchers)

    async def renew(self) -> None:
        """Watch the present folders of all followers; `problem` tells whether that succeeded."""
        before = self._renewals
        async with self._lock:
            # A call that began in the meantime has used the same folders.
            if self._renewals == before:
                self._renewals += 1
                await self._replace()

    async def _replace(self) -> None:
        before, self._current = self._current, None
        gap = False
        error = await self._start(lenient=False)
        if error is not None and before is not None:
            # The system may not allow enough watches for both watchers.
            await self._end(before)
            gap = True
            error = await self._start(lenient=False)
        if error is not None and await self._start(lenient=True) is None and not _limit(error):
            # A folder vanished; the others are watched.
            error = None
        if before is not None and not before.ended.is_set():
            before.retire()
        self._set_problem("" if error is None else _described(error), gap=gap)

    async def _start(self, *, lenient: bool) -> Exception | None:
        """Start a watcher, and return the error if that fails; None otherwise."""
        self._watchers = [running for running in self._watchers if not running.ended.is_set()]
        followers = tuple(self._followers)
        if not (folders := await self._present(followers)):
            return None
        started = Watcher(folders, followers, self._step_ms, self._mend_soon, self._on_failure)
        self._watchers.append(started)
        try:
            await started.start(lenient=lenient)
        except Exception as error:  # noqa: BLE001 -- watchfiles raises various errors
            return error
        self._current = started
        self._began = now()
        return None

    async def _present(self, followers: Collection[Follower]) -> set[str]:
        """Return the folders that can be watched, without those on file systems that do not respond.

        watchfiles blocks all threads of Python while it starts to watch. The folders are therefore accessed first in
        separate threads; afterwards the kernel has them in its cache and responds at once.
        """
        present: set[str] = set()
        self._unanswered = False
        for follower in followers:
            try:
                present |= await in_thread(follower.folder, _readable, set(follower.followed))
            except OSError:
                # The scan of this follower reports that; the others get their events.
                self._unanswered = True
        return present

    async def _end(self, *watchers: Watcher) -> None:
        for running in watchers:
            running.end()
        for running in watchers:
            await running.ended.wait()

    def _on_failure(self, failed: Watcher, error: Exception) -> None:
        if failed is not self._current:
            # Changes that it had not handed over yet are lost.
            self._mend_soon()
            return
        self._current = None
        if now() > self._began + LONGEST_PAUSE_SECONDS:
            self._pause = 0.0
        self._set_problem(_described(error))

    def _set_problem(self, problem: str, *, gap: bool = False) -> None:
        if gap or problem != self.problem:
            self.problem = problem
            self._request_scans()
        if problem or self._unanswered:
            self._pause = min(max(PAUSE_SECONDS, 2 * self._pause), LONGEST_PAUSE_SECONDS)
            self._mend_after(self._pause)

    def _request_scans(self) -> None:
        for follower in self._followers:
            follower.request_scan()

    def _mend_soon(self) -> None:
        self._mend_after(0.0)

    def _mend_after(self, seconds: float) -> None:
        if self._followers and (self._mending is None or self._mending.done()):
            self._mending = asyncio.create_task(self._mend(seconds), name="file events")

    async def _mend(self, seconds: float) -> None:
        """Watch all folders again until that succeeds, and request a scan each time."""
        while True:
            await asyncio.sleep(seconds)
            await self.renew()
            self._request_scans()
            if not self.problem and not self._unanswered:
                return
            seconds = self._pause


def followable(folders: Collection[str]) -> set[str]:
    """Return the folders that watchfiles can follow.

    A name that is not valid UTF-8 makes it stop, even if a folder of that name is only listed; so the parent of such a
    folder is left out as well.
    """
    odd = {folder for folder in folders if not is_text(folder)}
    return set(folders) - odd - {os.path.dirname(folder) for folder in odd}  # noqa: PTH120 -- thousands


def is_text(path: str) -> bool:
    """Return whether a path is valid UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _readable(folders: set[str]) -> set[str]:
    return {folder for folder in folders if os.access(folder, os.R_OK)}


def _limit(error: Exception) -> str:
    """Return the name of the system's limit that is reached; empty if none is."""
    return next((limit for sign, limit in LIMITS.items() if sign in str(error)), "")


def _described(error: Exception) -> str:
    """Return why there are no file events, with the remedy if one is known."""
    if limit := _limit(error):
        return f"the system's limit {limit} is reached; raise it with sysctl"
    if "Unable to decode" in str(error):
        return f"{error}; a name that is not UTF-8 stops file events for a while: rename it"
    return str(error)
