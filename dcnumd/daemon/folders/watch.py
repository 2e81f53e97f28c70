"""Finds files: listing the folders is the mechanism, file events only make it quicker.

Everything found is handed to one function, the gate; nothing is decided here but what a measurement is called.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pathlib
import stat
from collections.abc import Callable

import structlog

from dcnumd.config.values import Settings
from dcnumd.daemon.folders.hang_guard import HangGuard
from dcnumd.daemon.folders.inotify import FolderEvents
from dcnumd.daemon.folders.links import LinkFault, stat_of
from dcnumd.daemon.folders.listing import CandidateFilter, Found, Listing, list_folder
from dcnumd.daemon.folders.mounts import Place, see
from dcnumd.daemon.folders.places import PlaceMemory
from dcnumd.logic.stamp import Stamp
from dcnumd.read.trust import Trust

log = structlog.get_logger()

SLICE = 100
"""Number of files that are offered at once."""
EVENT_SECONDS = 1.0
"""Smallest time between two looks at what file events name [s]: a recording raises hundreds of events a second."""
COURTEOUS_EVENT_SECONDS = 0.1
"""The same where a recording has to stop the work at once."""


class FolderWatch:
    """Follows one watched folder through its life: missing, present, unmounted, replaced, silent.

    Parameters
    ----------
    folder
        The folder.
    settings
        What to look for, how often, and by which means.
    offer
        Receives what is found.
    places
        Remembers where the folder lies, also for later runs; None: nobody does.
    trusted
        Symbolic links may lead to files in these folders; None: to any file.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        settings: Settings,
        offer: Callable[[Found], None],
        places: PlaceMemory | None = None,
        trusted: tuple[pathlib.Path, ...] | None = None,
    ) -> None:
        self.folder = os.fspath(folder)
        self._root = folder
        self._watch = settings.watch
        self._event_seconds = COURTEOUS_EVENT_SECONDS if settings.resources.pause_while_acquiring else EVENT_SECONDS
        self._accepts = CandidateFilter.of(settings)
        self._offer = offer
        self._places = places
        self._place = places.before(self.folder) if places is not None else None
        self._trusted = trusted
        self._identity: tuple[int, int] | None = None
        self._reachable: bool | None = None
        self._armed: tuple[str, str] | None = None
        self._degraded = False
        self._reported: set[str] = set()
        self._events: FolderEvents | None = None
        self._event_error: OSError | None = None
        self._rescan = asyncio.Event()
        # What events name must not wait for a long scan.
        self._scanner = HangGuard(self.look_again)
        self._follower = HangGuard(self.look_again)
        self.ready = asyncio.Event()
        """Set once everything that is there was offered and what comes will be noticed."""

    @property
    def reachable(self) -> bool:
        """Whether the last look at the folder saw it."""
        return self._reachable is True

    @property
    def polled(self) -> bool:
        """Whether the folder is only scanned, because there are no events or none are wanted."""
        return self._watch.force_polling or (self._place is not None and self._place.is_network)

    def look_again(self) -> None:
        """Scan now instead of at the next turn."""
        self._rescan.set()

    async def keep_watching(self) -> None:
        """Scan now and then regularly, and whenever `look_again` asks for it; follow file events in between."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._keep_scanning(group)
        finally:
            if self._events is not None:
                self._events.close()

    async def scan(self) -> None:
        """List the folder and offer what is there; report when it vanishes or returns."""
        try:
            identity, place, listing = await self._scanner.call(self._list)
        except OSError as error:
            self._gone(error)
            return
        self._here(identity, place)
        self._report_odd(listing)
        await self._offer_slowly(listing.found)

    async def _offer_slowly(self, found: Found) -> None:
        for start in range(0, len(found), SLICE):
            self._offer(found[start : start + SLICE])
            # A backlog of many files must not keep signals and jobs waiting.
            await asyncio.sleep(0)

    async def _keep_scanning(self, group: asyncio.TaskGroup) -> None:
        """Scan regularly; have file events in a task of `group`, which is tried again as long as there are none."""
        while True:
            if self._events is None and not self._watch.force_polling:
                try:
                    self._events = FolderEvents()
                except OSError as error:
                    self._event_error = error
                else:
                    group.create_task(self._follow_events(self._events), name=f"events {self.folder}")
            await self.scan()
            self._report_means()
            self.ready.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_seconds()):
                    await self._rescan.wait()
            self._rescan.clear()

    def _pause_seconds(self) -> float:
        seconds = self._watch.rescan_seconds
        return min(self._watch.poll_seconds, seconds) if self.polled else seconds

    async def _follow_events(self, events: FolderEvents) -> None:
        """Offer what file events name; have the folder scanned when some of them were lost."""
        while True:
            await events.wait()
            paths, lost = events.changed()
            if lost:
                self.look_again()
            if paths:
                try:
                    found = await self._follower.call(self._named_by, paths)
                except OSError:
                    # The folder does not answer: the next scan, which finds them as well, reports that.
                    self.look_again()
                else:
                    await self._offer_slowly(found)
            await asyncio.sleep(self._event_seconds)

    def _list(self) -> tuple[tuple[int, int], Place | None, Listing]:
        place = see(self.folder, self._place)
        result = pathlib.Path(self.folder).stat()
        identity = result.st_dev, result.st_ino
        if self._events is not None:
            self._event_error = None
            if identity != self._identity or (place is not None and place.is_network):
                # What was followed belongs to a folder that is gone.
                self._events.leave(self.folder)
        follow = None if place is not None and place.is_network else self._follow
        listing = list_folder(
            self.folder,
            self._accepts,
            recursive=self._watch.recursive,
            trust=Trust(self._trusted),
            enter=follow,
            give_sign=self._scanner.give_sign,
        )
        # It may have been unmounted in the meantime: then what was listed is not what was meant.
        return identity, see(self.folder, place or self._place), listing

    def _follow(self, folder: str) -> None:
        """Have file events for a folder, before it is listed: so nothing in it is missed."""
        if self._events is not None:
            try:
                self._events.follow(folder)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                # Listing it fails as well, and says so.
                return
            except OSError as error:
                self._event_error = error

    def _gone(self, error: OSError) -> None:
        self._identity = None
        if self._reachable is not False:
            log.warning("watch.unreachable", folder=self.folder, error=error.strerror or str(error))
        self._reachable = False

    def _here(self, identity: tuple[int, int], place: Place | None) -> None:
        if self._reachable is False:
            log.info("watch.recovered", folder=self.folder)
        self._reachable = True
        self._identity = identity
        if place is not None and place != self._place:
            self._place = place
            if self._places is not None:
                self._places.remember(self.folder, place)

    def _report_odd(self, listing: Listing) -> None:
        odd = dict.fromkeys(listing.not_files, "not_a_file") | dict.fromkeys(listing.unreadable, "unreadable")
        odd |= dict.fromkeys(listing.left_out, "pattern") | {path: link.reason for path, link in listing.links.items()}
        errors = listing.unreadable | {path: link.text for path, link in listing.links.items()}
        for path, reason in odd.items():
            if path not in self._reported:
                log.warning("file.ignored", path=path, reason=reason, error=errors.get(path, ""))
        self._reported = set(odd)

    def _report_means(self) -> None:
        """Report by which means the folder is followed, when that has changed."""
        if not self._reachable:
            return
        error = None if self.polled else self._event_error
        seconds = self._pause_seconds()
        if error is not None:
            if not self._degraded:
                problem = _event_problem(error)
                log.warning("watch.degraded", folder=self.folder, error=problem, rescan_seconds=seconds)
        elif self._degraded:
            log.info("watch.recovered", folder=self.folder)
        self._degraded = error is not None
        means = "polling" if self.polled else "events", self._place.kind if self._place else "unknown"
        if error is None and means != self._armed:
            mode, filesystem = self._armed = means
            log.info("watch.armed", folder=self.folder, mode=mode, filesystem=filesystem, rescan_seconds=seconds)

    def _named_by(self, paths: set[str]) -> Found:
        """Return the possible measurements among changed paths, and those in changed folders."""
        found: Found = []
        # anew each time, as links on the way to the folders may change
        trust = Trust(self._trusted)
        for path in paths:
            self._follower.give_sign()
            try:
                if not self._follows(path):
                    continue
                if self._is_folder(path):
                    # Files that came with a new folder raise no events of their own.
                    found += self._listed(path, trust)
                elif not self._accepts.refusal(path):
                    result = stat_of(path, trust)
                    if not isinstance(result, LinkFault) and stat.S_ISREG(result.st_mode):
                        found.append((path, Stamp.of(result)))
            except OSError:
                # It is gone already, or will be found by the next scan.
                continue
        return found

    def _is_folder(self, path: str) -> bool:
        """Return whether a path is a folder that is looked into."""
        if not self._watch.recursive or self._accepts.is_output(path):
            return False
        return stat.S_ISDIR(pathlib.Path(path).lstat().st_mode)

    def _listed(self, folder: str, trust: Trust) -> Found:
        enter, give_sign = self._follow, self._follower.give_sign
        return list_folder(folder, self._accepts, recursive=True, trust=trust, enter=enter, give_sign=give_sign).found

    def _follows(self, path: str) -> bool:
        """Return whether a scan would come to `path` too: not through links to folders, not into hidden ones."""
        inner = pathlib.Path(path)
        if inner.name.startswith("."):
            return False
        for parent in inner.parents:
            if parent == self._root:
                return True
            if parent.name.startswith(".") or parent.is_symlink():
                return False
        return False


def _event_problem(error: OSError) -> str:
    """Return what an operator can do about missing file events."""
    limits = {errno.ENOSPC: "fs.inotify.max_user_watches", errno.EMFILE: "fs.inotify.max_user_instances"}
    advice = f"; the system's limit {limits[error.errno]} is reached" if error.errno in limits else ""
    return f"{error.strerror}{advice}"
