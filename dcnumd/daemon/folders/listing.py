"""Lists folders: which files in them may be measurements, as far as names and types of files tell."""

from __future__ import annotations

import dataclasses
import errno
import fnmatch
import functools
import os
import re
import stat
from collections.abc import Callable

from dcnumd.config.values import Settings
from dcnumd.daemon.folders.links import LinkFault, stat_of
from dcnumd.logic.stamp import Stamp
from dcnumd.read.trust import Trust

Found = list[tuple[str, Stamp]]
"""Absolute paths of possible measurements, with their stat."""
Folders = dict[str, tuple[int, int]]
"""Absolute paths of folders, with the numbers of the device and the inode: another folder may get the same path."""

MEASUREMENT_SUFFIX = ".rtdc"
RESULT_SUFFIX = "_dcn"
"""Results of dcnum carry this, whatever our own suffix is."""
FOREIGN_SUFFIX = "_dce"
"""Results of dcnum's predecessor carry this; nothing in them says what they are."""
REPORT_SUFFIXES = (".html", ".json", ".png")
"""Reports and indexes have such names, and no measurement has."""
TEMPORARY_SUFFIXES = ("~", ".tmp", ".part", ".partial")


@dataclasses.dataclass(frozen=True, slots=True)
class CandidateFilter:
    """Decides by its name whether a file may be a measurement; results of dcnum and dcnumd may be, too.

    Capitals mean nothing in it: some file systems and shares give names in capitals.
    """

    patterns: tuple[str, ...]
    output_folders: tuple[str, ...]
    """In these are results only, so they are not looked into."""

    @classmethod
    def of(cls, settings: Settings) -> CandidateFilter:
        """Return the filter that `settings` ask for.

        Results are known by what is in them, and by the ledger. A folder of results that is watched, or holds a
        watched folder, is therefore looked into.
        """
        watched = {above for folder in settings.watch.folders for above in (folder, *folder.parents)}
        folders = {output.folder for output in settings.outputs if output.folder is not None} - watched
        return cls(settings.watch.patterns, tuple(map(os.fspath, folders)))

    def refusal(self, path: str) -> str:
        """Return why `path` is not taken, as a code; empty if it is."""
        name = path.rpartition("/")[2].lower()
        if name.startswith("."):
            return "hidden"
        if name.endswith(TEMPORARY_SUFFIXES):
            return "temporary"
        if not _matcher(self.patterns)(name):
            return "pattern"
        if name.endswith(REPORT_SUFFIXES):
            return "report"
        if name.endswith(FOREIGN_SUFFIX + MEASUREMENT_SUFFIX):
            return "own_output"
        if self.is_output(path):
            return "output_folder"
        return ""

    def is_output(self, path: str) -> bool:
        """Return whether `path` is a folder of results or lies in one."""
        return any(path == folder or path.startswith(f"{folder.rstrip('/')}/") for folder in self.output_folders)


def has_result_name(path: str, settings: Settings) -> bool:
    """Return whether a file is called like a result of dcnum, or of dcnumd with these settings."""
    name = path.rpartition("/")[2].lower()
    stem = name.removesuffix(MEASUREMENT_SUFFIX)
    suffixes = (RESULT_SUFFIX, *(output.suffix.lower() for output in settings.outputs))
    return stem != name and stem.endswith(suffixes)


@functools.lru_cache
def _matcher(patterns: tuple[str, ...]) -> Callable[[str], re.Match[str] | None]:
    return re.compile("|".join(map(fnmatch.translate, patterns)), re.IGNORECASE).match


@dataclasses.dataclass(slots=True)
class Listing:
    """What a look into one watched folder found."""

    found: Found = dataclasses.field(default_factory=list)
    not_files: list[str] = dataclasses.field(default_factory=list)
    """Folders and the like that have the name of a measurement."""
    left_out: list[str] = dataclasses.field(default_factory=list)
    """Files that look like measurements, but fit no pattern."""
    links: dict[str, LinkFault] = dataclasses.field(default_factory=dict)
    """Symbolic links that look like measurements, but lead to where none is read, or nowhere."""
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)
    """Folders inside that could not be listed, with the reason."""
    folders: Folders = dataclasses.field(default_factory=dict)
    """All folders that were listed."""


def list_folder(
    root: str,
    accepts: CandidateFilter,
    *,
    recursive: bool,
    trust: Trust | None = None,
    give_sign: Callable[[], None] | None = None,
) -> Listing:
    """Look for measurements below `root`.

    Parameters
    ----------
    root
        The folder.
    accepts
        What may be a measurement.
    recursive
        Whether to look into the folders inside, too; symbolic links to folders are not followed.
    trust
        Where symbolic links to files may lead; None: anywhere.
    give_sign
        Called after each name: a share that is slow is not one that is gone.

    Raises
    ------
    OSError
        If `root` itself cannot be listed; folders inside that cannot are noted in the listing.
    """
    listing = Listing()
    trust = trust or Trust()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                listing.folders[folder] = _identity(folder)
                for entry in entries:
                    _sort_in(entry, accepts, trust, listing, waiting if recursive else None)
                    if give_sign is not None:
                        give_sign()
        except OSError as error:
            if folder == root:
                raise
            # What vanished between two calls is no trouble.
            if error.errno != errno.ENOENT:
                listing.unreadable[folder] = error.strerror or str(error)
    return listing


def _identity(folder: str) -> tuple[int, int]:
    result = os.stat(folder)  # noqa: PTH116 -- text, as it is
    return result.st_dev, result.st_ino


def _sort_in(
    entry: os.DirEntry[str], accepts: CandidateFilter, trust: Trust, listing: Listing, waiting: list[str] | None
) -> None:
    if entry.is_dir(follow_symlinks=False):
        if waiting is not None and not entry.name.startswith(".") and not accepts.is_output(entry.path):
            waiting.append(entry.path)
        if not accepts.refusal(entry.path):
            listing.not_files.append(entry.path)
        return
    if refusal := accepts.refusal(entry.path):
        if refusal == "pattern" and entry.name.lower().endswith(MEASUREMENT_SUFFIX):
            listing.left_out.append(entry.path)
        return
    try:
        result = stat_of(entry.path, trust) if entry.is_symlink() else entry.stat()
    except OSError:
        # It vanished: there is nothing to settle.
        return
    if isinstance(result, LinkFault):
        listing.links[entry.path] = result
    elif stat.S_ISREG(result.st_mode):
        listing.found.append((entry.path, Stamp.of(result)))
    else:
        listing.not_files.append(entry.path)
