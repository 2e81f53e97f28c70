"""Search for files in watched folders: scans are the mechanism, and file events only make it faster.

All files found are passed to one function; files are selected here only by their names.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator

from watchfiles import Change

from dcnumd.config.values import Settings
from dcnumd.daemon.folders.events import FileEvents, followable, is_text
from dcnumd.daemon.folders.hang_guard import HangGuard
from dcnumd.daemon.folders.listing import Folders, Found, Listing
from dcnumd.daemon.folders.locations import Location, LocationMemory, locate
from dcnumd.daemon.folders.reader import FolderReader
from dcnumd.daemon.folders.watch_log import WatchLog

SLICE = 100
"""Number of files that are passed on at once."""


class FolderWatch:
    """Follows one watched folder, which may be missing, unmounted, replaced or unavailable at times.

    Parameters
    ----------
    folder
        Path of the folder.
    settings
        Settings of the search: patterns, intervals, and whether to poll.
    offer
        Function that receives the files found.
    locations
        Storage of the location of the folder, also for later runs; None stores nothing.
    trusted
        Folders to whose files symbolic links may lead; None means any file.
    events
        File events that are shared with other watches; None creates separate ones.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        settings: Settings,
        offer: Callable[[Found], None],
        locations: LocationMemory | None = None,
        trusted: tuple[pathlib.Path, ...] | None = None,
        events: FileEvents | None = None,
    ) -> None:
        self.folder = os.fspath(folder)
        self.followed: Folders = {}
        """Folders whose file events are wanted: the watched folder and those inside."""
        self.reachable = False
        """Whether the last scan reached the folder."""
        self.ready = asyncio.Event()
        """Set when all present files have been passed on, and new files will be noticed."""
        self._watch = settings.watch
        self._reader = FolderReader(folder, settings, trusted)
        self._offer = offer
        self._locations = locations
        self._location = locations.before(self.folder) if locations is not None else None
        self._log = WatchLog(self.folder)
        self._events = events or FileEvents(courteous=settings.resources.pause_while_acquiring)
        self._joined = False
        self._odd = ""
        self._named: set[str] = set()
        self._news = asyncio.Event()
        self._rescan = asyncio.Event()
        # Two guards, since files in events must not wait for a long scan.
        self._scanner = HangGuard(self.request_scan)
        self._naming = HangGuard(self.request_scan)

    @property
    def polled(self) -> bool:
        """Whether the folder is only scanned, because there are no events or none are wanted."""
        return self._watch.force_polling or self.is_share

    @property
    def is_share(self) -> bool:
        """Whether the folder is on a network share, as far as is known."""
        return self._location is not None and self._location.is_network

    def request_scan(self) -> None:
        """Request a scan now instead of at the regular time."""
        self._rescan.set()

    async def keep_watching(self) -> None:
        """Scan now, regularly, and when `request_scan` is called; follow file events in between."""
        if self._watch.force_polling:
            await self._keep_scanning()
        self._events.join(self)
        self._joined = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_scanning(), name=f"scan {self.folder}")
                group.create_task(self._keep_reading_named(), name=f"events {self.folder}")
        finally:
            await self._events.leave(self)

    async def scan(self) -> None:
        """List the folder and pass on its files; log when the folder vanishes or returns."""
        before = self.followed
        try:
            listing = await self._read()
            if await self._follow(listing.folders, instead_of=before):
                # Files that came after the listing raised no events.
                listing = await self._read()
        except OSError as error:
            self.reachable = False
            self.followed = {}
            self._odd = ""
            self._log.unreachable(error)
            return
        self._log.odd(listing)
        await self._offer_slowly(listing.found)
        self._request_reading(await self._follow(listing.folders))

    def concerns(self, change: Change, path: str) -> bool:
        """Return whether a change may add a measurement or a folder, or removes a folder."""
        followed = self.followed
        if path in followed:
            return True
        folder, _, name = path.rpartition("/")
        if change is Change.deleted or name.startswith(".") or (folder or "/") not in followed:
            return False
        # A file that grows is known by its name; a new path with any name may be a folder.
        return change is Change.added or self._reader.may_be_measurement(path)

    def take(self, changes: set[tuple[Change, str]]) -> None:
        """Request that the paths in file events are read."""
        left = {path for change, path in changes if change is not Change.modified and path in self.followed}
        if left:
            # These folders are gone, or others have their names. One pass, since ten thousand may be renamed at once.
            self.followed = {
                folder: identity
                for folder, identity in self.followed.items()
                if left.isdisjoint(_with_those_above(folder))
            }
        self._request_reading(left | {path for _, path in changes if path != self.folder})

    def _request_reading(self, paths: set[str]) -> None:
        if self.folder in paths:
            self.request_scan()
        elif paths:
            self._named |= paths
            self._news.set()

    async def _read(self) -> Listing:
        location, listing = await self._scanner.call(self._list)
        self.reachable = True
        self._log.reached()
        if location is not None and location != self._location:
            self._location = location
            if self._locations is not None:
                self._locations.remember(self.folder, location)
        return listing

    def _list(self) -> tuple[Location | None, Listing]:
        location = locate(self.folder, self._location)
        listing = self._reader.read(self._scanner.give_sign)
        # Check again: the folder may have been unmounted in the meantime, so that another one was listed.
        return locate(self.folder, location or self._location), listing

    async def _follow(self, folders: Folders, *, instead_of: Folders | None = None) -> set[str]:
        """Watch folders for file events.

        Parameters
        ----------
        folders
            The folders.
        instead_of
            Folders that were followed before all folders were listed; those that are not in `folders` are gone.

        Returns
        -------
        new
            Folders that raised no events before.
        """
        if self.polled or not self._joined:
            self.followed = {}
            return set()
        if not folders:
            return set()
        wanted = followable(folders)
        odd = next((folder for folder in folders if not is_text(folder)), "")
        self._odd = odd if instead_of is not None else self._odd or odd
        new = {folder: folders[folder] for folder in wanted if self.followed.get(folder) != folders[folder]}
        gone = (instead_of or {}).keys() - wanted
        self.followed = {folder: identity for folder, identity in self.followed.items() if folder not in gone} | new
        if new:
            await self._events.renew()
        return set(new)

    async def _offer_slowly(self, found: Found) -> None:
        for start in range(0, len(found), SLICE):
            self._offer(found[start : start + SLICE])
            # A backlog of many files must not delay signals and jobs.
            await asyncio.sleep(0)

    async def _keep_scanning(self) -> None:
        while True:
            await self.scan()
            if self.reachable:
                mode = "polling" if self.polled else "events"
                kind = self._location.kind if self._location else "unknown"
                self._log.means(mode, kind, self._pause_seconds(), "" if self.polled else self._problem())
            self.ready.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_seconds()):
                    await self._rescan.wait()
            self._rescan.clear()

    def _pause_seconds(self) -> float:
        seconds = self._watch.rescan_seconds
        return min(self._watch.poll_seconds, seconds) if self.polled or self._odd else seconds

    def _problem(self) -> str:
        """Return why there are no file events, or not from all folders; empty if there is no problem."""
        if self._odd:
            return f"{os.fsencode(self._odd)!r}: no file events here, as names that are not UTF-8 stop them; rename it"
        return self._events.problem

    async def _keep_reading_named(self) -> None:
        """Pass on the files in file events, and follow the folders in them."""
        while True:
            await self._news.wait()
            self._news.clear()
            paths, self._named = self._named, set()
            # Paths in a folder that is read itself are redundant.
            paths = {path for path in paths if paths.isdisjoint(list(_with_those_above(path))[1:])}
            try:
                listing = await self._naming.call(self._reader.read_named, paths, self._naming.give_sign)
            except OSError:
                # The folder does not respond: the next scan, which finds the files as well, reports that.
                self.request_scan()
                continue
            await self._offer_slowly(listing.found)
            # Read new folders again, since their files raised no events until now.
            self._request_reading(await self._follow(listing.folders))


def _with_those_above(path: str) -> Iterator[str]:
    """Yield a path and its ancestors."""
    while path:
        yield path
        path = path.rpartition("/")[0]
