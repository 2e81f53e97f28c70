"""Finds files: listing the folders is the mechanism, file events only make it quicker.

Everything found is handed to one function, the gate; nothing is decided here but what a measurement is called.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import fnmatch
import os
import pathlib
import stat
from collections.abc import Callable

import structlog

from dcnumd.config import Settings
from dcnumd.daemon.inotify import FolderEvents
from dcnumd.daemon.records import Stamp

log = structlog.get_logger()

Found = list[tuple[str, Stamp]]
"""Absolute paths of possible measurements, with their stat."""

RESULT_SUFFIXES = ("_dcn", "_dce")
"""Results of dcnum and of its predecessor carry these, whatever our own suffix is."""
TEMPORARY_SUFFIXES = ("~", ".tmp", ".part", ".partial")
SLICE = 500
"""So many files are offered at once."""
EVENT_SECONDS = 1.0
"""After one look at what file events name comes none for so long: a recording raises hundreds of them in a second."""


@dataclasses.dataclass(frozen=True, slots=True)
class CandidateFilter:
    """Decides by its name whether a file may be a measurement."""

    patterns: tuple[str, ...]
    suffix: str
    output_folder: str | None

    @classmethod
    def of(cls, settings: Settings) -> CandidateFilter:
        """Return the filter that `settings` ask for."""
        folder = settings.output.folder
        return cls(settings.watch.patterns, settings.output.suffix, os.fspath(folder) if folder else None)

    def refusal(self, path: str) -> str:
        """Return why `path` is not taken, as a code; empty if it is."""
        name = path.rpartition("/")[2]
        if name.startswith("."):
            return "hidden"
        if name.endswith(TEMPORARY_SUFFIXES):
            return "temporary"
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.patterns):
            return "pattern"
        stem = name.removesuffix(".rtdc")
        if stem != name and stem.endswith((self.suffix, *RESULT_SUFFIXES)):
            return "own_output"
        if self.output_folder is not None and self.is_output(path):
            return "output_folder"
        return ""

    def is_output(self, path: str) -> bool:
        """Return whether `path` is the folder of the results or lies in it."""
        folder = self.output_folder
        return folder is not None and (path == folder or path.startswith(f"{folder.rstrip('/')}/"))


@dataclasses.dataclass(slots=True)
class Listing:
    """What a look into one watched folder found."""

    found: Found = dataclasses.field(default_factory=list)
    not_files: list[str] = dataclasses.field(default_factory=list)
    """Folders and the like that have the name of a measurement."""
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)
    """Folders inside that could not be listed, with the reason."""


def list_folder(
    root: str, accepts: CandidateFilter, *, recursive: bool, enter: Callable[[str], None] | None = None
) -> Listing:
    """Look for measurements below `root`.

    Parameters
    ----------
    root
        The folder.
    accepts
        What may be a measurement.
    recursive
        Whether to look into the folders inside, too.
    enter
        Called with each folder before it is listed.

    Raises
    ------
    OSError
        If `root` itself cannot be listed; folders inside that cannot are noted in the listing.
    """
    listing = Listing()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        if enter is not None:
            enter(folder)
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    _sort_in(entry, accepts, listing, waiting if recursive else None)
        except OSError as error:
            if folder == root:
                raise
            # What vanished between two calls is no trouble.
            if error.errno != errno.ENOENT:
                listing.unreadable[folder] = error.strerror or str(error)
    return listing


def _sort_in(entry: os.DirEntry[str], accepts: CandidateFilter, listing: Listing, waiting: list[str] | None) -> None:
    if entry.is_dir(follow_symlinks=False):
        if waiting is not None and not entry.name.startswith(".") and not accepts.is_output(entry.path):
            waiting.append(entry.path)
        if not accepts.refusal(entry.path):
            listing.not_files.append(entry.path)
        return
    if accepts.refusal(entry.path):
        return
    try:
        result = entry.stat()
    except OSError:
        # It vanished, or is a link to nothing: there is nothing to settle.
        return
    if stat.S_ISREG(result.st_mode):
        listing.found.append((entry.path, Stamp.of(result)))
    else:
        listing.not_files.append(entry.path)


class FolderWatch:
    """Follows one watched folder through its life: missing, present, replaced, silent.

    Parameters
    ----------
    folder
        The folder.
    settings
        What to look for, how often, and by which means.
    offer
        Receives what is found.
    """

    def __init__(self, folder: pathlib.Path, settings: Settings, offer: Callable[[Found], None]) -> None:
        self.folder = os.fspath(folder)
        self._root = folder
        self._watch = settings.watch
        self._accepts = CandidateFilter.of(settings)
        self._offer = offer
        self._identity: tuple[int, int] | None = None
        self._reachable: bool | None = None
        self._armed = False
        self._degraded = False
        self._reported: set[str] = set()
        self._events: FolderEvents | None = None
        self._event_error: OSError | None = None
        self._rescan = asyncio.Event()
        self.ready = asyncio.Event()
        """Set once everything that is there was offered and what comes will be noticed."""

    def look_again(self) -> None:
        """Scan now instead of at the next turn."""
        self._rescan.set()

    async def keep_watching(self) -> None:
        """Scan now and then regularly, and whenever `look_again` asks for it; follow file events in between."""
        if self._watch.force_polling:
            await self._keep_scanning(min(self._watch.poll_seconds, self._watch.rescan_seconds))
            return
        try:
            async with asyncio.TaskGroup() as group:
                await self._keep_scanning(self._watch.rescan_seconds, group)
        finally:
            if self._events is not None:
                self._events.close()

    async def scan(self) -> None:
        """List the folder and offer what is there; report when it vanishes or returns."""
        try:
            identity, listing = await asyncio.to_thread(self._list)
        except OSError as error:
            self._gone(error)
            return
        self._here(identity)
        self._report_odd(listing)
        for start in range(0, len(listing.found), SLICE):
            self._offer(listing.found[start : start + SLICE])
            # A backlog of many files must not keep signals and jobs waiting.
            await asyncio.sleep(0)

    async def _keep_scanning(self, seconds: float, group: asyncio.TaskGroup | None = None) -> None:
        """Scan regularly; have file events in a task of `group`, which is tried again as long as there are none."""
        while True:
            if group is not None and self._events is None:
                try:
                    self._events = FolderEvents()
                except OSError as error:
                    self._event_error = error
                else:
                    group.create_task(self._follow_events(self._events), name=f"events {self.folder}")
            await self.scan()
            self._report_events()
            self.ready.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._rescan.wait(), seconds)
            self._rescan.clear()

    async def _follow_events(self, events: FolderEvents) -> None:
        """Offer what file events name; have the folder scanned when some of them were lost."""
        while True:
            await events.wait()
            paths, lost = events.changed()
            if lost:
                self.look_again()
            if paths:
                self._offer(await asyncio.to_thread(self._named_by, paths))
            await asyncio.sleep(EVENT_SECONDS)

    def _list(self) -> tuple[tuple[int, int], Listing]:
        result = pathlib.Path(self.folder).stat()
        identity = result.st_dev, result.st_ino
        if self._events is not None:
            self._event_error = None
            if identity != self._identity:
                # What was followed belongs to a folder that is gone.
                self._events.leave(self.folder)
        listing = list_folder(self.folder, self._accepts, recursive=self._watch.recursive, enter=self._follow)
        return identity, listing

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

    def _here(self, identity: tuple[int, int]) -> None:
        if self._reachable is False:
            log.info("watch.recovered", folder=self.folder)
        self._reachable = True
        self._identity = identity

    def _report_odd(self, listing: Listing) -> None:
        odd = dict.fromkeys(listing.not_files, "not_a_file") | dict.fromkeys(listing.unreadable, "unreadable")
        for path, reason in odd.items():
            if path not in self._reported:
                log.warning("file.ignored", path=path, reason=reason, error=listing.unreadable.get(path, ""))
        self._reported = set(odd)

    def _report_events(self) -> None:
        """Report by which means the folder is followed, when that has changed."""
        if not self._reachable:
            return
        rescan_seconds = self._watch.rescan_seconds
        if (error := self._event_error) is not None:
            if not self._degraded:
                log.warning(
                    "watch.degraded", folder=self.folder, error=_event_problem(error), rescan_seconds=rescan_seconds
                )
        elif self._degraded:
            log.info("watch.recovered", folder=self.folder)
        elif not self._armed:
            mode = "polling" if self._watch.force_polling else "events"
            log.info("watch.armed", folder=self.folder, mode=mode, rescan_seconds=rescan_seconds)
        self._degraded = error is not None
        self._armed = True

    def _named_by(self, paths: set[str]) -> Found:
        """Return the possible measurements among changed paths, and those in changed folders."""
        found: Found = []
        for path in paths:
            try:
                if not self._follows(path):
                    continue
                result = pathlib.Path(path).stat()
                if stat.S_ISDIR(result.st_mode) and self._watch.recursive and not self._accepts.is_output(path):
                    # Files that came with a new folder raise no events of their own.
                    found += list_folder(path, self._accepts, recursive=True, enter=self._follow).found
                elif stat.S_ISREG(result.st_mode) and not self._accepts.refusal(path):
                    found.append((path, Stamp.of(result)))
            except OSError:
                # It is gone already, or will be found by the next scan.
                continue
        return found

    def _follows(self, path: str) -> bool:
        """Return whether a scan would come to `path` too: not through links to folders, not into hidden ones."""
        inner = pathlib.Path(path)
        if inner.name.startswith(".") or (inner.is_symlink() and inner.is_dir()):
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
