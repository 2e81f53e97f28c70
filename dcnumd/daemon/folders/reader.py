"""Reading of a watched folder: of all of it, or of the paths in file events, by the same rules."""

from __future__ import annotations

import os
import pathlib
import stat
from collections.abc import Callable, Iterable

from dcnumd.config.values import Settings
from dcnumd.daemon.folders.links import LinkFault, stat_of
from dcnumd.daemon.folders.listing import CandidateFilter, Listing, list_folder
from dcnumd.logic.stamp import Stamp
from dcnumd.read.trust import Trust


class FolderReader:
    """Finds possible measurements in one watched folder; `read` and `read_named` may block on a share.

    Parameters
    ----------
    root
        Path of the folder.
    settings
        Settings of the search: patterns, recursion, and folders of results.
    trusted
        Folders to whose files symbolic links may lead; None means any file.
    """

    def __init__(self, root: pathlib.Path, settings: Settings, trusted: tuple[pathlib.Path, ...] | None = None) -> None:
        self._root = root
        self._recursive = settings.watch.recursive
        self._accepts = CandidateFilter.of(settings)
        self._trusted = trusted

    def read(self, give_sign: Callable[[], None]) -> Listing:
        """Return the listing of the folder.

        Raises
        ------
        OSError
            If the folder itself cannot be listed.
        """
        return self._listed(os.fspath(self._root), Trust(self._trusted), give_sign)

    def read_named(self, paths: Iterable[str], give_sign: Callable[[], None]) -> Listing:
        """Return the possible measurements among these paths, and those in folders among the paths."""
        listing = Listing()
        # Why not once in the constructor? Links on the way to the folders may change.
        trust = Trust(self._trusted)
        for path in paths:
            give_sign()
            try:
                if not self._follows(path):
                    continue
                if self._is_folder(path):
                    # Files that came with a new folder raise no events.
                    inside = self._listed(path, trust, give_sign)
                    listing.found += inside.found
                    listing.folders |= inside.folders
                elif not self._accepts.refusal(path):
                    result = stat_of(path, trust)
                    if not isinstance(result, LinkFault) and stat.S_ISREG(result.st_mode):
                        listing.found.append((path, Stamp.of(result)))
            except OSError:
                # The file is gone already, or the next scan will find it.
                continue
        return listing

    def may_be_measurement(self, path: str) -> bool:
        """Return whether a file with this name would be accepted; this accesses no files, and never blocks."""
        return not self._accepts.refusal(path)

    def _listed(self, folder: str, trust: Trust, give_sign: Callable[[], None]) -> Listing:
        return list_folder(folder, self._accepts, recursive=self._recursive, trust=trust, give_sign=give_sign)

    def _is_folder(self, path: str) -> bool:
        """Return whether a path is a folder that is searched."""
        if not self._recursive or self._accepts.is_output(path):
            return False
        return stat.S_ISDIR(pathlib.Path(path).lstat().st_mode)

    def _follows(self, path: str) -> bool:
        """Return whether a scan would reach `path`: not through links to folders, and not in hidden folders."""
        inner = pathlib.Path(path)
        if inner.name.startswith("."):
            return False
        for parent in inner.parents:
            if parent == self._root:
                return True
            if parent.name.startswith(".") or parent.is_symlink():
                return False
        return False
