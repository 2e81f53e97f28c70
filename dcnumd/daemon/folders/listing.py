"""Listing of folders: the files that may be measurements, as far as names and types of files tell."""

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
"""Absolute paths of possible measurements, with their stamps."""
Folders = dict[str, tuple[int, int]]
"""Absolute paths of folders, with device and inode numbers, since another folder may get the same path."""

MEASUREMENT_SUFFIX = ".rtdc"
RESULT_SUFFIX = "_dcn"
"""Suffix of the results of dcnum, independent of the configured suffix."""
FOREIGN_SUFFIX = "_dce"
"""Suffix of the results of dcnum's predecessor; their content does not identify them as results."""
REPORT_SUFFIXES = (".html", ".json", ".png")
"""Suffixes of reports and indexes; no measurement has them."""
TEMPORARY_SUFFIXES = ("~", ".tmp", ".part", ".partial")


@dataclasses.dataclass(frozen=True, slots=True)
class CandidateFilter:
    """Decides by its name whether a file may be a measurement; results of dcnum and dcnumd may be, too.

    The case of names is ignored, since some file systems and shares return names in capitals.
    """

    patterns: tuple[str, ...]
    output_folders: tuple[str, ...]
    """Folders that contain only results, and are therefore not searched."""
    result_suffixes: tuple[str, ...]
    """Suffixes of results, in lower case."""

    @classmethod
    def of(cls, settings: Settings) -> CandidateFilter:
        """Return the filter for `settings`.

        A folder of results that is watched, or contains a watched folder, is searched nevertheless, since results are
        recognized by their content and by the ledger.
        """
        watched = {above for folder in settings.watch.folders for above in (folder, *folder.parents)}
        folders = {output.folder for output in settings.outputs if output.folder is not None} - watched
        suffixes = [output.suffix.lower() for output in settings.outputs if output.suffix]
        return cls(settings.watch.patterns, tuple(map(os.fspath, folders)), (RESULT_SUFFIX, FOREIGN_SUFFIX, *suffixes))

    def refusal(self, path: str) -> str:
        """Return the reason why `path` is not accepted, as a code; empty if it is accepted."""
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

    def looks_like_measurement(self, name: str) -> bool:
        """Return whether a file has the name of a measurement, and not of a result; patterns do not matter."""
        stem = name.lower().removesuffix(MEASUREMENT_SUFFIX)
        return stem != name.lower() and not stem.endswith(self.result_suffixes)

    def is_output(self, path: str) -> bool:
        """Return whether `path` is a folder of results or is in one."""
        return any(path == folder or path.startswith(f"{folder.rstrip('/')}/") for folder in self.output_folders)


def has_result_name(path: str, settings: Settings) -> bool:
    """Return whether a file has the name of a result of dcnum, or of dcnumd with these settings."""
    name = path.rpartition("/")[2].lower()
    stem = name.removesuffix(MEASUREMENT_SUFFIX)
    suffixes = (RESULT_SUFFIX, *(output.suffix.lower() for output in settings.outputs))
    return stem != name and stem.endswith(suffixes)


@functools.lru_cache
def _matcher(patterns: tuple[str, ...]) -> Callable[[str], re.Match[str] | None]:
    return re.compile("|".join(map(fnmatch.translate, patterns)), re.IGNORECASE).match


@dataclasses.dataclass(slots=True)
class Listing:
    """Result of listing one watched folder."""

    found: Found = dataclasses.field(default_factory=list)
    not_files: list[str] = dataclasses.field(default_factory=list)
    """Folders and other non-regular files with the name of a measurement."""
    left_out: list[str] = dataclasses.field(default_factory=list)
    """Files with the name of a measurement that match no pattern."""
    links: dict[str, LinkFault] = dataclasses.field(default_factory=dict)
    """Symbolic links with the name of a measurement that are broken, or lead to where no files may be read."""
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
    """Return the possible measurements in `root`.

    Parameters
    ----------
    root
        Path of the folder.
    accepts
        Filter of names.
    recursive
        Whether to list the folders inside as well; symbolic links to folders are not followed.
    trust
        Where symbolic links to files may lead; None means anywhere.
    give_sign
        Function that is called after each name, so that a slow share is not mistaken for one that does not respond.

    Raises
    ------
    OSError
        If `root` itself cannot be listed; folders inside that cannot be listed are recorded in the result.
    """
    listing = Listing()
    trust = trust or Trust()
    waiting = [root]  # Why not `os.walk`? It gives no sign until it has listed a whole folder.
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
            # A folder that vanished between two calls is no error.
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
        if refusal == "pattern" and accepts.looks_like_measurement(entry.name):
            listing.left_out.append(entry.path)
        return
    try:
        result = stat_of(entry.path, trust) if entry.is_symlink() else entry.stat()
    except OSError:
        # The file vanished.
        return
    if isinstance(result, LinkFault):
        listing.links[entry.path] = result
    elif stat.S_ISREG(result.st_mode):
        listing.found.append((entry.path, Stamp.of(result)))
    else:
        listing.not_files.append(entry.path)
