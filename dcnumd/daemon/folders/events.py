"""File events for all watched folders: keeps one watcher running over all of them, and starts it again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping
from typing import Protocol

from dcnumd.daemon.clock import now
from dcnumd.daemon.folders.hang_guard import in_thread
from dcnumd.daemon.folders.watcher import Listener, Watcher

STEP_MS = 100
"""Time between looks at what has come [ms]; it is heard of after one to two of them."""
COURTEOUS_STEP_MS = 40
"""The same where a recording has to stop the work at once."""
PAUSE_SECONDS = 1.0
"""Time until a watcher that failed is started again [s]; it doubles as long as they fail."""
LONGEST_PAUSE_SECONDS = 60.0
LIMITS = {"watch limit reached": "fs.inotify.max_user_watches", "os error 24": "fs.inotify.max_user_instances"}
"""What is in watchfiles' errors when a limit of the system is reached."""


class Follower(Listener, Protocol):
    """Who follows one watched folder."""

    @property
    def folder(self) -> str:
        """The watched folder."""

    @property
    def followed(self) -> Mapping[str, object]:
        """The folders to watch, `followable` ones only: itself and those inside."""

    def request_scan(self) -> None:
        """List everything, because events may have been lost, or there are none any more, or there are some again."""


class FileEvents:
    """Hears what changes in the folders of all its followers.

    There is one watcher for all of them, as each takes the same share of the processor, however few its folders are.
    watchfiles cannot be told of further folders; another watcher then takes over, before the one before it ends.

    Parameters
    ----------
    courteous
        Whether a recording must be heard of as soon as possible.
    """

    def __init__(self, *, courteous: bool = False) -> None:
        self.problem = ""
        """Why there are no events, or not from all folders; empty if there are."""
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
        """Let a follower hear of changes as soon as it calls `renew`."""
        self._followers.append(follower)

    async def leave(self, follower: Follower) -> None:
        """Let a follower hear of nothing any more; with the last one, the watcher ends."""
        self._followers.remove(follower)
        if self._followers:
            return
        if self._mending is not None:
            self._mending.cancel()
        self._current = None
        # A thread that is inside of watchfiles must not meet the end of Python.
        await self._end(*self._watchers)

    async def renew(self) -> None:
        """Hear from now on of all folders that the followers have; `problem` says whether that has succeeded."""
        before = self._renewals
        async with self._lock:
            # One that began in the meantime knows the same folders.
            if self._renewals == before:
                self._renewals += 1
                await self._replace()

    async def _replace(self) -> None:
        before, self._current = self._current, None
        gap = False
        error = await self._start(lenient=False)
        if error is not None and before is not None:
            # There may not be enough watches for both.
            await self._end(before)
            gap = True
            error = await self._start(lenient=False)
        if error is not None and await self._start(lenient=True) is None and not _limit(error):
            # A folder has vanished.
            error = None
        if before is not None and not before.ended.is_set():
            before.retire()
        self._set_problem("" if error is None else _described(error), gap=gap)

    async def _start(self, *, lenient: bool) -> Exception | None:
        """Start a watcher, and return why that has failed, None if it has not."""
        self._watchers = [running for running in self._watchers if not running.ended.is_set()]
        followers = tuple(self._followers)
        if not (folders := await self._present(followers)):
            return None
        started = Watcher(folders, followers, self._step_ms, self._mend_soon, self._on_failure)
        self._watchers.append(started)
        try:
            await started.start(lenient=lenient)
        except Exception as error:  # noqa: BLE001 -- watchfiles raises whatever it likes
            return error
        self._current = started
        self._began = now()
        return None

    async def _present(self, followers: Collection[Follower]) -> set[str]:
        """Return the folders that can be watched, without those on disks that do not answer.

        watchfiles keeps all of Python waiting while it begins to watch, so the folders are looked at before, in
        threads: what was just looked at is remembered by the kernel, and answers at once.
        """
        present: set[str] = set()
        self._unanswered = False
        for follower in followers:
            try:
                present |= await in_thread(follower.folder, _readable, set(follower.followed))
            except OSError:
                # Its own scan reports that; the others have their events.
                self._unanswered = True
        return present

    async def _end(self, *watchers: Watcher) -> None:
        for running in watchers:
            running.end()
        for running in watchers:
            await running.ended.wait()

    def _on_failure(self, failed: Watcher, error: Exception) -> None:
        if failed is not self._current:
            # What it had to hand over is lost.
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
        """Watch everything anew, until that succeeds, and have it scanned, too."""
        while True:
            await asyncio.sleep(seconds)
            await self.renew()
            self._request_scans()
            if not self.problem and not self._unanswered:
                return
            seconds = self._pause


def followable(folders: Collection[str]) -> set[str]:
    """Return the folders that watchfiles can follow.

    A name that is not UTF-8 makes it stop, also when a folder of that name is merely listed; so the folder around it
    is not followed, either.
    """
    odd = {folder for folder in folders if not is_text(folder)}
    return set(folders) - odd - {os.path.dirname(folder) for folder in odd}  # noqa: PTH120 -- thousands


def is_text(path: str) -> bool:
    """Return whether a path is UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _readable(folders: set[str]) -> set[str]:
    return {folder for folder in folders if os.access(folder, os.R_OK)}


def _limit(error: Exception) -> str:
    """Return which limit of the system is reached, empty if none is."""
    return next((limit for sign, limit in LIMITS.items() if sign in str(error)), "")


def _described(error: Exception) -> str:
    """Return what an operator can do about missing file events."""
    if limit := _limit(error):
        return f"the system's limit {limit} is reached; raise it with sysctl"
    if "Unable to decode" in str(error):
        return f"{error}; a name that is not UTF-8 stops file events for a while: rename it"
    return str(error)
